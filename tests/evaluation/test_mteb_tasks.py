"""Small local tasks of mteb: our embedder in mteb scores as sentence-transformers does, and as our own measures."""

import json
import sys

import numpy as np
import pytest
from texts import MINILM, SENTENCES

from cardioembed.embedder.encoder import load_embedder
from cardioembed.errors import UserError
from cardioembed.evaluation.statistics import Sampling, item_estimates
from cardioembed.evaluation.tasks import mteb_tasks
from cardioembed.evaluation.tasks.beir import BeirRetrieval, load_beir
from cardioembed.evaluation.tasks.mteb_tasks import LoadedTask, MtebTask, find_mteb_tasks, mean_of_parts
from cardioembed.evaluation.tasks.sts import TextSimilarity
from cardioembed.records import write_jsonl

mteb = pytest.importorskip("mteb")
from datasets import Dataset  # noqa: E402
from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

SAMPLING = Sampling(200, 1)
QUERIES = {
    "q1": "Which drug slows the heart?",
    "q2": "What narrows the aortic valve?",
    "q3": "Where does a thrombus form in atrial fibrillation?",
    "q4": "Which four lesions make tetralogy of Fallot?",
    "d6": "Tetralogy of Fallot joins four lesions in one heart.",  # its own document must not be found for it
}
DOCUMENTS = {f"d{number}": text for number, text in enumerate([*SENTENCES, "The mitral valve has two leaflets."], 1)}
QRELS = {"q1": {"d2": 1}, "q2": {"d1": 2, "d7": 1}, "q3": {"d5": 1}, "q4": {"d6": 1}, "d6": {"d5": 1, "d3": 1}}
PAIRS = [
    {"sentence1": first, "sentence2": second, "score": score}
    for first, second, score in [
        (SENTENCES[0], "The aortic valve area is below 1.0 cm2 in severe stenosis.", 4.6),
        (SENTENCES[1], "Beta-blockers reduce the heart rate.", 4.0),
        (SENTENCES[2], "The left ventricle is dilated.", 0.5),
        (SENTENCES[3], "Diuretics relieve congestion.", 3.7),
        (SENTENCES[4], SENTENCES[5], 1.1),
        (SENTENCES[1], SENTENCES[3], 1.9),
    ]
]


def metadata(kind: str, name: str, main_score: str, langs=None) -> TaskMetadata:
    langs = langs or ["eng-Latn"]
    return TaskMetadata(
        name=name, description="Local.", reference=None, dataset={"path": "local/none", "revision": "r1"}, type=kind,
        category="t2t", modalities=["text"], eval_splits=["test"], eval_langs=langs,
        main_score=main_score, date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None,
        dialect=None, sample_creation=None, bibtex_citation=None,
    )  # fmt: skip


def split_data(queries: dict, qrels: dict) -> dict:
    return {
        "corpus": Dataset.from_list([{"id": name, "text": text, "title": ""} for name, text in DOCUMENTS.items()]),
        "queries": Dataset.from_list([{"id": name, "text": text} for name, text in queries.items()]),
        "relevant_docs": {name: dict(qrels[name]) for name in queries},
        "top_ranked": None,
    }


class LocalRetrieval(AbsTaskRetrieval):
    metadata = metadata("Retrieval", "LocalRetrieval", "ndcg_at_10")
    ignore_identical_ids = True

    def load_data(self, **_):
        self.dataset = {"default": {"test": split_data(QUERIES, QRELS)}}
        self.data_loaded = True


class LocalLanguages(AbsTaskRetrieval):
    metadata = metadata("Retrieval", "LocalLanguages", "recall_at_1", {"a": ["eng-Latn"], "b": ["fra-Latn"]})

    def load_data(self, **_):
        few = {name: QUERIES[name] for name in ("q1", "q4")}
        self.dataset = {"a": {"test": split_data(QUERIES, QRELS)}, "b": {"test": split_data(few, QRELS)}}
        self.data_loaded = True


class LocalSts(AbsTaskSTS):
    metadata = metadata("STS", "LocalSts", "cosine_spearman")

    def load_data(self, **_):
        self.dataset = {"test": Dataset.from_list(PAIRS)}
        self.data_loaded = True


def loaded(kind) -> LoadedTask:
    task = kind()
    task.load_data()
    return LoadedTask(task, task.metadata.name)


def measured(kind, embedder):
    return MtebTask(loaded(kind), "mteb_local", "Local").measure(embedder, SAMPLING)


@pytest.fixture(scope="module", params=["tiny", "minilm"])
def both(request, tiny_bert):
    """Our embedder and sentence-transformers on the same weights."""
    if request.param == "tiny":
        theirs = SentenceTransformer(str(tiny_bert), device="cpu")
        return load_embedder(str(tiny_bert), max_length=64, device="cpu"), theirs
    embedder = load_embedder(MINILM, max_length=128, device="cpu")
    theirs = SentenceTransformer(str(embedder.base.folder), device="cpu")
    theirs.max_seq_length = 128
    return embedder, theirs


