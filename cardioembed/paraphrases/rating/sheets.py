"""The raters' sheet: a blind sample of pairs as CSV for a spreadsheet program, and the scores read back."""

from __future__ import annotations

import csv
import io
import random
from itertools import zip_longest
from pathlib import Path

from cardioembed.errors import UserError
from cardioembed.paraphrases.rating.agreement import LEVELS, Scores
from cardioembed.paraphrases.report import generator_of, is_passage, texts_of
from cardioembed.records import Row, atomic_open, atomic_path, read_jsonl, write_json

SCALES = ("meaning", "fluency")
RATINGS = ("meaning_rater_1", "meaning_rater_2", "fluency_rater_1", "fluency_rater_2")
FIELDS = ("id", "original", "paraphrase", *RATINGS, "comment")
GUIDE = """\
How to rate. Read the original, then the paraphrase, and give each of the two questions a whole number, 1 to 4.
Rate alone; leave a cell empty if you cannot tell, and say why under comment. Do not change the ids.
An apostrophe at the start of a cell only keeps spreadsheet programs from taking the text for a formula.

meaning: does the paraphrase say the same to a cardiologist?
  4  the same: every finding, number, side, drug and denial
  3  nearly: a shade is lost or added that changes no decision
  2  partly: something that matters is missing, added or vague
  1  different: it contradicts the original or speaks of something else

fluency: is the paraphrase, for itself, good English of a textbook?
  4  faultless
  3  understood at once, with a small slip
  2  understood with effort
  1  broken, or not a sentence

Rater 1 fills the columns that end in rater_1, rater 2 those that end in rater_2, in one file or each in a copy.
"""
# A spreadsheet program takes a cell that starts with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def draw_sheet(run_dir: Path, out: Path, *, pairs: int, rejected: int = 0, seed: int) -> None:
    """Writes a shuffled sheet without generators or verdicts, its key and the raters' guide.

    Kept pairs are drawn with equal chances and spread over generators and books in proportion, refused ones over
    reasons and generators; duplicates and query-passage pairs are left out.

    Args:
        run_dir: A run with the outputs of stage 01.
        out: The sheet, CSV; ``<name>.key.json`` and ``<name>.guide.txt`` go beside it.
        pairs: Kept pairs to draw.
        rejected: Refused pairs to mix in, to check the gates.
        seed: Decides the draw and the order.

    Raises:
        UserError: Files are missing, there are fewer pairs than asked for, or ``out`` exists or is no .csv.
    """
    out, key_file, guide = sheet_files(out)
    if taken := [path for path in (out, key_file, guide) if path.exists()]:
        raise UserError(f"{taken[0]} exists and may hold ratings; name another file with --out, or move it away")
    if out.suffix != ".csv":
        raise UserError(f"--out {out}: the sheet is a CSV file, name it {out.with_suffix('.csv')}")
    rng = random.Random(seed)
    kept = _stage_rows(run_dir, "01_merged_paraphrases.jsonl")
    kept = [_candidate(row, "kept") for row in kept if not is_passage(row)]
    drawn = _spread(kept, pairs, ("generator", "book"), "--pairs", rng)
    if rejected:
        drawn += _spread(_refused(run_dir), rejected, ("verdict", "generator"), "--rejected", rng)
    rng.shuffle(drawn)
    named = {f"p{number}": row for number, row in enumerate(drawn, 1)}
    key = {name: {k: v for k, v in row.items() if k != "texts"} for name, row in named.items()}
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(FIELDS)
        writer.writerows([name, *map(_cell, row["texts"]), *[""] * 5] for name, row in named.items())
    write_json(key_file, key)
    with atomic_open(guide) as stream:
        stream.write(GUIDE)


def sheet_files(sheet: Path) -> tuple[Path, Path, Path]:
    """The sheet, its key and the raters' guide."""
    return sheet, sheet.with_suffix(".key.json"), sheet.with_suffix(".guide.txt")


def _stage_rows(run_dir: Path, name: str) -> list[Row]:
    path = run_dir / name
    if not path.exists():
        raise UserError(
            f"{path} is missing; give the run_dir of a run whose stage 01 is done (01_merge_paraphrases.py)"
        )
    return read_jsonl(path)


def _refused(run_dir: Path) -> list[Row]:
    """Refused rows that have both texts; a duplicate's verdict says nothing of its quality."""
    rows = [row for row in _stage_rows(run_dir, "01_rejected.jsonl") if row["reason"] != "duplicate_pair"]
    return [
        _candidate(row["row"], f"rejected: {row['reason']}", row.get("file", ""))
        for row in rows
        if all(texts_of(row["row"]) or [""]) and not is_passage(row["row"])
    ]


