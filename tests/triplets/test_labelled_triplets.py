"""Triplets from labelled passages, through the stages as a user runs them."""

import importlib
import json
import random
from collections import Counter, defaultdict

import pytest
from texts import ROOT

from cardioembed import stage
from cardioembed.embedder.encoder import load_embedder
from cardioembed.records import normalise
from cardioembed.training.batches import Batches
from cardioembed.triplets.audit import audit_leaks
from cardioembed.triplets.labelled import build_labelled, passages_as_written, topic_words

STAGE_01, STAGE_02, STAGE_03, STAGE_04 = (
    "01_merge_paraphrases", "02_prepare_training_data", "03_train_embedding_model", "04_evaluate_model",
)  # fmt: skip
SPLITS = ("train", "validation", "test")
LABELS = ("cardiology", "neurology", "oncology")
SYLLABLES = "ba co du fe gi ho ju ka le mi no pu ra se ti vo wu xa ye zi".split()
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def word(rng):
    return "".join(rng.choices(SYLLABLES, k=5))


def passages(documents=15, each=3, told=True, seed=1):
    """Passages of invented words; those of one document have its topic in common, those of one label two words."""
    rng, rows = random.Random(seed), []
    for label in LABELS:
        for number in range(documents):
            topic = word(rng)
            for part in range(each):
                text = f"{label} {' '.join(word(rng) for _ in range(5))} {topic} of {topic} in {label}."
                row = {"id": f"{label}-{number}-{part}", "label": label, "text": text}
                rows.append(row | ({"document": f"{label} {number}"} if told else {"topic": topic}))
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settings(run, **values):
    given = {
        "run_dir": run, "prepare.split": json.dumps(SHARES), "prepare.decontaminate": "[]", "device": "cpu",
        "evaluate.counterfactual_rules": "false", **values,
    }  # fmt: skip
    config = given.pop("config", ROOT / "configs/laptop.yaml")
    return ["--config", str(config), *(part for key, value in given.items() for part in ("--set", f"{key}={value}"))]


def call(name, arguments):
    module = importlib.import_module(name)
    return stage.run(module.main, module.__doc__, arguments, getattr(module, "add_options", None))


def prepare(tmp_path, rows, name="run", **values):
    """Stage 02 on these rows; triplets by split."""
    path = write(tmp_path / "passages.jsonl", rows)
    assert call(STAGE_02, settings(tmp_path / name, **{"prepare.labelled": path, **values})) == 0
    return {split: read(tmp_path / name / f"02_training_{split}.jsonl") for split in SPLITS}


def fails(tmp_path, capsys, rows, **values):
    path = write(tmp_path / "passages.jsonl", rows)
    assert call(STAGE_02, settings(tmp_path / "run", **{"prepare.labelled": path, **values})) == 2
    assert not list((tmp_path / "run").glob("02_training_*"))
    return capsys.readouterr().err


def used(triplets):
    return {key for row in triplets for key in row["passages"]}


def test_labels_and_documents_of_every_triplet_are_right_and_stage_01_is_not_needed(tmp_path):
    rows = passages()
    of = {row["id"]: row for row in rows}
    by_text = {row["text"]: row["id"] for row in rows}
    splits = prepare(tmp_path, rows, **{"prepare.triplets_per_passage": 4, "prepare.negatives_per_anchor": 2})
    homes = defaultdict(set)
    for split, triplets in splits.items():
        for row in triplets:
            texts = [row["anchor"], row["positive"], *row["negatives"]]
            assert [by_text[text] for text in texts] == row["passages"]
            anchor, positive, *negatives = (of[key] for key in row["passages"])
            assert anchor["label"] == positive["label"] == row["group"]
            assert anchor["document"] != positive["document"]
            assert len({own["id"] for own in negatives}) == 2
            assert all(own["label"] != anchor["label"] for own in negatives)
            assert row["negative_kinds"] == ["other_label"] * 2
            for key in row["passages"]:
                homes[of[key]["document"]].add(split)
        assert set(Counter(row["passages"][0] for row in triplets).values()) == {4}
        assert len({row["id"] for row in triplets}) == len({tuple(row["passages"][:2]) for row in triplets})
    assert all(len(found) == 1 for found in homes.values())
    test = read(tmp_path / "run/02_labelled_test.jsonl")
    assert {row["id"] for row in test} == used(splits["test"])
    assert all(row == of[row["id"]] for row in test)


