import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from texts import MINILM

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks import beir
from cardioembed.evaluation.tasks.beir import BeirRetrieval, load_beir, read_documents

DATA = Path(os.environ.get("CARDIOEMBED_DATA", "no-real-data-given"))
DOCUMENTS = [
    {"_id": "d1", "title": "Stenosis", "text": "A calcified aortic valve opens too little."},
    {"_id": "d2", "title": "", "text": "Ablation ends most accessory pathways."},
    {"_id": "d3", "title": None, "text": "Thiazides lower blood pressure and may lower sodium."},
    {"_id": "d4", "text": "Statins lower LDL cholesterol."},
]
QUERIES = [
    {"_id": "q1", "text": "What narrows the aortic valve?"},
    {"_id": "q2", "text": "How is pre-excitation treated?"},
    {"_id": "q3", "text": "A question of another split"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq2\td3\t-1\n"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(lines(DOCUMENTS))
    (tmp_path / "queries.jsonl").write_text(lines(QUERIES))
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    return tmp_path


@pytest.fixture(scope="module")
def embedder(tiny_bert):
    return load_embedder(str(tiny_bert), max_length=64, device="cpu", anchor_prompt="Q: ", positive_prompt="D: ")


def test_a_collection_is_read_with_the_queries_that_can_be_answered(folder):
    found = load_beir(folder)
    assert found.document_ids == ["d1", "d2", "d3", "d4"]
    assert list(found.queries) == ["q1", "q2"]
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1, "d3": -1}}
    assert [path.name for path in found.files] == ["corpus.jsonl", "queries.jsonl", "test.tsv"]
    assert dict(read_documents(found.corpus))["d1"] == "Stenosis A calcified aortic valve opens too little."
    assert dict(read_documents(found.corpus))["d3"].startswith("Thiazides")


def test_a_zipped_corpus_and_judgements_without_header_are_the_same(folder):
    plain = load_beir(folder)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(lines(DOCUMENTS).encode()))
    (folder / "qrels" / "test.tsv").write_text(QRELS.partition("\n")[2])
    zipped = load_beir(folder)
    assert (zipped.document_ids, zipped.queries, zipped.qrels) == (plain.document_ids, plain.queries, plain.qrels)
    assert list(read_documents(zipped.corpus)) == [
        (row["_id"], f"{row.get('title') or ''} {row['text']}".strip()) for row in DOCUMENTS
    ]


