import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import pytest
import yaml
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss
from stages import ROOT, STAGE_01, STAGE_02, fail, rows, run, sets, succeed

from cardioembed.config import flatten
from cardioembed.config_file import load_settings
from cardioembed.records import normalise, sha256

TRAINING = ("02_training_train.jsonl", "02_training_validation.jsonl", "02_training_test.jsonl")
HALF_AN_EMOJI = "Symptom1valves is relieved \ud83d in ward1valves."
ADVERBS = "partly wholly softly plainly kindly neatly warmly calmly".split()


def pair(original, paraphrase):
    return json.dumps({"original": original, "paraphrase": paraphrase})


def original(book, n):
    return f"The {book} drug{n} relieves symptom{n}{book} {ADVERBS[n % 8]} in ward{n}{book} patients."


@pytest.fixture
def desk(tmp_path):
    # two books of 24 sentences each, one paraphrase file in either spelling, one refused row, and a config
    books, paraphrases = tmp_path / "books", tmp_path / "paraphrases"
    books.mkdir()
    paraphrases.mkdir()
    for book in ("valves", "rhythm"):
        body = "\n\n".join(original(book, n) for n in range(24))
        (books / f"{book}.md").write_text(f"# {book.title()}\n\n{body}\n", encoding="utf-8")
        first, second = ("original", "paraphrase") if book == "valves" else ("sentence", "paraphrased")
        lines = [
            json.dumps({first: original(book, n), second: f"Ward{n}{book} patients have symptom{n}{book} relieved{v}."})
            for n in range(24)
            for v in ("", " by it")
        ]
        (paraphrases / f"{book}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (paraphrases / "valves.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("{broken\n" + pair(original("valves", 0), original("valves", 0)) + "\n")
    settings = {
        "run_dir": str(tmp_path / "run"),
        "merge": {"books": [str(books)], "paraphrases": [str(paraphrases / "*.jsonl")]},
        "prepare": {"split": {"train": 0.6, "validation": 0.2, "test": 0.2}, "min_distance": 3},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path


@pytest.fixture
def merged(desk):
    succeed(STAGE_01, "--config", desk / "run.yaml")
    return desk


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("sample")
    arguments = ("--config", "configs/laptop.yaml", "--set", f"run_dir={run_dir}")
    outputs = [succeed(script, *arguments, hash_seed="1") for script in (STAGE_01, STAGE_02)]
    return run_dir, outputs


def test_stage_01_writes_every_valid_pair_and_tells_what_it_refused(desk):
    output = succeed(STAGE_01, "--config", desk / "run.yaml")
    folder = desk / "run"
    assert "2 books, 48 unique sentences" in output
    assert "valves.jsonl: 48 of 50 rows kept" in output
    assert "rejected 1: copy; first: " in output
    assert "valves.jsonl, line 50: the paraphrase is the original" in output
    assert f"next: python {STAGE_02} --config {desk / 'run.yaml'}" in output
    assert [row["source"] for row in rows(folder / "01_sentences.jsonl")] == ["rhythm"] * 24 + ["valves"] * 24
    pairs = rows(folder / "01_merged_paraphrases.jsonl")
    assert len(pairs) == 96
    assert set(Counter(row["original"] for row in pairs).values()) == {2}
    refused = rows(folder / "01_rejected.jsonl")
    assert [(row["line"], row["reason"], type(row["row"])) for row in refused] == [
        (49, "broken_json", str),
        (50, "copy", dict),
    ]
    statistics = json.loads((folder / "01_statistics.json").read_text(encoding="utf-8"))
    assert statistics["paraphrases_a_sentence"] == {"2": 48}
    assert statistics["rejected"] == {"broken_json": 1, "copy": 1}
    assert sorted(path.name for path in folder.iterdir()) == [
        "01_failed_pages.jsonl",
        "01_manifest.json",
        "01_merged_paraphrases.jsonl",
        "01_rejected.jsonl",
        "01_report.html",
        "01_sentences.jsonl",
        "01_settings.yaml",
        "01_statistics.json",
    ]


def test_manifest_records_settings_inputs_and_outputs(merged):
    manifest = json.loads((merged / "run" / "01_manifest.json").read_text(encoding="utf-8"))
    settings = load_settings(merged / "run" / "01_settings.yaml")
    assert manifest["settings"] == flatten(settings) == flatten(load_settings(merged / "run.yaml"))
    assert {Path(path).name: digest for path, digest in manifest["inputs"].items()} == {
        path.name: sha256(path) for folder in ("books", "paraphrases") for path in (merged / folder).iterdir()
    }
    assert manifest["outputs"]["01_sentences.jsonl"] == sha256(merged / "run" / "01_sentences.jsonl")
    assert manifest["stage"] == "01"
    assert manifest["seconds"] > 0


def test_stage_01_without_paraphrases_writes_the_sentences_only(desk):
    output = succeed(STAGE_01, "--config", desk / "run.yaml", *sets(merge__paraphrases="[]"))
    assert "no paraphrases yet: name language models in merge.generators" in output
    assert "next:" not in output
    assert len(rows(desk / "run" / "01_sentences.jsonl")) == 48


def test_stage_02_writes_three_leak_free_splits_of_the_tiny_corpus(merged):
    output = succeed(STAGE_02, "--config", merged / "run.yaml")
    assert "leak audit: no id, group, text or run of 8 words is in two splits" in output
    splits = [rows(merged / "run" / name) for name in TRAINING]
    assert sum(map(len, splits)) == 96
    homes = [{row["anchor"] for row in split} for split in splits]
    for i, split in enumerate(splits):
        others = set().union(*(home for j, home in enumerate(homes) if j != i))
        assert not others & {text for row in split for text in (row["anchor"], *row["negatives"])}
    statistics = json.loads((merged / "run" / "02_statistics.json").read_text(encoding="utf-8"))
    assert statistics["groups"] == 48
    assert sum(statistics["splits"]["test"]["sources"].values()) == len(splits[2])
    assert statistics["leak_audit"]["texts_in_train_and_test"] == 0


def test_same_seed_gives_the_same_bytes_and_another_seed_other_rows(merged):
    folder = merged / "run"
    contents = []
    for seed in (42, 42, 43):
        succeed(STAGE_02, "--config", merged / "run.yaml", *sets(seed=seed), hash_seed=str(len(contents)))
        contents.append([(folder / name).read_bytes() for name in TRAINING])
    assert contents[0] == contents[1]
    assert all(first != third for first, third in zip(contents[0], contents[2], strict=True))


def test_sample_runs_under_the_laptop_config(sample):
    run_dir, outputs = sample
    assert "7 books, 1,712 unique sentences" in outputs[0]
    assert f"--set run_dir={run_dir}" in outputs[0].splitlines()[-1]
    triplets = {name: rows(run_dir / name) for name in TRAINING}
    groups = {name: {row["group"] for row in split} for name, split in triplets.items()}
    removed = rows(run_dir / "02_removed.jsonl")
    assert {row["reason"] for row in removed} == {"ngram", "ngram_in_test", "ngram_in_validation"}
    # What the splits would share is taken out of the larger; few sentences of the sample overlap.
    assert 0 < sum(row["field"] == "sentence" for row in removed) <= 30
    assert [len(groups[name]) for name in TRAINING] == pytest.approx([1198.4, 171.2, 342.4], abs=25)
    pairs = len(rows(run_dir / "01_merged_paraphrases.jsonl"))
    assert sum(map(len, triplets.values())) + sum(row["field"] != "sentence" for row in removed) == pairs
    books = {name: Counter(row["source"] for row in split) for name, split in triplets.items()}
    assert {len(found) for found in books.values()} == {7}


def test_sample_splits_share_no_text_and_negatives_keep_their_distance(sample):
    run_dir, _ = sample
    place = {row["text"]: n for n, row in enumerate(rows(run_dir / "01_sentences.jsonl"))}
    homes = defaultdict(set)
    for name in TRAINING:
        for row in rows(run_dir / name):
            (negative,) = row["negatives"]
            assert abs(place[negative] - place[row["anchor"]]) >= 50
            for text in (row["anchor"], row["positive"], negative):
                homes[normalise(text)].add(name)
    assert len(homes) > 5000
    assert [text for text, names in homes.items() if len(names) > 1] == []


def test_second_run_of_the_sample_gives_the_same_bytes(sample, tmp_path):
    arguments = ("--config", "configs/laptop.yaml", "--set", f"run_dir={tmp_path / 'again'}")
    for script in (STAGE_01, STAGE_02):
        succeed(script, *arguments, hash_seed="2")
    for name in ("01_sentences.jsonl", "01_merged_paraphrases.jsonl", "01_rejected.jsonl", *TRAINING):
        assert (tmp_path / "again" / name).read_bytes() == (sample[0] / name).read_bytes(), name


def test_training_file_loads_with_datasets(sample, tmp_path):
    path = sample[0] / TRAINING[0]
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
    columns = {"id", "group", "anchor", "positive", "negatives", "negative_kinds", "source", "section", "model"}
    assert set(loaded.column_names) == columns
    assert loaded.num_rows == len(rows(path))
    assert loaded[0] == rows(path)[0]


def test_column_files_train_with_sentence_transformers(merged, tiny_bert):
    arguments = ("--config", merged / "run.yaml", *sets(prepare__negatives_per_anchor=2))
    succeed(STAGE_02, *arguments)
    files = {name: str(merged / "run" / "02_columns" / f"{name}.jsonl") for name in ("train", "validation", "test")}
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(merged / "cache"))
    for name, file in zip(files, TRAINING, strict=True):
        assert loaded[name].column_names == ["anchor", "positive", "negative_1", "negative_2"]
        expected = [(row["anchor"], row["positive"], *row["negatives"]) for row in rows(merged / "run" / file)]
        assert [tuple(row.values()) for row in loaded[name]] == expected
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    trainer = SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(
            str(merged / "out"),
            max_steps=2,
            per_device_train_batch_size=8,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
        ),
        train_dataset=loaded["train"],
        eval_dataset=loaded["validation"],
        loss=MultipleNegativesRankingLoss(model),
    )
    assert 0 < trainer.train().training_loss < 20
    assert trainer.evaluate()["eval_loss"] > 0


