import json
import runpy
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import combinations

import pytest
import yaml
from stages import ROOT, STAGE_01, STAGE_02, rows, sets
from stages import succeed as succeed_as_command

from cardioembed import stage
from cardioembed.config import FOR_LABELS, Settings
from cardioembed.errors import UserError
from cardioembed.records import normalise
from cardioembed.triplets.building import build_triplets

SPLITS = tuple(f"02_training_{name}.jsonl" for name in ("train", "validation", "test"))
HELD_OUT = "02_held_out_books.jsonl"
SHARED_RUN = "note that the heart sound is soft and clear"
LISTENERS = {"rhythm": 12, "valves": 1}  # enough for some to come into each split
IN_BOTH = ("A small pilot of ward rounds was run by both clinics.", "Both clinics ran a small pilot of ward rounds.")


def run(script, *arguments):
    """Exit code and outputs of a stage, in this process."""
    main = runpy.run_path(str(ROOT / script))["main"]
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        code = stage.run(main, None, [str(argument) for argument in arguments])
    return code, output.getvalue(), errors.getvalue()


def succeed(script, *arguments):
    code, output, errors = run(script, *arguments)
    assert code == 0, errors
    return output


def fail(script, *arguments):
    code, _, errors = run(script, *arguments)
    assert code == 2
    return errors


def plain(book, n):
    """A sentence and two paraphrases that no other book has."""
    first = f"The {book} drug{n} relieves symptom{n}{book} in ward{n}{book} patients."
    return first, [f"Ward{n}{book} patients have symptom{n}{book} relieved{more}." for more in ("", " by it")]


def twin(book):
    """Of 12 words, of which all but the last are the other twins': near-duplicates of each other."""
    first = f"Steady dosing of the trial drug keeps the pressure low in {book}."
    return first, [f"In {book} the pressure stays low with steady dosing."]


def listener(book, n):
    """Shares a run of words with the other listeners, and little else."""
    book = f"{book}{n}x"
    first = (
        f"Staff{book} on{book} morning{book} rounds{book} {SHARED_RUN} here{book} with{book} every{book} breath{book}."
    )
    return first, [f"Every{book} breath{book} of here{book} sounds soft and clear to staff{book}."]


