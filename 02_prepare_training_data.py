"""Stage 02: paraphrase pairs, or labelled passages, become training triplets in three splits that share nothing.

reads   01_sentences.jsonl, 01_merged_paraphrases.jsonl, and the evaluation sets of prepare.decontaminate;
        with prepare.labelled that file instead of stage 01's
writes  02_training_train.jsonl, 02_training_validation.jsonl, 02_training_test.jsonl
            {"id", "group", "anchor", "positive", "negatives": [..], "negative_kinds": [..], "source", "section",
            "model"}, with "kind": "passage" for query-passage pairs, "negative_notes" beside counterfactuals, and
            "opposed": [two texts] that contradict the row, with prepare.opposed_statements
        02_columns/{train,validation,test}.jsonl   the same as columns anchor, positive, negative_1 ..
        02_held_out_books.jsonl   the same for prepare.split.held_out_books, for stage 04 alone; fewer or no negatives
                                  where these books have too few sentences
        02_labelled_test.jsonl    with prepare.labelled: the test split's passages, which stage 04 clusters
        02_removed.jsonl      what was left out: {"set", "reason", "shared", "field", "row"}
        02_statistics.json, 02_statistics.html   sizes, books, generators, lengths, kinds of negatives, leak audit

Groups (a sentence, its paraphrases, near-duplicates), sections or books are split before anything is derived from
them; a row's negatives come from its own split; no two splits share a run of prepare.ngram_words words. Held-out books
are like a split of their own: what connects them with the others is left out of the others. Labelled passages are split
by document; anchor and positive share a label, which is their group, and the negatives have another one.

example python 02_prepare_training_data.py --config configs/laptop.yaml --set prepare.negatives=similar_length
"""

from pathlib import Path

from tqdm import tqdm

from cardioembed import stage
from cardioembed.config import FOR_LABELS, Settings, to_yaml
from cardioembed.errors import UserError
from cardioembed.records import Row, atomic_open, read_jsonl, write_json, write_jsonl
from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.building import Prepared, build_triplets
from cardioembed.triplets.decontamination import evaluation_files
from cardioembed.triplets.held_out import HELD_OUT
from cardioembed.triplets.labelled import build_labelled, passages_as_written
from cardioembed.triplets.splitting import SPLITS
from cardioembed.triplets.summary import statistics_document, statistics_page


def main(settings: Settings) -> None:
    run = stage.Stage("02", settings)
    prepare = settings.prepare

    # 1. Split paraphrases by group, section or book, or labelled passages by document; draw negatives in each split.
    if prepare.labelled:
        prepared, passages = from_labels(run, settings)
    else:
        prepared, passages = from_paraphrases(run, settings), {}
    tell(prepared)

    # 2. Prove it before anything is written.
    views = passages_as_written(prepared, passages) if passages else prepared.splits
    audit = audit_leaks(views, prepare.ngram_words)
    what = "document" if passages else "group"
    print(f"  leak audit: no id, {what}, text or run of {prepare.ngram_words} words is in two splits")

    # 3. Write. Files of held-out texts may be there from a run with other settings.
    labelled_path = run.path("02_labelled_test.jsonl")
    labelled_path.unlink(missing_ok=True)
    if passages:
        write_jsonl(labelled_path, passages["test"])
        run.wrote(labelled_path)
    files = {name: run.path(f"02_training_{name}.jsonl") for name in SPLITS}
    files[HELD_OUT] = run.path("02_held_out_books.jsonl")
    files[HELD_OUT].unlink(missing_ok=True)
    for name, rows in prepared.splits.items():
        path = files[name]
        write_jsonl(path, rows)
        run.wrote(path)
        groups = len({row["group"] for row in rows})
        print(f"    {len(rows):,} triplets of {groups:,} {'labels' if passages else 'groups'}")
    for name in SPLITS:
        write_jsonl(run.path("02_columns") / f"{name}.jsonl", map(columns, prepared.splits[name]))
    run.wrote(run.path("02_columns"))
    write_jsonl(run.path("02_removed.jsonl"), prepared.removed)
    run.wrote(run.path("02_removed.jsonl"))
    statistics = statistics_document(prepared, audit)
    write_json(run.path("02_statistics.json"), statistics)
    run.wrote(run.path("02_statistics.json"))
    with atomic_open(run.path("02_statistics.html")) as stream:
        page = statistics_page(statistics, prepared.removed, run=str(run.run_dir), settings=to_yaml(settings))
        stream.write(page)
    run.wrote(run.path("02_statistics.html"))
    run.finish({name: len(rows) for name, rows in prepared.splits.items()}, following="03")