def test_each_label_is_split_in_the_asked_shares(tmp_path):
    prepare(tmp_path, passages(documents=20))
    labels = json.loads((tmp_path / "run/02_statistics.json").read_text())["labels"]
    assert set(labels) == set(LABELS)
    for counts in labels.values():
        assert counts == {split: pytest.approx(60 * share, abs=3) for split, share in SHARES.items()}
    page = (tmp_path / "run/02_statistics.html").read_text()
    assert all(part in page for part in ("Labelled passages", "Splits by document", "180 passages in 60 documents"))


def test_the_order_of_the_file_changes_nothing_and_the_seed_does(tmp_path):
    rows = passages()
    first = prepare(tmp_path, rows, "first")
    assert prepare(tmp_path, random.Random(2).sample(rows, len(rows)), "second") == first
    other = prepare(tmp_path, rows, "third", seed=5)
    assert used(other["test"]) != used(first["test"])


@pytest.mark.parametrize("known", [0, 20])
def test_documents_that_are_not_told_are_found_by_their_topic_words(tmp_path, known):
    rows = passages(told=False)
    for row in rows:
        if int(row["id"].split("-")[1]) * 3 < known:
            row["document"] = row["topic"]
    splits = prepare(tmp_path, rows)
    topics = {row["id"]: row["topic"] for row in rows}
    found = {split: {topics[key] for key in used(triplets)} for split, triplets in splits.items()}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]
    for row in read(tmp_path / "run/02_labelled_test.jsonl"):
        assert (
            row["document"] == row["topic"] if int(row["id"].split("-")[1]) * 3 < known else "like " in row["document"]
        )
    assert not read(tmp_path / "run/02_removed.jsonl")  # together from the start, so nothing had to go
    warnings = json.loads((tmp_path / "run/02_statistics.json").read_text())["warnings"]
    assert any("do not say which document they are from" in warning for warning in warnings)


def test_what_may_be_of_a_held_out_document_is_left_out_of_training(tmp_path):
    rows = passages(told=False)
    shared = [row for row in rows if row["label"] == "neurology"][::6]
    for row in rows:  # a second topic, so that the word below is not among the two that make one document
        row["text"] += f" Twice {row['topic']}ish is {row['topic']}ish."
    for row in shared:
        row["text"] += " Gliosis."
    splits = prepare(tmp_path, rows)
    keys = {row["id"] for row in shared}
    (home,) = [split for split in SPLITS if used(splits[split]) & keys]
    removed = read(tmp_path / "run/02_removed.jsonl")
    assert {(row["reason"], row["shared"]) for row in removed} == {(f"topic_in_{home}", "gliosis")}
    assert {row["row"]["id"] for row in removed} == keys - used(splits[home])


def test_topic_words_are_frequent_inside_and_rare_outside():
    rows = [
        {"id": "a", "text": "stenosis stenosis valve common 12345"},
        {"id": "b", "text": "stenosis valve common 12345"},
        *({"id": f"c{i}", "text": f"common alone{i} of"} for i in range(12)),
    ]
    assert topic_words(rows)["a"] == ["stenosis", "valve"]  # not "common" (all), "12345" (a number)
    assert topic_words(rows)["c0"] == []  # a word of one passage links nothing


