import csv
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from cardioembed.errors import UserError
from cardioembed.paraphrases.rating.__main__ import agreement, main
from cardioembed.paraphrases.rating.agreement import weighted_kappa
from cardioembed.paraphrases.rating.sheets import FIELDS, draw_sheet
from cardioembed.records import write_jsonl

BOOKS = {"valves": 60, "rhythm": 30, "drugs": 10}


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    kept = [
        {
            "id": f"{model}{book}{i}",
            "original": f"{book} {i}",
            "paraphrase": f"{model} {i}",
            "model": model,
            "source": book,
        }
        for model in ("close", "free")
        for book, count in BOOKS.items()
        for i in range(count)
    ]
    kept.append({**kept[0], "id": "q", "kind": "passage"})
    kept[0]["paraphrase"] = '=HYPERLINK("http://x";"y"), "quoted"\nsecond line'
    kept[1]["original"] = "−20 % is not a formula, ≥ 35 % neither"
    refused = [
        {"file": "p/close.jsonl", "line": i, "reason": reason, "detail": "", "row": row}
        for i, (reason, row) in enumerate(
            [
                *[("copy", {"original": f"o{n}", "paraphrase": f"-o{n}", "model": "close"}) for n in range(6)],
                *[("numbers_changed", {"sentence": f"s{n}", "paraphrased": f"t{n}"}) for n in range(6)],
                ("duplicate_pair", {"original": "valves 1", "paraphrase": "close 1"}),
                ("empty", {"original": "has text", "paraphrase": ""}),
                ("low_relevance", {"query": "q", "passage": "p"}),
                ("broken_json", "{raw"),
            ],
            1,
        )
    ]
    write_jsonl(folder / "01_merged_paraphrases.jsonl", kept)
    write_jsonl(
        folder / "01_rejected.jsonl",
        [*refused, {"file": "b.md", "reason": "sentence_too_long", "row": {"text": "long"}}],
    )
    return folder


def rows_of(path, encoding="utf-8-sig"):
    with path.open(encoding=encoding, newline="") as stream:
        return list(csv.DictReader(stream))


def write_sheet(path, scores, *, key=None, delimiter=",", encoding="utf-8-sig"):
    """Scores: meaning 1, meaning 2, fluency 1, fluency 2 of each row."""
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(FIELDS)
        writer.writerows(
            [f"p{i}", "Öffnung,\n=1", "p", *row, "≥" * (encoding != "cp1252")] for i, row in enumerate(scores, 1)
        )
    if key:
        entries = {f"p{i}": {"generator": g, "verdict": v} for i, (g, v) in enumerate(key, 1)}
        path.with_suffix(".key.json").write_text(json.dumps(entries))
    return path


def both(first, second):
    return [(a, b, 4, 4) for a, b in zip(first, second, strict=True)]


def kappa_by_hand(table, power):
    """Cohen 1968: 1 - sum(v * observed) / sum(v * expected), with v the disagreement of two scores."""
    n = sum(map(sum, table))
    rows, columns = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
    observed = expected = Fraction(0)
    for i in range(4):
        for j in range(4):
            observed += abs(i - j) ** power * Fraction(table[i][j], n)
            expected += abs(i - j) ** power * Fraction(rows[i] * columns[j], n * n)
    return float(1 - observed / expected)


def test_weighted_kappa_is_cohens_formula():
    rng = np.random.default_rng(3)
    for _ in range(10):
        table = rng.integers(0, 12, (4, 4))
        first, second = np.repeat(np.indices((4, 4)).reshape(2, -1) + 1, table.ravel(), axis=1)
        for weights, power in (("linear", 1), ("quadratic", 2)):
            found = weighted_kappa(table, weights)
            assert found == pytest.approx(kappa_by_hand(table.tolist(), power), abs=1e-12)
            assert found == pytest.approx(cohen_kappa_score(first, second, labels=[1, 2, 3, 4], weights=weights))


def test_weighted_kappa_on_paper():
    # 1-1, 1-1, 1-2, 2-2: disagreement 1 of 4 observed, 2 of 4 expected.
    table = np.zeros((4, 4), int)
    table[:2, :2] = [[2, 1], [0, 1]]
    assert weighted_kappa(table) == pytest.approx(0.5)
    # Scores that are never used count in the distance: 1 against 4 is nine times as far as 1 against 2.
    table[3, 0] = 1
    assert weighted_kappa(table, "quadratic") < weighted_kappa(table, "linear")