def test_a_document_may_be_empty(folder, embedder):
    (folder / "corpus.jsonl").write_text(lines([*DOCUMENTS, {"_id": "d5", "title": "", "text": ""}]))
    measured = BeirRetrieval(load_beir(folder), "beir_x", "X").measure(embedder, Sampling(100, 1))
    assert len(measured.details.ranked["q1"]) == 5


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", None, r"corpus.jsonl does not exist; a BEIR folder holds"),
        ("queries.jsonl", None, r"queries.jsonl does not exist"),
        ("qrels/test.tsv", None, r"test.tsv does not exist"),
        ("corpus.jsonl", lines([*DOCUMENTS, DOCUMENTS[0]]), r"_id 'd1' is there twice"),
        ("queries.jsonl", lines([*QUERIES, QUERIES[0]]), r"_id 'q1' is there twice"),
        ("corpus.jsonl", lines(DOCUMENTS) + "{\n", r"corpus.jsonl, line 5: .*one JSON object a line"),
        ("corpus.jsonl", b'{"_id": "d1", "text": "caf\xe9"}', r"line 1: .*UTF-8 is expected"),
        ("corpus.jsonl", '{"_id": "d1", "text": "\\ud83d"}', r"line 1: .*UTF-8 is expected"),
        ("corpus.jsonl", '["d1"]', r"line 1: an object with"),
        ("corpus.jsonl", lines([{"_id": "d1"}]), r"line 1: .*key 'text' is missing"),
        ("corpus.jsonl", lines([{"_id": 12, "text": "x"}]), r'_id is 12; write it as a text \("12", not 12\)'),
        ("corpus.jsonl", lines([{"_id": "d1", "text": 3}]), r"line 1: text is 3, a text is needed"),
        ("corpus.jsonl", lines([{"_id": "d1", "text": "x", "title": ["y"]}]), r"line 1: title is \['y'\]"),
        ("queries.jsonl", lines([{"_id": "q1", "text": " "}]), r"line 1: text is ' ', a question is needed"),
        ("qrels/test.tsv", QRELS + "q1\td9\t1\nq1\td8\t1\n", r"2 corpus-id are not in corpus.jsonl, such as 'd8'"),
        ("qrels/test.tsv", QRELS + "q9\td1\t1\n", r"1 query-id are not in queries.jsonl, such as 'q9'"),
        ("qrels/test.tsv", QRELS + "q1 d1 1\n", r"line 6: .*parted by tabs"),
        ("qrels/test.tsv", QRELS + "q1\td1\tgood\n", r"line 6: .*a number as score"),
        ("qrels/test.tsv", QRELS + "q1\td1\tnan\n", r"line 6: .*a number as score"),
        ("qrels/test.tsv", QRELS + "q1\td1\t1\n", r"'q1' and document 'd1' have two different scores"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", r"no query has a relevant document"),
        ("qrels/test.tsv", "", r"no query has a relevant document"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_collection_is_said(folder, file, content, message):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_beir(folder)


def test_a_broken_archive_is_an_error(folder):
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(lines(DOCUMENTS).encode())[:-20])
    with pytest.raises(UserError, match=r"corpus.jsonl.gz cannot be read"):
        load_beir(folder)


def test_measuring_ranks_prompted_texts_in_chunks(folder, embedder, monkeypatch):
    monkeypatch.setattr(beir, "_CHUNK", 3)
    task = BeirRetrieval(load_beir(folder), "beir_x", "X")
    measured = task.measure(embedder, Sampling(100, 1))
    prompts = {"prompt_name": embedder.recipe.anchor_prompt}, {"prompt_name": embedder.recipe.positive_prompt}
    assert prompts[0] != prompts[1]
    texts = [text for _, text in read_documents(task.collection.corpus)]
    scores = embedder.encode(task.collection.queries.values(), **prompts[0]) @ embedder.encode(texts, **prompts[1]).T
    expected = [[f"d{i + 1}" for i in np.argsort(-row)] for row in scores]
    assert list(measured.details.ranked.values()) == expected
    ranks = [expected[0].index("d1") + 1, expected[1].index("d2") + 1]
    assert measured.estimates["mrr"].items.tolist() == pytest.approx([1 / rank for rank in ranks])
    assert measured.estimates["accuracy@1"].chance == pytest.approx(1 / 4)
    assert measured.estimates["ndcg@10"].n == 2
    assert set(measured.estimates) == {"ndcg@10", "recall@10", "recall@100", "map", "mrr", "accuracy@1"}


def test_a_query_that_is_in_the_corpus_does_not_find_itself(folder, embedder):
    """Unless it is judged relevant: then its id is a mere number."""
    own = [{"_id": "q1", "text": QUERIES[0]["text"]}, {"_id": "q2", "text": QUERIES[1]["text"]}]
    (folder / "corpus.jsonl").write_text(lines([*DOCUMENTS, *own]))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\tq2\t1\n")
    measured = BeirRetrieval(load_beir(folder), "beir_x", "X").measure(embedder, Sampling(100, 1))
    assert "q1" not in measured.details.ranked["q1"]
    assert "q2" in measured.details.ranked["q2"]
    assert measured.estimates["accuracy@1"].chance == pytest.approx((1 / 5 + 1 / 6) / 2)


@pytest.mark.skipif(not DATA.is_dir(), reason="CARDIOEMBED_DATA is not set")
def test_the_laptop_base_reproduces_its_score_on_questions_of_patients():
    embedder = load_embedder(MINILM, max_length=128, device="cpu")
    task = BeirRetrieval(load_beir(DATA / "nhlbi_retrieval"), "beir_nhlbi", "NHLBI")
    estimates = task.measure(embedder, Sampling(100, 1)).estimates
    # Two cosines of one query differ by less than 1e-4, so a machine's rounding may move accuracy by 1 of 555.
    assert estimates["accuracy@1"].value == pytest.approx(0.733, abs=1.1 / 555)
    assert estimates["mrr"].value == pytest.approx(0.829, abs=1.1 / 555)