def test_stage_02_without_mining_does_not_import_torch(merged):
    code = f"import runpy, sys; sys.argv = ['x', '--config', {str(merged / 'run.yaml')!r}]\n"
    code += (
        f"try: runpy.run_path({STAGE_02!r}, run_name='__main__')\nexcept SystemExit as end: print('ended', end.code)\n"
    )
    code += "print('torch imported:', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "ended 0" in done.stdout, done.stderr
    assert "torch imported: False" in done.stdout


def test_stage_02_mixes_all_kinds_and_says_what_replaced_what(merged):
    kinds = "{distant: 1, similar_length: 1, same_section: 1, mined: 1, counterfactual: 1}"
    mined = "{range_max: 10, relative_margin: 0}"
    changed = sets(prepare__negatives=kinds, prepare__mined=mined, prepare__negatives_per_anchor=3)
    output = succeed(STAGE_02, "--config", merged / "run.yaml", *changed)
    assert "mining with sentence-transformers/all-MiniLM-L6-v2" in output
    triplets = [row for name in TRAINING for row in rows(merged / "run" / name)]
    found = Counter(kind for row in triplets for kind in row["negative_kinds"])
    assert found["counterfactual"] > 20
    assert found["same_section"] > 20
    statistics = json.loads((merged / "run" / "02_statistics.json").read_text(encoding="utf-8"))
    told = Counter()
    for name, split in statistics["splits"].items():
        told.update(split["negative_kinds"])
        for kind, number in split["replaced_negatives"].items():
            assert f"{name}: {number} negatives of kind {kind}" in output
    assert told == found
    page = (merged / "run" / "02_statistics.html").read_text(encoding="utf-8")
    assert "Categories of counterfactuals" in page
    assert all(len(set(row["negatives"])) == 3 for row in triplets)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"merge__min_characters": 21}, "merge.min_characters: was 20, is 21"),
        ({"merge__max_length_ratio": 2}, "merge.max_length_ratio: was 2.5, is 2.0"),
    ],
)
def test_stage_02_refuses_outputs_of_other_settings_and_names_the_key(merged, change, line):
    message = fail(STAGE_02, "--config", merged / "run.yaml", *sets(**change))
    assert "holds stage 01 outputs of other settings" in message
    assert line in message
    assert f"python {STAGE_01} --config {merged / 'run.yaml'} --set" in message
    assert not (merged / "run" / TRAINING[0]).exists()