def test_passages_that_share_a_run_of_words_with_a_later_split_are_left_out(tmp_path):
    rows, stock = passages(), "eight words that each of these passages has in common"
    shared = [row for row in rows if row["label"] == "neurology"][::5]
    for row in shared:
        row["text"] += f" {stock}"
    splits = prepare(tmp_path, rows)
    homes = [split for split in SPLITS if used(splits[split]) & {row["id"] for row in shared}]
    removed = read(tmp_path / "run/02_removed.jsonl")
    assert len(homes) == 1
    assert {row["reason"] for row in removed} == {f"ngram_in_{homes[0]}"}
    assert {row["row"]["id"] for row in removed} <= {row["id"] for row in shared}
    longer = prepare(tmp_path, rows, "longer", **{"prepare.ngram_words": 13})
    assert sum(bool(used(longer[split]) & {row["id"] for row in shared}) for split in SPLITS) > 1


def test_near_duplicates_stay_together_and_are_never_each_others_negatives(tmp_path):
    rows = passages()
    text = " ".join(f"{syllable}{syllable}x" for syllable in SYLLABLES)
    twins = [rows[0], next(row for row in rows if row["label"] == "oncology")]
    twins[0]["text"], twins[1]["text"] = text + " one", text + " two"
    splits = prepare(tmp_path, rows, **{"prepare.negatives_per_anchor": 12})
    keys = {row["id"] for row in twins}
    assert sum(bool(keys & used(triplets)) for triplets in splits.values()) == 1
    for row in (row for triplets in splits.values() for row in triplets):
        assert not keys & set(row["passages"][:2]) or not keys & set(row["passages"][2:])


def test_evaluation_sets_are_kept_out(tmp_path):
    rows = passages()
    gone = rows[4]
    other = write(tmp_path / "evaluation.jsonl", [{"text": gone["text"].upper()}])
    splits = prepare(tmp_path, rows, **{"prepare.decontaminate": f"[{other}]"})
    assert gone["id"] not in set().union(*map(used, splits.values()))
    (removed,) = read(tmp_path / "run/02_removed.jsonl")
    assert (removed["row"]["id"], removed["set"], removed["reason"]) == (gone["id"], str(other), "text")


def test_the_leak_audit_sees_a_document_in_two_splits(tmp_path):
    path = write(tmp_path / "passages.jsonl", passages())
    prepared, found = build_labelled(
        path, triplets_per_passage=3, negatives_per_anchor=1, shares=SHARES, near_duplicate_jaccard=0.8,
        decontaminate=[], ngram_words=8, seed=1,
    )  # fmt: skip
    counts = audit_leaks(passages_as_written(prepared, found), 8)
    assert set(counts.values()) == {0}
    prepared.splits["train"].append(prepared.splits["validation"][0])
    with pytest.raises(AssertionError, match="are in train and in validation"):
        audit_leaks(passages_as_written(prepared, found), 8)


def test_no_passage_is_the_negative_of_another_one_of_its_label(tmp_path, tiny_bert):
    triplets = prepare(tmp_path, passages())["train"]
    batch = Batches(load_embedder(str(tiny_bert), max_length=64, device="cpu"), triplets, len(triplets), 1, seed=1)
    mask = batch.at(0).mask
    labels = Counter(row["group"] for row in triplets)
    assert int(mask.sum()) == sum(count * (count - 1) for count in labels.values())


@pytest.mark.parametrize("loss", ["triplet_margin", "info_nce"])
def test_training_on_labels_draws_them_together_on_held_out_documents(tmp_path, tiny_bert, loss):
    path = write(tmp_path / "passages.jsonl", passages(documents=20, each=2))
    arguments = settings(
        tmp_path / "run",
        **{
            "config": ROOT / "configs/specialties.yaml", "prepare.labelled": path, "prepare.triplets_per_passage": 2,
            "model.base": tiny_bert, "model.max_length": 64, "train.loss": loss, "train.learning_rate": "5e-3",
            "train.eval_steps": 50, "train.save_steps": 50, "evaluate.concept_pairs": "null",
            "evaluate.bootstrap_resamples": 200,
        },
    )  # fmt: skip
    for name in (STAGE_02, STAGE_03, STAGE_04):
        assert call(name, arguments) == 0
    document = json.loads((tmp_path / "run/04_evaluation/metrics.json").read_text())
    before, after = (document["models"][model]["labelled_clustering"] for model in ("base", "adapted"))
    assert {"silhouette", "davies_bouldin", "precision@5"} <= set(before)
    assert before["precision@5"]["n"] == len(read(tmp_path / "run/02_labelled_test.jsonl"))
    assert after["precision@5"]["value"] > before["precision@5"]["value"]
    assert after["silhouette"]["value"] > before["silhouette"]["value"]
    assert after["davies_bouldin"]["value"] < before["davies_bouldin"]["value"]
    assert document["delta"]["labelled_clustering"]["precision@5"]["ci95"][0] > 0
    assert "other labels" in document["evaluations"]["paraphrase_retrieval"]["title"]
    assert "Clusters of the held-out passages" in (tmp_path / "run/04_evaluation/report.html").read_text()