def test_the_sheet_is_spread_in_proportion_blind_and_shuffled(run_dir, tmp_path):
    sheet = tmp_path / "sheet.csv"
    draw_sheet(run_dir, sheet, pairs=40, rejected=6, seed=1)
    rows, key = rows_of(sheet), json.loads((tmp_path / "sheet.key.json").read_text())
    assert list(rows[0]) == list(FIELDS)
    assert [row["id"] for row in rows] == list(key) == [f"p{i}" for i in range(1, 47)]
    kept = Counter((e["generator"], e["book"]) for e in key.values() if e["verdict"] == "kept")
    assert kept == {(m, b): count // 5 for m in ("close", "free") for b, count in BOOKS.items()}
    verdicts = Counter(entry["verdict"] for entry in key.values())
    assert verdicts == {"kept": 40, "rejected: copy": 3, "rejected: numbers_changed": 3}
    places = [i for i, entry in enumerate(key.values()) if entry["verdict"] != "kept"]
    assert places != list(range(40, 46))
    assert not any(row[name] for row in rows for name in FIELDS[3:])
    assert "close.jsonl" not in sheet.read_text(encoding="utf-8")
    assert "1  different" in (tmp_path / "sheet.guide.txt").read_text()


def test_the_draw_follows_its_seed(run_dir, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_sheet(run_dir, tmp_path / f"{name}.csv", pairs=20, seed=seed)
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c


def test_cells_open_as_text_in_a_spreadsheet_program(run_dir, tmp_path):
    sheet = tmp_path / "sheet.csv"
    draw_sheet(run_dir, sheet, pairs=200, rejected=12, seed=1)
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = rows_of(sheet)
    assert len(rows) == 212
    texts = [row[name] for row in rows for name in ("original", "paraphrase")]
    assert not any(text.lstrip().startswith(tuple("=+-@")) for text in texts)
    assert '\'=HYPERLINK("http://x";"y"), "quoted"\nsecond line' in texts
    assert "−20 % is not a formula, ≥ 35 % neither" in texts
    assert sum(text.startswith("'-o") for text in texts) == 6


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r", " =", "＝"])
def test_every_formula_sign_is_disarmed(tmp_path, start):
    row = {"original": f"{start}1+1", "paraphrase": "p", "model": "m", "source": "s"}
    write_jsonl(tmp_path / "01_merged_paraphrases.jsonl", [row])
    draw_sheet(tmp_path, tmp_path / "s.csv", pairs=1, seed=1)
    assert rows_of(tmp_path / "s.csv")[0]["original"] == f"'{start}1+1"


def test_a_sheet_is_never_written_over(run_dir, tmp_path):
    sheet = tmp_path / "sheet.csv"
    draw_sheet(run_dir, sheet, pairs=5, seed=1)
    before = sheet.read_bytes()
    with pytest.raises(UserError, match="exists and may hold ratings"):
        draw_sheet(run_dir, sheet, pairs=5, seed=2)
    assert sheet.read_bytes() == before


def test_mistakes_of_a_draw_are_named(run_dir, tmp_path):
    with pytest.raises(UserError, match=r"--pairs 201: the run has 200 .* give 1 to 200"):
        draw_sheet(run_dir, tmp_path / "s.csv", pairs=201, seed=1)
    with pytest.raises(UserError, match=r"--rejected 13: the run has 12 "):
        draw_sheet(run_dir, tmp_path / "s.csv", pairs=5, rejected=13, seed=1)
    with pytest.raises(UserError, match=r"01_merged_paraphrases.jsonl is missing; give the run_dir"):
        draw_sheet(tmp_path / "none", tmp_path / "s.csv", pairs=5, seed=1)
    with pytest.raises(UserError, match=r"name it .*s\.csv"):
        draw_sheet(run_dir, tmp_path / "s.xlsx", pairs=5, seed=1)
    assert not (tmp_path / "s.csv").exists()


def test_agreement_of_one_sheet(tmp_path):
    first, second = [4, 4, 3, 2, 1, 4, ""], [4, 3, 3, 2, 2, 4, 4]
    verdicts = [
        ("a", "kept"),
        ("a", "kept"),
        ("b", "kept"),
        ("b", "kept"),
        ("a", "rejected: copy"),
        ("b", "kept"),
        ("b", "kept"),
    ]
    sheet = write_sheet(tmp_path / "s.csv", both(first, second), key=verdicts)
    result = agreement([sheet], resamples=200)
    meaning = result["scales"]["meaning"]
    assert (result["rows"], result["rows_missing"], meaning["n"]) == (7, 0, 6)
    assert meaning["unrated"] == {"rater_1": 1, "rater_2": 0}
    assert meaning["confusion"] == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 2]]
    assert meaning["agreement"]["value"] == pytest.approx(4 / 6)
    for name, power in (("kappa_linear", 1), ("kappa_quadratic", 2)):
        assert meaning[name]["value"] == pytest.approx(kappa_by_hand(meaning["confusion"], power))
        low, high = meaning[name]["ci95"]
        assert low < meaning[name]["value"] <= high <= 1
    means = {label: (mean["value"], mean["n"]) for label, mean in meaning["means"].items()}
    assert means == {
        "kept": (pytest.approx((4 + 3.5 + 3 + 2 + 4 + 4) / 6), 6),
        "kept, a": (pytest.approx(3.75), 2),
        "kept, b": (pytest.approx(13 / 4), 4),
        "rejected": (1.5, 1),
        "rejected: copy": (1.5, 1),
    }
    assert meaning["means"]["rejected"]["ci95"] is None