def shelf():
    books = {name: [plain(name, n) for n in range(20)] for name in ("atlas", "drugs", "rhythm", "valves")}
    for name in ("rhythm", "valves"):
        books[name] += [twin(name), *(listener(name, n) for n in range(LISTENERS[name]))]
    for name in ("atlas", "valves"):
        books[name].append((IN_BOTH[0], [IN_BOTH[1]]))
    books["leaflet"] = [plain("leaflet", n) for n in range(2)]
    books["silent"] = [(plain("silent", n)[0], []) for n in range(4)]
    return books


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    desk = tmp_path_factory.mktemp("desk")
    (desk / "books").mkdir()
    for name, sentences in shelf().items():
        body = "\n\n".join(first for first, _ in sentences)
        (desk / "books" / f"{name}.md").write_text(f"# {name.title()}\n\n{body}\n", encoding="utf-8")
    pairs = {
        (first, second): json.dumps({"original": first, "paraphrase": second})
        for sentences in shelf().values()
        for first, paraphrases in sentences
        for second in paraphrases
    }
    (desk / "pairs.jsonl").write_text("\n".join(pairs.values()), encoding="utf-8")
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    settings = {
        "run_dir": str(desk / "run"),
        "num_proc": 1,
        "merge": {"books": [str(desk / "books")], "paraphrases": [str(desk / "pairs.jsonl")]},
        "prepare": {"split": split, "min_distance": 3, "decontaminate": []},
    }
    (desk / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert f"{len(pairs)} of {len(pairs)} rows kept" in succeed(STAGE_01, "--config", desk / "run.yaml")
    return desk


def prepare(desk, **changed):
    """Stage 02's output, its splits, its held-out rows and its statistics."""
    output = succeed(STAGE_02, "--config", desk / "run.yaml", *sets(**changed))
    folder = desk / "run"
    splits = {name: rows(folder / name) for name in SPLITS}
    held = rows(folder / HELD_OUT) if (folder / HELD_OUT).exists() else None
    return output, splits, held, json.loads((folder / "02_statistics.json").read_text(encoding="utf-8"))


def texts(split):
    return {normalise(t) for row in split for t in (row["anchor"], row["positive"], *row["negatives"])}


def runs(split):
    return {tuple(words[i : i + 8]) for text in texts(split) for words in [text.split()] for i in range(len(words) - 7)}


def merged_pairs(desk, *books):
    return {row["id"] for row in rows(desk / "run" / "01_merged_paraphrases.jsonl") if row["source"] in books}


@pytest.fixture(scope="module")
def valves(merged):
    found = prepare(merged, prepare__split__held_out_books="valves")
    manifest = json.loads((merged / "run" / "02_manifest.json").read_text(encoding="utf-8"))
    page = (merged / "run" / "02_statistics.html").read_text(encoding="utf-8")
    return *found, rows(merged / "run" / "02_removed.jsonl"), manifest, page


def test_every_pair_of_a_held_out_book_is_in_its_file_and_nowhere_else(merged, valves):
    _, splits, held, *_ = valves
    assert {row["id"] for row in held} == merged_pairs(merged, "valves")
    assert len(held) == 42
    assert {row["source"] for row in held} == {"valves"}
    assert not any(row["source"] == "valves" for split in splits.values() for row in split)
    assert {tuple(row) for row in held} == {tuple(row) for split in splits.values() for row in split}


def test_held_out_books_share_no_group_text_or_run_of_words_with_a_split(valves):
    _, splits, held, statistics, *_ = valves
    for (first, ours), (second, theirs) in combinations([*splits.items(), (HELD_OUT, held)], 2):
        for what in (texts, runs, lambda split: {row["group"] for row in split}):
            assert not what(ours) & what(theirs), (first, second)
    assert any(" ".join(run) in SHARED_RUN for run in runs(held))
    assert statistics["leak_audit"]["groups_in_train_and_held_out_books"] == 0


def test_negatives_come_from_their_own_side(merged, valves):
    _, splits, held, *_ = valves
    book = {row["text"]: row["source"] for row in rows(merged / "run" / "01_sentences.jsonl")}
    assert {book[text] for row in held for text in row["negatives"]} == {"valves"}
    assert all(len(row["negatives"]) == len(row["negative_kinds"]) == 1 for row in held)
    assert "valves" not in {book[text] for split in splits.values() for row in split for text in row["negatives"]}


def test_what_connects_other_books_with_a_held_out_one_is_left_out_and_told(valves):
    output, splits, _, statistics, removed, manifest, page = valves
    because = [row for row in removed if row["set"] == "the held-out books"]
    assert Counter((row["reason"], row["field"], row["row"]["source"]) for row in because) == {
        ("group_in_held_out_books", "sentence", "rhythm"): 1,  # the twin
        ("group_in_held_out_books", "anchor", "rhythm"): 1,
        ("group_in_held_out_books", "sentence", "atlas"): 1,  # the sentence that is in both books
        ("group_in_held_out_books", "anchor", "atlas"): 1,
        ("ngram_in_held_out_books", "sentence", "rhythm"): 12,
        ("ngram_in_held_out_books", "anchor", "rhythm"): 12,
    }
    left = {row["anchor"] for split in splits.values() for row in split}
    assert not left & {twin("rhythm")[0], IN_BOTH[0], *(listener("rhythm", n)[0] for n in range(12))}
    assert statistics["split"]["held_out_books"] == {
        "books": ["valves"], "pairs": 42, "left_out": {"sentences": 14, "pairs": 14},
    }  # fmt: skip
    assert "held out: valves: 42 pairs; 14 sentences and 14 pairs of other books left out" in output
    assert "valves, 42 pairs. Because of them 14 sentences and 14 pairs of other books were left out." in page
    assert manifest["counts"]["held_out_books"] == 42
    assert HELD_OUT in manifest["outputs"]


def test_shares_are_those_of_the_other_books(valves):
    _, splits, _, statistics, *_ = valves
    total = sum(map(len, splits.values()))
    found = {name: share["found"] for name, share in statistics["split"]["shares"].items()}
    assert found == {name: round(len(splits[f"02_training_{name}.jsonl"]) / total, 4) for name in found}
    assert found == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.06)


def test_sentence_that_a_held_out_book_has_first_stays_in_it(merged):
    _, splits, held, _ = prepare(merged, prepare__split__held_out_books="atlas")
    assert IN_BOTH[0] in {row["anchor"] for row in held}
    assert IN_BOTH[0] not in {row["anchor"] for split in splits.values() for row in split}


