"""The texts that come with the project: complete, and no development set has a word run of the training sample."""

import re
from collections import Counter

import pytest
from texts import ROOT

from cardioembed.lexicon import CATEGORIES
from cardioembed.records import normalise, read_jsonl, text_id

SAMPLE, EVALUATION = ROOT / "data/sample", ROOT / "data/evaluation"
NGRAM_WORDS = 8


def pairs():
    files = {*SAMPLE.rglob("paraphrases/*.jsonl"), *SAMPLE.rglob("paraphrases.jsonl")}
    return [row for path in sorted(files) for row in read_jsonl(path)]


def queries():
    return [row for path in sorted(SAMPLE.rglob("queries.jsonl")) for row in read_jsonl(path)]


def originals():
    return {row.get("original") or row.get("sentence") for row in pairs()}


def counterfactuals():
    return [row for path in SAMPLE.rglob("counterfactuals.jsonl") for row in read_jsonl(path)]


def word_runs(text):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1)}


def training_texts():
    texts = {text for row in pairs() for key, text in row.items() if key not in ("id", "source", "model", "section")}
    texts |= {row[key] for row in queries() for key in ("query", "passage")}
    return texts | {row[key] for row in counterfactuals() for key in ("counterfactual", "paraphrase")}


def development_texts():
    triples = [(r["anchor"], r["positive"], r["counterfactual"]) for r in read_jsonl(EVALUATION / "triples.jsonl")]
    confusable = [(r["anchor"], r["positive"]) for r in read_jsonl(EVALUATION / "confusable.jsonl")]
    retrieval = [
        (r["text"],) for name in ("corpus", "queries") for r in read_jsonl(EVALUATION / f"queries/{name}.jsonl")
    ]
    return [text for row in (*triples, *confusable, *retrieval) for text in row]


def test_each_statement_of_the_sample_has_one_counterfactual_in_two_wordings():
    known, rows = originals(), counterfactuals()
    assert len(rows) == len({row["original"] for row in rows}) >= 10_000
    assert {row["original"] for row in rows} <= known
    counts = Counter(row["category"] for row in rows)
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 1_000


def test_each_sentence_of_the_books_has_a_query_that_a_passage_answers():
    known = {text_id(normalise(row["original"])) for row in counterfactuals() if row["id"][:2] in ("cx", "cy")}
    rows = queries()
    of_books = [row for row in rows if "sentence_ids" in row]
    assert {key for row in of_books for key in row["sentence_ids"]} == known
    assert len({normalise(row["query"]) for row in rows}) == len(rows) >= 3_900
    assert len({normalise(row["passage"]) for row in rows}) == len(rows)


def test_a_counterfactual_is_no_sentence_of_the_sample():
    stated = {normalise(text) for row in pairs() for key, text in row.items() if key not in ("id", "source", "model")}
    for row in counterfactuals():
        assert normalise(row["counterfactual"]) not in stated
        assert normalise(row["paraphrase"]) not in stated
        assert normalise(row["counterfactual"]) != normalise(row["paraphrase"])


def test_development_sets_are_large_and_even():
    triples, confusable = read_jsonl(EVALUATION / "triples.jsonl"), read_jsonl(EVALUATION / "confusable.jsonl")
    counts = Counter(row["category"] for row in triples)
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 25
    assert len(confusable) >= 300
    assert len({row["source"] for row in confusable}) >= 15
    assert len(read_jsonl(EVALUATION / "queries/queries.jsonl")) >= 80


@pytest.mark.parametrize("ending", [".", ""])
def test_no_development_text_shares_a_run_of_words_with_training_text(ending):
    training = training_texts()
    runs, whole = set().union(*map(word_runs, training)), {normalise(text.rstrip(".") + ending) for text in training}
    for text in development_texts():
        assert not word_runs(text) & runs, text
        assert normalise(text.rstrip(".") + ending) not in whole