def test_stage_02_accepts_settings_that_decided_nothing_in_stage_01(merged):
    succeed(STAGE_02, "--config", merged / "run.yaml", *sets(seed=7, train__learning_rate=0.01))


def test_stage_02_uses_an_edited_file_and_says_so(merged):
    path = merged / "run" / "01_merged_paraphrases.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    output = succeed(STAGE_02, "--config", merged / "run.yaml")
    assert "01_merged_paraphrases.jsonl was changed after stage 01 wrote it" in output


def test_stage_02_without_stage_01_says_what_to_run(desk):
    message = fail(STAGE_02, "--config", desk / "run.yaml")
    assert "01_sentences.jsonl is missing. Run stage 01 first" in message
    assert f"python {STAGE_01} --config {desk / 'run.yaml'}" in message


def test_failed_stage_01_keeps_the_old_outputs_and_the_rejects(merged):
    folder = merged / "run"
    before = (folder / "01_merged_paraphrases.jsonl").read_bytes()
    bad = merged / "bad.jsonl"
    bad.write_text(pair(original("valves", 0), "I cannot paraphrase that for you.") + "\n{\n")
    message = fail(STAGE_01, "--config", merged / "run.yaml", *sets(merge__paraphrases=bad))
    assert "no valid paraphrase in 1 files. First:" in message
    assert "line 1: speaks like a refusal" in message
    assert (folder / "01_merged_paraphrases.jsonl").read_bytes() == before
    assert [row["reason"] for row in rows(folder / "01_rejected.jsonl")] == ["refusal", "broken_json"]