def test_the_interval_is_that_of_resampled_pairs(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.integers(1, 5, 60)
    second = np.clip(first + rng.integers(-1, 2, 60), 1, 4)
    sheet = write_sheet(tmp_path / "s.csv", both(first.tolist(), second.tolist()))
    found = agreement([sheet], resamples=600)["scales"]["meaning"]["kappa_quadratic"]["ci95"]
    drawn = rng.integers(0, 60, (600, 60))
    kappas = [cohen_kappa_score(first[i], second[i], labels=[1, 2, 3, 4], weights="quadratic") for i in drawn]
    assert found == pytest.approx(np.quantile(kappas, [0.025, 0.975]), abs=0.03)


def test_two_sheets_of_two_raters_give_the_same_as_one(tmp_path):
    first, second = [4, 4, 3, 2, 1], [4, 3, 3, 2, 2]
    one = write_sheet(tmp_path / "one.csv", both(first, second))
    a = write_sheet(tmp_path / "a.csv", [(score, "", 4, "") for score in first])
    b = write_sheet(tmp_path / "b.csv", [("", score, "", 4) for score in second], delimiter=";", encoding="cp1252")
    own_copy = write_sheet(tmp_path / "own_copy.csv", [(score, "", 4, "") for score in second])
    wanted = agreement([one], resamples=100)["scales"]
    assert agreement([a, b], resamples=100)["scales"] == wanted
    assert agreement([a, own_copy], resamples=100)["scales"] == wanted


def test_two_sheets_are_matched_by_id(tmp_path):
    a = write_sheet(tmp_path / "a.csv", [(score, "", "", "") for score in (1, 2, 3, 4)])
    b = write_sheet(tmp_path / "b.csv", [("", score, "", "") for score in (1, 2, 3, 4)])
    head, *rows = b.read_text(encoding="utf-8-sig").replace("Öffnung,\n=1", "o").splitlines()
    b.write_text("\n".join([head, *reversed(rows)]))
    assert agreement([a, b], resamples=50)["scales"]["meaning"]["agreement"]["value"] == 1
    b.write_text("\n".join([head, *rows[:-1]]))
    with pytest.raises(UserError, match="ids that only one of them has: p4"):
        agreement([a, b])
    with pytest.raises(UserError, match="given twice"):
        agreement([a, a])
    c = write_sheet(tmp_path / "c.csv", both([1, 2, 3, 4], [1, 2, 3, 4]))
    with pytest.raises(UserError, match="both meaning columns are filled"):
        agreement([a, c])


def test_cells_that_are_no_scores_are_all_named_with_their_rows(tmp_path):
    sheet = write_sheet(tmp_path / "s.csv", [(4, 5, 4, 4), ("good", 3, "3.5", 4), (0, 1, 1, " 2 ")])
    with pytest.raises(UserError) as raised:
        agreement([sheet])
    text = str(raised.value)
    for words in (
        "row 2, meaning_rater_2: '5' is not 1, 2, 3, 4 or empty",
        "row 3, meaning_rater_1: 'good'",
        "row 3, fluency_rater_1: '3.5'",
        "row 4, meaning_rater_1: '0'",
    ):
        assert words in text
    assert text.count("is not") == 4


def test_a_broken_sheet_is_named(tmp_path):
    sheet = tmp_path / "s.csv"
    sheet.write_text("id,original,meaning_rater_1\np1,o,4\n")
    with pytest.raises(UserError, match="column meaning_rater_2, fluency_rater_1, fluency_rater_2 is missing"):
        agreement([sheet])
    sheet.write_bytes(b"PK\x03\x04\x00\x00\xff\xfe")
    with pytest.raises(UserError, match="column id"):
        agreement([sheet])
    sheet.write_bytes(b"")
    with pytest.raises(UserError, match="column id"):
        agreement([sheet])
    write_sheet(sheet, [("", "", "", "")] * 3)
    with pytest.raises(UserError, match="no row is rated"):
        agreement([sheet])
    sheet.write_text(f"{','.join(FIELDS)}\np1,o,p,4,4,4,4,\n\np1,o,p,4,4,4,4,\n,o,p,4,4,4,4,\n")
    with pytest.raises(UserError, match=r"(?s)row 4: id 'p1' is there twice.*row 5: id '' is missing"):
        agreement([sheet])
    with pytest.raises(UserError, match="cannot be read"):
        agreement([tmp_path / "none.csv"])


def test_one_rater_alone_has_means_and_no_agreement(tmp_path):
    sheet = write_sheet(tmp_path / "s.csv", [(4, "", "", ""), (2, "", "", "")])
    meaning = agreement([sheet], resamples=50)["scales"]["meaning"]
    assert meaning["notes"] == ["rater 2 gave no scores: there is no agreement to measure"]
    assert meaning["kappa_quadratic"] is None
    assert meaning["means"]["all"]["value"] == 3


def test_raters_who_met_nowhere_have_no_agreement(tmp_path):
    sheet = write_sheet(tmp_path / "s.csv", [(4, "", 1, 1), ("", 2, 1, 2)])
    meaning = agreement([sheet], resamples=50)["scales"]["meaning"]
    assert (meaning["n"], meaning["kappa_linear"]) == (0, None)
    assert "no pair was rated by both" in meaning["notes"][0]


def test_without_variance_kappa_is_undefined_in_words(tmp_path):
    sheet = write_sheet(tmp_path / "s.csv", [(4, 4, 4, 3), (4, 4, 4, 2), (4, 4, 4, 4)])
    scales = agreement([sheet], resamples=50)["scales"]
    assert scales["meaning"]["kappa_quadratic"] is None
    assert scales["meaning"]["agreement"]["value"] == 1
    assert scales["meaning"]["notes"] == ["both raters gave every pair 4: without variance kappa is undefined"]
    assert scales["fluency"]["kappa_linear"]["value"] == pytest.approx(0)
    assert scales["fluency"]["notes"] == ["rater 1 gave every pair 4: kappa is 0 whatever the other rater gave"]


def test_the_key_must_be_the_sheets_own(tmp_path):
    sheet = write_sheet(tmp_path / "s.csv", [(4, 4, 4, 3), (4, 2, 4, 2)], key=[("a", "kept")])
    with pytest.raises(UserError, match="does not know id 'p2'; it is the key of another sheet"):
        agreement([sheet])
    other = tmp_path / "other.json"
    other.write_text('{"p1": 4}')
    with pytest.raises(UserError, match="is not the key of a sheet"):
        agreement([sheet], key_file=other)
    with pytest.raises(UserError, match="cannot be read"):
        agreement([sheet], key_file=tmp_path / "none.json")


def test_the_command_line_from_draw_to_agreement(run_dir, tmp_path, capsys):
    sheet = tmp_path / "sheet.csv"
    draw = ["draw", str(run_dir), "--pairs", "20", "--rejected", "4", "--seed", "3", "--out", str(sheet)]
    assert main(draw) == 0
    assert main(draw) == 2
    assert "error: " in capsys.readouterr().err
    rows = rows_of(sheet)[:-1]
    for number, row in enumerate(rows):
        row.update(dict.fromkeys(FIELDS[3:7], 1 + number % 4))
    rows[0]["meaning_rater_2"] = 4
    with sheet.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    assert main(["agreement", str(sheet)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "kappa_quadratic",
        "23 pairs rated by both",
        "mean, kept, close",
        "1 pairs of the key",
        "rater 1 in rows",
    ):
        assert words in printed
    result = json.loads((tmp_path / "sheet.agreement.json").read_text())
    assert result["scales"]["meaning"]["agreement"]["value"] == pytest.approx(22 / 23)
    assert result["scales"]["fluency"]["kappa_linear"]["value"] == pytest.approx(1)
