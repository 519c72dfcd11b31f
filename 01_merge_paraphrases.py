"""Stage 01: books and paraphrase files become one row a valid paraphrase pair.

reads   merge.books        folders, files or globs of .md, .txt, .pdf (born digital)
        merge.paraphrases  JSONL files: {"original", "paraphrase"} or {"sentence", "paraphrased"}, optional "model"
writes  01_sentences.jsonl             every unique sentence of the books
        01_merged_paraphrases.jsonl    every valid paraphrase of every sentence
        01_rejected.jsonl              refused rows: file, line, reason, the row
        01_statistics.json             counts by book, cleaning rule, file and reason

example python 01_merge_paraphrases.py --config configs/laptop.yaml
"""

from collections import Counter

from tqdm import tqdm

from cardioembed import stage
from cardioembed.config import Settings
from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import build_corpus
from cardioembed.errors import UserError
from cardioembed.paraphrases.merging import find_paraphrase_files, merge_paraphrases
from cardioembed.records import write_json, write_jsonl


def main(settings: Settings) -> None:
    run = stage.Stage("01", settings)
    merge = settings.merge

    # 1. Books to unique sentences.
    books = find_books(merge.books)
    files = find_paraphrase_files(merge.paraphrases)
    run.inputs += [*books, *files]
    corpus = build_corpus(
        books,
        min_characters=merge.min_characters,
        max_characters=merge.max_characters,
        progress=lambda items: tqdm(items, desc="books", unit="book"),
    )
    print(f"  {len(books)} books, {len(corpus.sentences):,} unique sentences")

    # 2. Every valid paraphrase of every sentence.
    merged = merge_paraphrases(
        files,
        corpus.sentences,
        min_characters=merge.min_characters,
        max_characters=merge.max_characters,
        min_length_ratio=merge.min_length_ratio,
        max_length_ratio=merge.max_length_ratio,
    )
    for file, counts in merged.counts.items():
        print(f"  {file}: {counts['kept']:,} of {counts['read']:,} rows kept")
    reasons = Counter(row["reason"] for row in merged.rejected)
    for reason, count in reasons.most_common():
        first = next(row for row in merged.rejected if row["reason"] == reason)
        print(f"    rejected {count:,}: {reason}; first: {first['file']}, line {first['line']}: {first['detail']}")

    # 3. Rejected rows are kept even when nothing else is.
    rejected = run.path("01_rejected.jsonl")
    write_jsonl(rejected, [*merged.rejected, *corpus.rejected])
    if files and not merged.pairs:
        first = merged.rejected[0] if merged.rejected else {"file": files[0], "line": 1, "detail": "no rows"}
        raise UserError(
            f"no valid paraphrase in {len(files)} files. First: {first['file']}, line {first['line']}: "
            f"{first['detail']}. All rows with reasons: {rejected}"
        )

    # 4. Write.
    sentences, pairs = run.path("01_sentences.jsonl"), run.path("01_merged_paraphrases.jsonl")
    write_jsonl(sentences, corpus.sentences)
    write_jsonl(pairs, merged.pairs)
    counts = _statistics(corpus, merged, reasons)
    statistics = run.path("01_statistics.json")
    write_json(statistics, counts)
    for path in (sentences, pairs, rejected, statistics):
        run.wrote(path)
    strangers = counts["paraphrases_not_in_books"]
    if strangers:
        print(f"  note: {strangers:,} pairs have an original that is in no book; they were kept under their own source")
    if not files:
        print(f"  no paraphrase files yet: have {sentences} paraphrased, then list the files in merge.paraphrases")
    run.finish(counts, following="02" if merged.pairs else None)


def _statistics(corpus, merged, reasons) -> dict:
    paraphrases = Counter(row["sentence_id"] for row in merged.pairs)
    return {
        "books": corpus.books,
        "cleaning": dict(corpus.cleaning),
        "sentences": len(corpus.sentences),
        "pairs": len(merged.pairs),
        "sentences_with_paraphrases": len(paraphrases),
        "paraphrases_a_sentence": dict(sorted(Counter(paraphrases.values()).items())),
        "paraphrases_not_in_books": sum(counts["not_in_books"] for counts in merged.counts.values()),
        "paraphrase_files": {file: dict(counts) for file, counts in merged.counts.items()},
        "rejected": dict(reasons),
    }


if __name__ == "__main__":
    raise SystemExit(stage.run(main, __doc__))