def from_paraphrases(run: stage.Stage, settings: Settings) -> Prepared:
    """Triplets from what stage 01 left."""
    prepare = settings.prepare
    sentences_path, pairs_path = run.requires("01", "01_sentences.jsonl", "01_merged_paraphrases.jsonl")
    sentences = read_jsonl(sentences_path, texts=("id", "text", "source"))
    pairs = read_jsonl(pairs_path, texts=("id", "sentence_id", "original", "paraphrase", "source", "model"))
    run.inputs += [path for place in prepare.decontaminate for path in evaluation_files(place)]
    print(f"  {len(pairs):,} pairs, {len(sentences):,} sentences")
    embedder = load_miner(prepare.mined.model, settings.device) if "mined" in prepare.negatives else None
    return build_triplets(
        sentences,
        pairs,
        **prepare.model_dump(exclude=FOR_LABELS),
        seed=settings.seed,
        progress=near_duplicate_bar,
        embedder=embedder,
        show_progress_bar=True,
    )


def from_labels(run: stage.Stage, settings: Settings) -> tuple[Prepared, dict[str, list[Row]]]:
    """Triplets from labelled passages, and the passages of each split."""
    prepare, path = settings.prepare, Path(settings.prepare.labelled)
    if not path.is_file():
        raise UserError(
            f'prepare.labelled: {path} does not exist. Put a JSONL file of {{"id", "label", "text"}} there, with '
            '"document" where several passages are from one, or name another: --set prepare.labelled=FILE'
        )
    run.inputs += [path, *(file for place in prepare.decontaminate for file in evaluation_files(place))]
    prepared, passages = build_labelled(
        path,
        triplets_per_passage=prepare.triplets_per_passage,
        negatives_per_anchor=prepare.negatives_per_anchor,
        shares={name: getattr(prepare.split, name) for name in SPLITS},
        near_duplicate_jaccard=prepare.near_duplicate_jaccard,
        decontaminate=prepare.decontaminate,
        ngram_words=prepare.ngram_words,
        seed=settings.seed,
        progress=near_duplicate_bar,
    )
    counts = prepared.counts
    print(f"  {counts['sentences']:,} passages of {len(counts['labels'])} labels and {counts['groups']:,} documents")
    return prepared, passages


def near_duplicate_bar(texts):
    """A progress bar over texts."""
    return tqdm(texts, desc="near-duplicates", unit="text")


def load_miner(model: str, device: str):
    """The model that finds hard negatives; only they need torch, which takes seconds to import."""
    from cardioembed.embedder.saving import load_model

    print(f"  mining with {model}")
    try:
        return load_model(model, device=device)
    except UserError as error:
        raise UserError(f"prepare.mined.model: {error}") from None


def tell(prepared: Prepared) -> None:
    """Prints what was left out or replaced, and warnings."""
    removed: dict[tuple[str, str], list[Row]] = {}
    for row in prepared.removed:
        removed.setdefault((row["set"], row["reason"]), []).append(row)
    for (name, reason), rows in removed.items():
        sentences, passages = (sum(row["field"] == field for row in rows) for field in ("sentence", "passage"))
        others = f"{len(rows) - sentences:,} pairs, {sentences:,} sentences"
        print(f"  left out for {reason} of {name}: {f'{passages:,} passages' if passages else others}")
    for name, counts in prepared.counts["negatives"].items():
        for kind, number in counts.items():
            if " replaced by " in kind:
                print(f"  {name}: {number:,} negatives of kind {kind}")
        if number := counts.get("negatives_missing"):
            print(f"  {name}: {number:,} negatives are missing, for want of other sentences")
        if number := counts.get("passages_with_sentences_as_negatives"):
            print(f"  {name}: {number:,} query-passage pairs have sentences as negatives, for want of other passages")
    for name, books in prepared.counts["split"].get("books", {}).items():
        print(f"  {name}: {', '.join(books)}")
    if held := prepared.counts["split"].get(HELD_OUT):
        left_out = " and ".join(f"{number:,} {what}" for what, number in held["left_out"].items())
        print(f"  held out: {', '.join(held['books'])}: {held['pairs']:,} pairs; {left_out} of other books left out")
    for warning in prepared.warnings:
        print(f"  warning: {warning}")


def columns(row: Row) -> Row:
    """A row as sentence-transformers' trainer reads it."""
    negatives = {f"negative_{number}": text for number, text in enumerate(row["negatives"], 1)}
    return {"anchor": row["anchor"], "positive": row["positive"], **negatives}


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
