import gzip
import json
import random

import numpy as np
import pytest

from cardioembed.errors import UserError
from cardioembed.triplets.decontamination import Overlap, OverlapIndex, evaluation_files, evaluation_texts

N = 4


def grams(text, n=N):
    words = text.split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def random_texts(rng, count, words=6, longest=12):
    # few words, so that runs are often shared, and some texts are too short for a run
    return [" ".join(rng.choice("abcdefghij"[:words]) for _ in range(rng.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_find_agrees_with_sets_of_runs(seed):
    rng = random.Random(seed)
    own, others = random_texts(rng, 60), random_texts(rng, 12, longest=20)
    known = set().union(*map(grams, others))
    found = OverlapIndex(own, N).find(others)
    for index, text in enumerate(own):
        if text in others:
            assert found[index] == Overlap("text", text)
        elif shared := grams(text) & known:
            words = text.split()
            first = min(shared, key=lambda gram: next(i for i in range(len(words)) if words[i : i + N] == gram.split()))
            assert found[index] == Overlap("ngram", first)
        else:
            assert index not in found
    assert 0 < len(found) < len(own)


@pytest.mark.parametrize("seed", range(12))
def test_between_agrees_with_a_naive_loop(seed):
    rng = random.Random(100 + seed)
    texts = random_texts(rng, 50, words=6, longest=18)
    ranks = np.array([rng.choice([-1, 0, 0, 0, 1, 2]) for _ in texts])
    found = OverlapIndex(texts, N).between(ranks)
    for i, text in enumerate(texts):
        equal = [ranks[j] for j, other in enumerate(texts) if ranks[j] > ranks[i] >= 0 and other == text]
        shared = [ranks[j] for j, other in enumerate(texts) if ranks[j] > ranks[i] >= 0 and grams(text) & grams(other)]
        if equal:
            assert found[i] == (max(equal), Overlap("text", text))
        elif shared:
            top, overlap = found[i]
            assert top == max(shared)
            assert overlap.reason == "ngram"
            assert overlap.shared in grams(text)
            assert any(overlap.shared in grams(other) for j, other in enumerate(texts) if ranks[j] == top)
        else:
            assert i not in found
    assert 0 < len(found) < len(texts)


def test_many_blocks_of_others_find_the_same(monkeypatch):
    rng = random.Random(5)
    own, others = random_texts(rng, 40), random_texts(rng, 30)
    whole = OverlapIndex(own, N).find(others)
    monkeypatch.setattr("cardioembed.triplets.decontamination._BLOCK", 4)
    assert OverlapIndex(own, N).find(iter(others)).keys() == whole.keys() != set()


def test_hash_that_two_runs_share_is_compared_word_by_word():
    # Every word has the same value, so every run of four has the same hash.
    index = OverlapIndex(["a b c d e", "f g h i j"], N)
    index._values[:] = 1
    index._hashes[:] = index._hash(index._words, np.array([5, 5]))[0][0]
    assert index.find(["b a c d"]) == {}
    assert index.find(["g h i j"]) == {1: Overlap("ngram", "g h i j")}
    assert index.between(np.array([0, 1])) == {}


def test_run_does_not_reach_over_the_end_of_a_text():
    index = OverlapIndex(["a b", "c d", "a b c d"], N)
    assert index.find(["a b c d x"]) == {2: Overlap("ngram", "a b c d")}
    assert index.find(["a b c", "d"]) == {}


def test_short_texts_overlap_only_as_a_whole():
    index = OverlapIndex(["a b", "a b c"], N)
    assert index.find(["a b", "x a b c y"]) == {0: Overlap("text", "a b")}


def test_nothing_to_compare_is_fine():
    assert OverlapIndex([], N).find(["a b c d e"]) == {}
    assert OverlapIndex(["a b c d"], N).find([]) == {}
    assert OverlapIndex(["", "a"], N).find(["", "b"]) == {}
    assert OverlapIndex([], N).between(np.array([], int)) == {}


FORMATS = {
    "sts": ({"sentence1": "One.", "sentence2": "Two.", "score": 3.5}, ["One.", "Two."]),
    "labelled": ({"id": "x", "label": "valve", "text": "One."}, ["One."]),
    "triplet": (
        {"id": "x", "group": "g", "anchor": "A.", "positive": "P.", "negatives": ["N.", "M."], "model": "m"},
        ["A.", "P.", "N.", "M."],
    ),
    "paraphrase": ({"original": "A.", "paraphrase": "P.", "sentence_id": "y"}, ["A.", "P."]),
    "passage": ({"query": "Q?", "passage": "P.", "sentence_ids": ["a", "b"], "unit": 3}, ["Q?", "P."]),
    "concepts": ({"id": "s1", "kind": "similar", "text1": "A", "text2": "B", "topic": "ecg"}, ["A", "B"]),
    "beir": ({"_id": "7", "title": "T", "text": "X"}, ["T", "X"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_texts_of_every_row_format_are_read(name, tmp_path):
    row, expected = FORMATS[name]
    path = tmp_path / "set.jsonl"
    path.write_text(f"\n{json.dumps(row)}\n", encoding="utf-8")
    assert list(evaluation_texts(str(path))) == expected


def test_compressed_files_text_files_and_beir_folders_are_read(tmp_path):
    with gzip.open(tmp_path / "set.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write('{"text": "Ménière"}\n')
    (tmp_path / "set.txt").write_text("First line\n\nSecond line\n", encoding="utf-8")
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "A passage."}', encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "A query?"}', encoding="utf-8")
    assert list(evaluation_texts(str(tmp_path / "set.jsonl.gz"))) == ["Ménière"]
    assert [line.strip() for line in evaluation_texts(str(tmp_path / "set.txt"))] == ["First line", "Second line"]
    assert list(evaluation_texts(str(folder))) == ["A passage.", "A query?"]
    assert [path.name for path in evaluation_files(str(folder))] == ["corpus.jsonl", "queries.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, r"none\.jsonl does not exist.*or \[\] if there are none"),
        ("set.csv", "a,b", r"set\.csv is not \.jsonl, \.jsonl\.gz, \.txt or a folder"),
        ("set.jsonl", '{"text": "a"}\n{"text"', r"set\.jsonl, line 2: .*one JSON object a line"),
        ("set.jsonl", "[1]", r"line 1: a JSON list, not an object"),
        ("set.jsonl.gz", "no gzip", r"set\.jsonl\.gz cannot be read"),
    ],
)
def test_set_that_cannot_be_read_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list(evaluation_texts(str(tmp_path / name)))


def test_folder_of_another_layout_is_named(tmp_path):
    with pytest.raises(UserError, match=r"neither corpus\.jsonl nor queries\.jsonl"):
        evaluation_files(str(tmp_path))