def test_a_run_on_books_takes_the_labelled_passages_of_an_earlier_one_away(tmp_path):
    prepare(tmp_path, passages())
    text = (ROOT / "data/sample/books/coronary_disease.md").read_text(encoding="utf-8")
    (tmp_path / "coronary_disease.md").write_text(text[:16_000], encoding="utf-8")
    books = {"merge.books": tmp_path / "coronary_disease.md", "prepare.min_distance": 5, "prepare.labelled": "null"}
    for name in (STAGE_01, STAGE_02):
        assert call(name, settings(tmp_path / "run", **books)) == 0
    assert not (tmp_path / "run/02_labelled_test.jsonl").exists()
    assert "labels" not in json.loads((tmp_path / "run/02_statistics.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.update(label="all") for row in rows], "labelled texts need at least 2 labels; it has all"),
        (lambda rows: rows.clear(), "labelled texts need at least 2 labels; it has no texts"),
        (lambda rows: rows[3].update(id=rows[0]["id"]), "row 4: id 'cardiology-0-0' is there twice"),
        (lambda rows: rows[1].update(text="  "), "row 2: text is '  ', a text is needed"),
        (lambda rows: rows[1].pop("label"), "line 2: key 'label' is missing"),
        (lambda rows: rows[0].update(label="rare"), "label 'rare' has passages of 1 document(s)"),
        (
            lambda rows: [row.update(document="one") for row in rows if row["label"] == "oncology"],
            "label 'oncology' has passages of 1 document(s), of which the",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_said_before_anything_is_written(tmp_path, capsys, change, message):
    rows = passages(documents=8)
    change(rows)
    assert message in fails(tmp_path, capsys, rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prepare.labelled": "nowhere.jsonl"}, "prepare.labelled: nowhere.jsonl does not exist. Put a JSONL file of"),
        ({"prepare.labelled": "''"}, "labelled is empty"),
        ({"prepare.split.by": "section"}, "Leave prepare.split.by out"),
        ({"prepare.split.held_out_books": "[x]"}, "Leave prepare.split.held_out_books out"),
        ({"prepare.negatives": "mined"}, "Leave prepare.negatives out"),
        ({"train.loss": "multiple_negatives_ranking"}, "choose info_nce or triplet_margin"),
        ({"evaluate.counterfactual_rules": "true"}, "set evaluate.counterfactual_rules: false"),
        ({"prepare.triplets_per_passage": "0"}, "prepare.triplets_per_passage"),
        ({"prepare.negatives_per_anchor": "30"}, "prepare.negatives_per_anchor: 30 is more than the"),
    ],
)
def test_settings_that_labels_cannot_have_are_refused(tmp_path, capsys, values, message):
    assert message in fails(tmp_path, capsys, passages(documents=8), **values)


def test_texts_are_compared_in_their_normalised_form(tmp_path):
    rows = passages()
    rows[0]["text"], rows[-1]["text"] = "The Same, Text twice!", "the same text twice"
    splits = prepare(tmp_path, rows)
    homes = [
        {normalise(row[side]) for row in triplets for side in ("anchor", "positive")} for triplets in splits.values()
    ]
    assert sum("the same text twice" in found for found in homes) == 1