def test_without_held_out_books_nothing_of_them_remains(merged, tmp_path):
    prepare(merged, prepare__split__held_out_books="valves")
    output, splits, held, statistics = prepare(merged)
    assert held is None
    assert "held" not in output
    assert list(statistics["splits"]) == ["train", "validation", "test"]
    assert "held_out_books" not in statistics["split"]
    manifest = json.loads((merged / "run" / "02_manifest.json").read_text(encoding="utf-8"))
    assert HELD_OUT not in manifest["outputs"]
    assert sum(map(len, splits.values())) > 160
    fresh = sets(run_dir=tmp_path / "run", prepare__split__held_out_books="[]")
    for script in (STAGE_01, STAGE_02):
        succeed(script, "--config", merged / "run.yaml", *fresh)
    for name in (*SPLITS, "02_removed.jsonl", "02_statistics.json", "02_columns/train.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (merged / "run" / name).read_bytes(), name


def test_same_settings_give_the_same_held_out_bytes(merged):
    contents = []
    for seed in ("1", "2"):
        arguments = sets(prepare__split__held_out_books="[valves, drugs]")
        succeed_as_command(STAGE_02, "--config", merged / "run.yaml", *arguments, hash_seed=seed)
        contents.append([(merged / "run" / name).read_bytes() for name in (HELD_OUT, *SPLITS, "02_removed.jsonl")])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("by", ["section", "book"])
def test_books_can_be_held_out_of_every_way_to_split(merged, by):
    _, splits, held, statistics = prepare(merged, prepare__split__by=by, prepare__split__held_out_books="[valves]")
    assert {row["source"] for row in held} == {"valves"}
    if by == "book":
        books = statistics["split"]["books"]
        assert sorted(name for names in books.values() for name in names) == [
            "atlas", "drugs", "leaflet", "rhythm", "silent",
        ]  # fmt: skip
        assert all({row["source"] for row in splits[f"02_training_{name}.jsonl"]} <= {*books[name]} for name in books)


def test_book_of_few_sentences_has_fewer_negatives_or_none(merged):
    kinds, edits = "{similar_length: 1, counterfactual: 1}", "{of: [anchor], categories: [negation]}"
    changed = {"prepare__negatives": kinds, "prepare__counterfactual": edits, "prepare__negatives_per_anchor": 3}
    output, splits, held, statistics = prepare(merged, prepare__split__held_out_books="leaflet", **changed)
    assert len(held) == 4
    for row in held:
        # The other sentence, and the row's own one negated.
        assert sorted(row["negative_kinds"]) == ["counterfactual", "similar_length"]
        assert len(row["negatives"]) == len(row["negative_notes"]) == 2
        assert [bool(note) for note in row["negative_notes"]] == [k == "counterfactual" for k in row["negative_kinds"]]
    assert all(len(row["negatives"]) == 3 for split in splits.values() for row in split)
    assert "held_out_books: 4 negatives are missing, for want of other sentences" in output
    output, _, held, statistics = prepare(merged, prepare__split__held_out_books="leaflet")
    assert [row["negatives"] for row in held] == [[]] * 4
    assert statistics["splits"]["held_out_books"]["words"]["negative"] is None
    assert statistics["splits"]["held_out_books"]["negative_kinds"] == {}


def test_evaluation_sets_are_taken_out_of_held_out_books_too(merged, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"text": plain("valves", 3)[1][0].upper()}), encoding="utf-8")
    _, _, held, _ = prepare(merged, prepare__split__held_out_books="valves", prepare__decontaminate=path)
    assert len(held) == 41
    assert normalise(plain("valves", 3)[1][0]) not in texts(held)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"held_out_books": "[valves, vlaves]"},
            "'vlaves' is no book of this run; books with paraphrases: atlas, drugs, leaflet, rhythm, valves",
        ),
        ({"held_out_books": "silent"}, "'silent' has no paraphrases; books with paraphrases: atlas, drugs"),
        (
            {"held_out_books": "[atlas, drugs, leaflet, rhythm, valves]"},
            "held_out_books leaves 0 books with paraphrases to train, validate and test on (none)",
        ),
        (
            {"held_out_books": "[atlas, drugs, leaflet]", "by": "book"},
            "(rhythm, valves); split by book needs 3 or more. Add books or hold out fewer, or set prepare.split.by to",
        ),
        ({"held_out_books": "3"}, "prepare.split.held_out_books: 3 is not allowed"),
    ],
    ids=["unknown", "without paraphrases", "all", "too few left", "not a name"],
)
def test_books_that_cannot_be_held_out_are_told(merged, change, expected):
    changed = {f"prepare__split__{key}": value for key, value in change.items()}
    assert expected in fail(STAGE_02, "--config", merged / "run.yaml", *sets(**changed))


def test_held_out_book_that_an_evaluation_set_holds_is_told(merged, tmp_path):
    path = tmp_path / "set.txt"
    path.write_text("\n".join(plain("leaflet", n)[0] for n in range(2)), encoding="utf-8")
    changed = sets(prepare__split__held_out_books="leaflet", prepare__decontaminate=path)
    message = fail(STAGE_02, "--config", merged / "run.yaml", *changed)
    assert "all pairs of 'leaflet' overlap with an evaluation set of prepare.decontaminate" in message


def test_one_group_is_too_little_to_search_among(merged):
    sentences, pairs = (rows(merged / "run" / f"01_{name}.jsonl") for name in ("sentences", "merged_paraphrases"))
    first = next(row["sentence_id"] for row in pairs if row["source"] == "leaflet")
    some = [row for row in pairs if row["source"] != "leaflet" or row["sentence_id"] == first]
    split = {"train": 0.6, "validation": 0.2, "test": 0.2, "held_out_books": ["leaflet"]}
    prepare = Settings(prepare={"split": split, "decontaminate": [], "min_distance": 3}).prepare
    settings = prepare.model_dump(exclude=FOR_LABELS)
    with pytest.raises(UserError, match="the pairs of leaflet are one group, and retrieval needs 2 or more"):
        build_triplets(sentences, some, **settings, seed=1)
    assert len(build_triplets(sentences, pairs, **settings, seed=1).splits["held_out_books"]) == 4
