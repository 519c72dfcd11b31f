"""Stage 01: books become sentences, and sentences with their paraphrases one row a valid pair.

reads   merge.books        .pdf, .md, .txt, .html; pages that are pictures go through merge.ocr
        merge.generators   language models that write paraphrases or query-passage pairs of them (optional)
        merge.paraphrases  JSONL files: {"original", "paraphrase"}, {"sentence", "paraphrased"} or {"query", "passage"}
writes  01_sentences.jsonl             every unique sentence of the books
        01_generated/<name>.jsonl      what each generator wrote, as it came: a killed run goes on from there
        01_merged_paraphrases.jsonl    every valid pair
        01_rejected.jsonl              refused rows: file, line, reason, the row
        01_failed_pages.jsonl          pages that gave no text although something is on them
        01_statistics.json, 01_report.html    counts and samples by book, cleaning rule, generator and reason

example python 01_merge_paraphrases.py --config configs/laptop.yaml
"""

from collections import Counter
from functools import partial

from tqdm import tqdm

from cardioembed import stage
from cardioembed.config import Settings
from cardioembed.corpus.ocr import build_recogniser
from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import Corpus, build_corpus
from cardioembed.errors import UserError
from cardioembed.parallel import usable_cores
from cardioembed.paraphrases.cosine import refuse_by_cosine
from cardioembed.paraphrases.generation.run import Generator, GeneratorCounts, run_generators
from cardioembed.paraphrases.merging import Merged, find_paraphrase_files, find_trusted_files, merge_paraphrases
from cardioembed.paraphrases.report import write_rejection_report
from cardioembed.records import write_json, write_jsonl

GATES = {"min_characters", "max_characters", "min_length_ratio", "max_length_ratio", "language"}


def main(settings: Settings) -> None:
    run = stage.Stage("01", settings)
    merge = settings.merge
    num_proc = settings.num_proc or usable_cores()

    # 1. Books to unique sentences; the paraphrase files are looked for before the long work.
    books = find_books(merge.books)
    files = find_paraphrase_files(merge.paraphrases)
    trusted = find_trusted_files(merge.trusted, files)
    run.inputs += [*books, *files]
    corpus = build_corpus(
        books,
        min_characters=merge.min_characters,
        max_characters=merge.max_characters,
        near_duplicate_jaccard=merge.near_duplicate_jaccard,
        recognise=build_recogniser(**merge.ocr.model_dump(exclude={"min_page_characters"})),
        min_page_characters=merge.ocr.min_page_characters,
        num_proc=num_proc,
        progress=partial(tqdm, desc="books", unit="book"),
    )
    print(f"  {len(books)} books, {len(corpus.sentences):,} unique sentences")

    # 2. Language models write pairs; what they wrote before is not asked for again.
    generated = run_generators(
        [Generator(**generator.model_dump()) for generator in merge.generators],
        corpus.sentences,
        folder=run.path("01_generated"),
        seed=settings.seed,
        device=settings.device,
        **merge.passages.model_dump(),
    )
    _tell_generated(generated)

    # 3. Every pair that passes the gates.
    merged = merge_paraphrases(
        [*(counts.path for counts in generated if counts.path.exists()), *files],
        corpus.sentences,
        aliases=corpus.aliases,
        min_relevance=merge.passages.min_relevance,
        trusted=trusted,
        num_proc=num_proc,
        **merge.model_dump(include=GATES),
    )
    if merge.embedding_gate.model:
        _gate_by_cosine(merged, settings)
    _tell_merged(merged)

    # 4. Write; what was refused is kept even when nothing else is.
    statistics = _statistics(corpus, merged, generated)
    refused = [*merged.rejected, *corpus.rejected]
    rejected, report = run.path("01_rejected.jsonl"), run.path("01_report.html")
    write_jsonl(rejected, refused)
    everything = {**statistics, "failed_pages": corpus.failed_pages}
    write_rejection_report(report, pairs=merged.pairs, rejected=refused, statistics=everything, seed=settings.seed)
    if merged.counts and not merged.pairs:
        raise UserError(_nothing_left(merged, rejected))
    for name, rows in (
        ("01_sentences.jsonl", corpus.sentences),
        ("01_failed_pages.jsonl", corpus.failed_pages),
        ("01_merged_paraphrases.jsonl", merged.pairs),
    ):
        write_jsonl(run.path(name), rows)
        run.wrote(run.path(name))
    write_json(run.path("01_statistics.json"), statistics)
    for path in (rejected, run.path("01_statistics.json"), report):
        run.wrote(path)
    if failed := corpus.failed_pages:
        first = failed[0]
        print(f"  note: {len(failed):,} pages failed; first: {first['file']}, page {first['page']}: {first['reason']}")
    if strangers := statistics["paraphrases_not_in_books"]:
        print(f"  note: {strangers:,} pairs have an original that is in no book; they were kept under their own source")
    if not merged.counts:
        print("  no paraphrases yet: name language models in merge.generators, or files in merge.paraphrases")
    run.finish(statistics, following="02" if merged.pairs else None)