def _candidate(content: Row, verdict: str, file: str = "") -> Row:
    return {
        "texts": texts_of(content),
        "generator": generator_of(content, file),
        "book": str(content.get("source", "")),
        "verdict": verdict,
        "id": content.get("id"),
    }


def _spread(rows: list[Row], count: int, strata: tuple[str, str], option: str, rng: random.Random) -> list[Row]:
    """Systematic sample: shuffled rows in the order of their strata, every n-th from a random start."""
    if not 1 <= count <= len(rows):
        raise UserError(f"{option} {count}: the run has {len(rows)} such pairs with two texts; give 1 to {len(rows)}")
    ordered = sorted(rng.sample(rows, len(rows)), key=lambda row: [row[name] for name in strata])
    start = rng.random()
    return [ordered[int((number + start) * len(rows) / count)] for number in range(count)]


def _cell(text: str) -> str:
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def read_scores(sheets: list[Path]) -> dict[str, Scores]:
    """Scores of both raters by scale.

    Args:
        sheets: One sheet with both raters' columns, or one sheet a rater (the first's is rater 1).

    Raises:
        UserError: Cells that are not 1, 2, 3, 4 or empty, missing columns, ids that are there twice or not in both
            sheets, no score at all; all of a sheet's cells in one message.
    """
    problems: list[str] = []
    tables = [_read_sheet(sheet, problems) for sheet in sheets]
    for sheet, table in zip(sheets[1:], tables[1:], strict=True):
        if odd := sorted(tables[0].keys() ^ table.keys()):
            problems.append(f"{sheets[0]} and {sheet}: ids that only one of them has: {', '.join(odd[:10])}")
    scores: dict[str, Scores] = {}
    for scale in SCALES:
        columns = [{name: row[f"{scale}_rater_{rater}"] for name, row in tables[0].items()} for rater in (1, 2)]
        if len(tables) == 2:
            columns = [_own_column(table, scale, sheet, problems) for sheet, table in zip(sheets, tables, strict=True)]
        scores[scale] = columns[0], columns[1]
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise UserError("\n  ".join(["the ratings cannot be used:", *problems[:20], *more]))
    if not any(score for columns in scores.values() for column in columns for score in column.values()):
        raise UserError(f"{', '.join(map(str, sheets))}: no row is rated; the columns are {', '.join(RATINGS)}")
    return scores


def _read_sheet(sheet: Path, problems: list[str]) -> dict[str, dict[str, int | None]]:
    """Scores by id and column; rows are numbered as a spreadsheet program shows them."""
    header, *rows = _cells(sheet)
    if missing := [name for name in ("id", *RATINGS) if name not in header]:
        raise UserError(f"{sheet}: column {', '.join(missing)} is missing; the columns are {', '.join(FIELDS)}")
    table: dict[str, dict[str, int | None]] = {}
    for number, values in enumerate(rows, 2):
        if not any(value.strip() for value in values):
            continue
        row = dict(zip_longest(header, values[: len(header)], fillvalue=""))
        name = row["id"].strip()
        if not name or name in table:
            problems.append(f"{sheet}, row {number}: id {name!r} is {'there twice' if name else 'missing'}")
        table[name] = {column: _score(row[column], f"{sheet}, row {number}, {column}", problems) for column in RATINGS}
    return table


def _cells(sheet: Path) -> list[list[str]]:
    try:
        # Ids and scores are ASCII; a program that saved the texts in another encoding does no harm.
        text = sheet.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{sheet} cannot be read: {error.strerror}") from None
    # Spreadsheet programs write semicolons where the comma is the decimal sign.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) or [[]]
    except csv.Error as error:
        raise UserError(f"{sheet} is not CSV ({error}); save it as CSV UTF-8") from None


def _score(value: str, where: str, problems: list[str]) -> int | None:
    text = value.strip()
    if text and text not in map(str, LEVELS):
        problems.append(f"{where}: {text!r} is not 1, 2, 3, 4 or empty")
        return None
    return int(text) if text else None


def _own_column(table: dict, scale: str, sheet: Path, problems: list[str]) -> dict[str, int | None]:
    """The one column of the scale that has scores; a rater may have filled either in a copy of their own."""
    columns = [{name: row[f"{scale}_rater_{rater}"] for name, row in table.items()} for rater in (1, 2)]
    filled = [column for column in columns if any(column.values())]
    if len(filled) == 2:
        problems.append(f"{sheet}: both {scale} columns are filled; of two sheets each holds one rater's scores")
    return (filled or columns)[0]