BAD_INPUTS = {
    "no config file": (lambda desk: ["--config", desk / "none.yaml"], "none.yaml does not exist"),
    "broken yaml": (lambda desk: ["--config", put(desk / "x.yaml", "seed: [1\n")], "not valid YAML"),
    "unknown key": (lambda desk: sets(merge__bookz="x"), "merge.bookz: unknown key; did you mean merge.books?"),
    "two mistakes": (lambda desk: sets(seed="x", devise="cpu"), "2 mistakes in the settings"),
    "malformed --set": (lambda desk: ["--set", "seed"], "expected key.path=value"),
    "stray flag": (lambda desk: ["--seed", "3"], "unrecognized arguments: --seed 3"),
    "no such folder": (lambda desk: sets(merge__books=desk / "shelf"), "shelf does not exist"),
    "empty folder": (lambda desk: sets(merge__books=folder(desk / "shelf")), "shelf holds no book"),
    "empty book": (lambda desk: sets(merge__books=put(desk / "blank.md", "\n")), "blank.md holds no text"),
    "latin-1 book": (lambda desk: sets(merge__books=put(desk / "old.txt", "Ménière", "latin-1")), "line 1: not UTF-8"),
    "cut pdf": (lambda desk: sets(merge__books=put(desk / "cut.pdf", "%PDF-1.4")), "cut.pdf cannot be opened as a PDF"),
    "no such paraphrases": (lambda desk: sets(merge__paraphrases=desk / "none.jsonl"), "no file matches"),
    "empty paraphrases": (
        lambda desk: sets(merge__paraphrases=put(desk / "blank.jsonl", "")),
        "blank.jsonl holds no row. Give rows, or set merge.paraphrases=[]",
    ),
    "run_dir is a file": (lambda desk: sets(run_dir=put(desk / "run", "x")), "set run_dir to a folder of yours"),
    "run_dir below a file": (lambda desk: sets(run_dir=put(desk / "run", "x") / "deep"), "Not a directory"),
}  # fmt: skip


