"""Real text beside the project, where there is any: CARDIOEMBED_DATA names its folder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_stages import all_stages, sets, small
from texts import MINILM, ROOT

from cardioembed.corpus.reading import find_books
from cardioembed.corpus.sentences import build_corpus
from cardioembed.embedder.encoder import load_embedder
from cardioembed.evaluation.similarity import sts_estimates
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.sts import load_sts

DATA = Path(os.environ.get("CARDIOEMBED_DATA", "no-real-data-given"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="CARDIOEMBED_DATA is not set")


def test_the_laptop_base_reproduces_its_score_on_biosses():
    rows = load_sts(DATA / "biosses.jsonl")
    embedder = load_embedder(MINILM, max_length=128, device="cpu")
    first, second = (embedder.encode([row[key] for row in rows]) for key in ("sentence1", "sentence2"))
    scores = np.array([row["score"] for row in rows])
    estimates = sts_estimates((first * second).sum(1), scores, Sampling(100, 1))
    assert estimates["spearman_cosine"].value == pytest.approx(0.8125, abs=5e-4)


def test_real_books_become_clean_sentences():
    corpus = build_corpus(find_books([str(DATA / "nhlbi_books")]), min_characters=20, max_characters=1000)
    texts = [row["text"] for row in corpus.sentences]
    assert 14_000 < len(texts) < 19_000
    assert not [text for text in texts if text.startswith(("#", "|", "- ", "* ")) or "  " in text or "\n" in text]
    assert np.mean([text.endswith((".", "?", "!", ":", '"', ")")) for text in texts]) > 0.85


def test_stages_run_on_a_mix_of_real_books_and_the_sample(tiny_bert, tmp_path):
    arguments = small(tiny_bert, tmp_path, train__max_steps=2)
    books = f"[{DATA / 'nhlbi_books'}, {tmp_path / 'data' / 'books'}]"
    outputs = all_stages([*arguments, *sets(merge__books=books)])
    assert "8 books" in outputs[0]
    statistics = json.loads((tmp_path / "run" / "02_statistics.json").read_text())
    assert statistics["sentences"] > 14_000
    triplets = [json.loads(line) for line in (tmp_path / "run" / "02_training_train.jsonl").read_text().splitlines()]
    sample = (ROOT / "data/sample/books/coronary_disease.md").read_text(encoding="utf-8")
    foreign = [row for row in triplets if row["negatives"][0][:40] not in " ".join(sample.split())]
    # Most sentences are the real books', so most negatives are drawn from them.
    assert len(foreign) > 0.8 * len(triplets)