@pytest.mark.parametrize(
    ("kind", "main"), [(LocalRetrieval, "ndcg@10"), (LocalLanguages, "recall@1"), (LocalSts, "spearman_cosine")]
)
def test_our_embedder_scores_in_mteb_as_sentence_transformers_does(both, kind, main):
    ours, theirs = both
    task = loaded(kind).task
    result = mteb.evaluate(theirs, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]
    found = measured(kind, ours)
    assert next(iter(found.estimates)) == main
    assert found.details["mteb_main_score"] == pytest.approx(result.get_score(), abs=1e-5)
    assert found.estimates[main].value == pytest.approx(result.get_score(), abs=1e-5)  # mteb rounds to five digits
    rows = result.scores["test"]
    for name, estimate in found.estimates.items():
        theirs_name = "cosine_" + name.removesuffix("_cosine") if "_cosine" in name else name.replace("@", "_at_")
        assert estimate.value == pytest.approx(np.mean([row[theirs_name] for row in rows]), abs=1e-5), name


def test_retrieval_is_our_own_on_the_same_texts(both, tmp_path):
    folder = tmp_path / "local"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in DOCUMENTS.items()])
    write_jsonl(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in QUERIES.items()])
    lines = [f"{query}\t{document}\t{score}" for query, judged in QRELS.items() for document, score in judged.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    own = BeirRetrieval(load_beir(folder), "beir_local", "Local").measure(both[0], SAMPLING).estimates
    found = measured(LocalRetrieval, both[0]).estimates
    assert found["ndcg@10"].value < 1  # there is something to compare
    for theirs, ours in (("ndcg@10", "ndcg@10"), ("recall@10", "recall@10"), ("map@1000", "map"), ("mrr@10", "mrr")):
        assert found[theirs].value == pytest.approx(own[ours].value, abs=1e-9)


def test_similarity_is_our_own_on_the_same_pairs(both):
    own = TextSimilarity(PAIRS, "sts_local", "Local").measure(both[0], SAMPLING).estimates
    found = measured(LocalSts, both[0]).estimates
    assert set(found) == set(own)
    for name in own:
        assert found[name].value == pytest.approx(own[name].value, abs=1e-5)
        assert found[name].interval() == pytest.approx(own[name].interval(), abs=1e-4)


def test_queries_and_documents_carry_their_prompts_and_they_are_recorded(tiny_bert):
    plain = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    prompts = {"anchor_prompt": "question: ", "positive_prompt": "fact: "}
    prompted = load_embedder(str(tiny_bert), max_length=64, device="cpu", **prompts)
    texts: list[str] = []
    tokenizer = prompted.tokenizer
    prompted.tokenizer = lambda found, **options: texts.extend(found) or tokenizer(found, **options)
    prompted.tokenizer.pad_token_id = tokenizer.pad_token_id
    details = measured(LocalRetrieval, prompted).details
    assert {text.split(": ")[0] for text in texts if text.endswith("?")} == {"question"}
    assert {f"fact: {text}" for text in DOCUMENTS.values()} <= set(texts)
    texts.clear()
    measured(LocalSts, prompted)
    assert len(texts) == 2 * len(PAIRS)
    assert all(text.startswith("fact: ") for text in texts)
    assert details["prompts"] == {"query": "question: ", "document": "fact: "}
    assert (details["dataset"], details["revision"], details["task"]) == ("local/none", "r1", "LocalRetrieval")
    assert details["mteb"] == mteb.__version__
    assert json.loads(json.dumps(details)) == details
    assert measured(LocalRetrieval, plain).details["prompts"] == {"query": "", "document": ""}


def test_items_are_those_of_queries_and_languages_are_slices(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    one = measured(LocalRetrieval, embedder)
    assert one.slices == {}
    assert one.estimates["ndcg@10"].items.shape == (len(QUERIES),)
    assert one.estimates["ndcg@10"].items.mean() == pytest.approx(one.estimates["ndcg@10"].value)
    several = measured(LocalLanguages, embedder)
    assert set(several.slices) == {"subset=a, split=test", "subset=b, split=test"}
    mean = np.mean([part["mrr@10"].value for part in several.slices.values()])
    assert several.estimates["mrr@10"].value == pytest.approx(mean)
    assert several.slices["subset=b, split=test"]["mrr@10"].n == 2


def test_one_task_is_measured_twice_alike(tiny_bert):
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    task = MtebTask(loaded(LocalRetrieval), "mteb_local", "Local")
    first, second = (task.measure(embedder, SAMPLING).estimates["ndcg@10"] for _ in range(2))
    difference = second.minus(first)
    assert not difference.resamples.any()
    assert not difference.items.any()


def test_parts_count_the_same_and_queries_are_drawn_by_id():
    rng = np.random.default_rng(0)
    first = {f"q{i:02}": {"ndcg_at_10": float(rng.random())} for i in range(30)}
    second = {f"q{i:02}": {"ndcg_at_10": float(rng.random())} for i in range(0, 30, 3)}
    sampling = Sampling(500, 3)
    alone = mean_of_parts([first], sampling)["ndcg@10"]
    own = item_estimates({"ndcg@10": np.array([row["ndcg_at_10"] for row in first.values()])}, sampling)["ndcg@10"]
    assert alone.value == pytest.approx(own.value)
    np.testing.assert_allclose(alone.resamples, own.resamples)
    both = mean_of_parts([first, second], sampling)["ndcg@10"]
    naive = np.mean([np.mean([row["ndcg_at_10"] for row in part.values()]) for part in (first, second)])
    assert both.value == pytest.approx(naive)
    assert both.items.mean() == pytest.approx(naive)
    assert both.resamples.mean() == pytest.approx(naive, abs=0.02)
    # The same queries twice hold no more information than once: the interval stays as wide.
    np.testing.assert_allclose(mean_of_parts([first, first], sampling)["ndcg@10"].resamples, alone.resamples)


def test_a_part_without_a_query_in_a_draw_leaves_the_mean_to_the_others():
    parts = [{"a": {"ndcg_at_10": 1.0}}, {"b": {"ndcg_at_10": 0.0}}]
    assert set(mean_of_parts(parts, Sampling(100, 0))["ndcg@10"].resamples) == {0.0, 0.5, 1.0}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_offline_all_missing_data_are_named_with_the_way_to_get_them(offline):
    with pytest.raises(UserError) as caught:
        find_mteb_tasks(["BIOSSES", "SciFact", "PublicHealthQA:english"])
    message = str(caught.value)
    assert "BIOSSES: mteb/biosses-sts, revision d3fb88f8f02e40887cd149695127462bbcf29b4a" in message
    assert (
        "hf download mteb/scifact --repo-type dataset --revision d56462d0e63a25450459c4f213e49ffdb866f7f9 "
        "--local-dir mteb/scifact"
    ) in message
    assert "xhluca/publichealth-qa" in message


def test_offline_a_folder_that_was_fetched_as_told_is_used(offline, tiny_bert):
    folder = offline / "mteb" / "biosses-sts"
    folder.mkdir(parents=True)
    write_jsonl(folder / "test.jsonl", PAIRS)
    tasks = find_mteb_tasks(["BIOSSES"])
    assert [str(task) for task in tasks] == ["BIOSSES"]
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    found = MtebTask(tasks[0], "mteb_BIOSSES", "MTEB: BIOSSES").measure(embedder, SAMPLING)
    own = TextSimilarity(PAIRS, "sts", "STS").measure(embedder, SAMPLING)
    assert found.estimates["spearman_cosine"].value == pytest.approx(own.estimates["spearman_cosine"].value)
    assert found.details["revision"] == "d3fb88f8f02e40887cd149695127462bbcf29b4a"


def test_offline_a_fetched_retrieval_folder_is_used_too(offline, tiny_bert):
    folder = offline / "mteb" / "scifact"
    folder.mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", [{"_id": n, "title": "", "text": text} for n, text in DOCUMENTS.items()])
    write_jsonl(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in QUERIES.items()])
    rows = [{"query-id": q, "corpus-id": d, "score": s} for q, judged in QRELS.items() for d, s in judged.items()]
    write_jsonl(folder / "qrels.jsonl", rows)
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: default\n  data_files:\n  - {split: test, path: qrels.jsonl}\n"
        "- config_name: corpus\n  data_files:\n  - {split: corpus, path: corpus.jsonl}\n"
        "- config_name: queries\n  data_files:\n  - {split: queries, path: queries.jsonl}\n---\n"
    )
    embedder = load_embedder(str(tiny_bert), max_length=64, device="cpu")
    found = MtebTask(find_mteb_tasks(["SciFact"])[0], "mteb_SciFact", "MTEB").measure(embedder, SAMPLING)
    assert found.estimates["ndcg@10"].n == len(QUERIES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Scifact"], "no task 'Scifact'; closest: SciFact"),
        (["PublicHealthQA:klingon"], "no subset 'klingon'; allowed: arabic, chinese, english"),
        (["Banking77Classification.v2"], "type Classification .* supported are"),
        (["SciFact", "SciFact"], "'SciFact' is named twice"),
    ],
)
def test_bad_names(names, message):
    with pytest.raises(UserError, match=message):
        find_mteb_tasks(names)


def test_without_mteb_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(mteb_tasks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install mteb==\d+\.\d+\.\d+, or empty evaluate\.mteb"):
        find_mteb_tasks(["BIOSSES"])


def test_no_names_import_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)  # an import would fail
    assert find_mteb_tasks([]) == []