def _gate_by_cosine(merged: Merged, settings: Settings) -> None:
    """Encodes every sentence and paraphrase once, and moves what is too far or too near to the rejected rows."""
    from cardioembed.embedder.saving import load_model  # torch is loaded only for this gate

    gate = settings.merge.embedding_gate
    embedder = load_model(gate.model, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    texts = [[pair[key] for pair in merged.pairs] for key in ("original", "paraphrase")]
    first, second = embedder.encode_pairs(*texts, show_progress_bar=True)
    merged.pairs, refused = refuse_by_cosine(
        merged.pairs, (first * second).sum(axis=1), gate.min_cosine, gate.max_cosine
    )
    merged.rejected += refused


def _tell_generated(generated: list[GeneratorCounts]) -> None:
    for counts in generated:
        cost = f", cost {counts.cost:.2f}" if counts.cost else ""
        print(
            f"  {counts.name}: {counts.done:,} of {counts.wanted:,} done, {counts.asked:,} asked now, "
            f"{counts.prompt_tokens + counts.completion_tokens:,} tokens{cost}"
        )
        for reason, count in counts.failed.most_common():
            print(f"    failed {count:,}: {reason}; see {counts.failed_path}, the same command asks again")


def _tell_merged(merged: Merged) -> None:
    for file, counts in merged.counts.items():
        print(f"  {file}: {counts['kept']:,} of {counts['read']:,} rows kept")
    for reason, count in Counter(row["reason"] for row in merged.rejected).most_common():
        first = next(row for row in merged.rejected if row["reason"] == reason)
        where = f"{first['file']}, line {first['line']}: " if "file" in first else ""
        print(f"    rejected {count:,}: {reason}; first: {where}{first['detail']}")


def _nothing_left(merged: Merged, rejected: object) -> str:
    if not merged.rejected:
        return f"no valid paraphrase: {', '.join(merged.counts)} holds no row. Give rows, or set merge.paraphrases=[]"
    first = merged.rejected[0]
    where = f"{first['file']}, line {first['line']}: " if "file" in first else ""
    return (
        f"no valid paraphrase in {len(merged.counts)} files. First: {where}{first['detail']}. "
        f"All rows with reasons: {rejected}"
    )


def _statistics(corpus: Corpus, merged: Merged, generated: list[GeneratorCounts]) -> dict:
    paraphrases = Counter(row["sentence_id"] for row in merged.pairs)
    return {
        "books": {name: dict(counts) for name, counts in corpus.books.items()},
        "cleaning": dict(corpus.cleaning),
        "failed_pages": len(corpus.failed_pages),
        "sentences": len(corpus.sentences),
        "near_duplicates": len(corpus.aliases),
        "generators": [counts.statistics() for counts in generated],
        "pairs": len(merged.pairs),
        "sentences_with_paraphrases": len(paraphrases),
        "paraphrases_a_sentence": dict(sorted(Counter(paraphrases.values()).items())),
        "paraphrases_not_in_books": sum(counts["not_in_books"] for counts in merged.counts.values()),
        "paraphrase_files": {file: dict(counts) for file, counts in merged.counts.items()},
        "rejected": dict(Counter(row["reason"] for row in merged.rejected)),
    }


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