def put(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def folder(path):
    path.mkdir()
    return path


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_of_stage_01_is_told_without_a_traceback(desk, case):
    arguments, expected = BAD_INPUTS[case]
    message = fail(STAGE_01, "--config", desk / "run.yaml", *arguments(desk))
    assert "error:" in message
    assert expected in message


def test_half_an_emoji_in_a_paraphrase_ends_no_run_in_a_traceback(desk):
    file = put(desk / "emoji.jsonl", pair(original("valves", 1), HALF_AN_EMOJI))
    done = run(STAGE_01, "--config", desk / "run.yaml", *sets(merge__paraphrases=file))
    assert "Traceback" not in done.stderr, done.stderr[-500:]
    assert done.returncode in (0, 2)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("01_manifest.json", '{"stage": "01", ', "01_manifest.json is not valid JSON"),
        ("01_manifest.json", "{}", "01_manifest.json"),
        ("01_sentences.jsonl", '{"id": "a", "text": "x", "source": "b"}\n{"id"', "01_sentences.jsonl, line 2: "),
        ("01_sentences.jsonl", '{"id": "a", "source": "b"}', "line 1: key 'text' is missing; found: id, source"),
        ("01_merged_paraphrases.jsonl", "[]", "01_merged_paraphrases.jsonl, line 1: a JSON list"),
        (
            "01_merged_paraphrases.jsonl",
            '{"id": "p", "sentence_id": "a", "original": "x", "paraphrase": null, "source": "b", "model": "m"}',
            "01_merged_paraphrases.jsonl, line 1",
        ),
        ("01_merged_paraphrases.jsonl", "", "split is empty: 0 pairs"),
    ],
    ids=["cut manifest", "empty manifest", "cut row", "missing key", "list", "null paraphrase", "no pairs"],
)
def test_spoilt_file_of_stage_01_is_told_without_a_traceback(merged, name, content, expected):
    put(merged / "run" / name, content)
    assert expected in fail(STAGE_02, "--config", merged / "run.yaml")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prepare__min_distance": 1000}, "lower prepare.min_distance (now 1000)"),
        ({"prepare__negatives_per_anchor": 64}, "64 are wanted"),
        ({"prepare__split__by": "book"}, "needs 3 books with paraphrases or more, one for each split; there are 2"),
        (
            {"prepare__split__by": "section"},
            "split by section. Add paraphrases or raise that share, or set prepare.split",
        ),
        ({"prepare__decontaminate": "none.jsonl"}, "none.jsonl does not exist. Give the evaluation sets"),
        ({"prepare__negatives": "mined", "prepare__mined__model": "./none"}, "prepare.mined.model: none"),
        ({"prepare__split__test": 0.3}, "train + validation + test must be 1, they add up to 1.1"),
        ({"prepare__split": "{train: 0.98, validation: 0.01, test: 0.01}"}, "split is empty: 96 pairs in 48 groups"),
    ],
)
def test_impossible_preparation_is_told_without_a_traceback(merged, change, expected):
    assert expected in fail(STAGE_02, "--config", merged / "run.yaml", *sets(**change))
    assert not list((merged / "run").glob("02_training*"))
