"""Stage 02: paraphrase pairs become training triplets in three splits that share nothing.

reads   01_sentences.jsonl, 01_merged_paraphrases.jsonl
writes  02_training_train.jsonl, 02_training_validation.jsonl, 02_training_test.jsonl
            {"id", "group", "anchor", "positive", "negatives": [..], "source", "section", "model"}
        02_statistics.json   sizes, books, generators, lengths, and the leak audit

Groups (a sentence, its paraphrases, near-duplicates) are split before anything is derived from them, book by book;
a row's negatives come from its own split.

example python 02_prepare_training_data.py --config configs/laptop.yaml --set prepare.negatives=similar_length
"""

from collections import Counter

import numpy as np
from tqdm import tqdm

from cardioembed import stage
from cardioembed.config import Settings
from cardioembed.records import Row, read_jsonl, write_json, write_jsonl
from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.building import build_triplets


def main(settings: Settings) -> None:
    run = stage.Stage("02", settings)
    prepare = settings.prepare

    # 1. What stage 01 left.
    sentences_path, pairs_path = run.requires("01", "01_sentences.jsonl", "01_merged_paraphrases.jsonl")
    sentences = read_jsonl(sentences_path, texts=("id", "text", "source"))
    pairs = read_jsonl(pairs_path, texts=("id", "sentence_id", "original", "paraphrase", "source", "model"))
    print(f"  {len(pairs):,} pairs, {len(sentences):,} sentences")

    # 2. Split by group, then draw negatives inside each split.
    splits, counts = build_triplets(
        sentences,
        pairs,
        shares=prepare.split.model_dump(),
        near_duplicate_jaccard=prepare.near_duplicate_jaccard,
        negatives=prepare.negatives,
        negatives_per_anchor=prepare.negatives_per_anchor,
        min_distance=prepare.min_distance,
        length_tolerance=prepare.length_tolerance,
        seed=settings.seed,
        progress=lambda texts: tqdm(texts, desc="near-duplicates", unit="text"),
    )

    # 3. Prove it before anything is written.
    audit = audit_leaks(splits)
    print("  leak audit: no id, group or text is in two splits")

    # 4. Write.
    for name, rows in splits.items():
        path = run.path(f"02_training_{name}.jsonl")
        write_jsonl(path, rows)
        run.wrote(path)
        print(f"    {len(rows):,} triplets of {len({row['group'] for row in rows}):,} groups")
    statistics = {**counts, "splits": {name: _describe(rows) for name, rows in splits.items()}, "leak_audit": audit}
    path = run.path("02_statistics.json")
    write_json(path, statistics)
    run.wrote(path)
    run.finish({name: len(rows) for name, rows in splits.items()}, following="03")


def _describe(rows: list[Row]) -> dict:
    lengths = {key: [len(row[key].split()) for row in rows] for key in ("anchor", "positive")}
    lengths["negative"] = [len(text.split()) for row in rows for text in row["negatives"]]
    return {
        "triplets": len(rows),
        "groups": len({row["group"] for row in rows}),
        "sources": dict(Counter(row["source"] for row in rows).most_common()),
        "models": dict(Counter(row["model"] for row in rows).most_common()),
        "words": {
            key: {"mean": round(float(np.mean(values)), 2), "sd": round(float(np.std(values)), 2), "max": max(values)}
            for key, values in lengths.items()
        },
    }


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
