"""Human raters for paraphrase pairs: a blind sheet for a spreadsheet program, and how far two raters agree.

python -m cardioembed.paraphrases.rating draw runs/laptop --pairs 100 --rejected 20 --seed 1 --out sheet.csv
python -m cardioembed.paraphrases.rating agreement sheet.csv
python -m cardioembed.paraphrases.rating agreement rater_1.csv rater_2.csv --key sheet.key.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.paraphrases.rating.agreement import LEVELS, compare
from cardioembed.paraphrases.rating.sheets import SCALES, draw_sheet, read_scores, sheet_files
from cardioembed.records import read_json, write_json


def agreement(
    sheets: list[Path], *, key_file: Path | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Agreement of two raters and mean scores.

    Args:
        sheets: One sheet with both raters' columns, or one sheet a rater (the first's is rater 1).
        key_file: Written by ``draw_sheet``; by default beside the first sheet, under its name.
        resamples: Bootstrap resamples, over pairs.
        seed: Decides them.

    Returns:
        ``{"sheets", "key", "rows", "rows_missing", "scales": {"meaning"|"fluency": as ``compare``}}``; ``key`` is
        None if there is none, and then nothing is said by generator and verdict.

    Raises:
        UserError: More than two sheets, or one given twice; a key of another sheet; see also ``read_scores``.
    """
    if len({sheet.resolve() for sheet in sheets}) != len(sheets):
        raise UserError(f"{sheets[0]} is given twice; a sheet with both raters' columns is given once")
    if len(sheets) not in (1, 2):
        raise UserError(f"{len(sheets)} sheets; give one sheet with both raters' columns, or two, one a rater")
    scores = read_scores(sheets)
    ids = list(scores["meaning"][0])
    key_path = key_file or sheet_files(sheets[0])[1]
    key = _read_key(key_path, ids) if key_file or key_path.exists() else None
    rng = np.random.default_rng(seed)
    return {
        "sheets": list(map(str, sheets)),
        "key": None if key is None else str(key_path),
        "rows": len(ids),
        "rows_missing": len((key or {}).keys() - set(ids)),
        "scales": {scale: compare(scores[scale], key, resamples=resamples, rng=rng) for scale in SCALES},
    }


def _read_key(path: Path, ids: list[str]) -> dict[str, dict[str, Any]]:
    key = read_json(path)
    entries = key.values() if isinstance(key, dict) else [key]
    if not all(isinstance(entry, dict) and {"generator", "verdict"} <= entry.keys() for entry in entries):
        raise UserError(f"{path} is not the key of a sheet; give the .key.json that draw wrote beside the sheet")
    if strangers := [name for name in ids if name not in key]:
        raise UserError(
            f"{path} does not know id {strangers[0]!r}; it is the key of another sheet, give the right --key"
        )
    return key


def _table(result: dict[str, Any]) -> str:
    """The result for the terminal."""
    lines = [f"{' and '.join(result['sheets'])}: {result['rows']} pairs"]
    if result["key"] is None:
        lines.append("no key file: means by generator and verdict are left out; give --key sheet.key.json")
    if result["rows_missing"]:
        lines.append(f"{result['rows_missing']} pairs of the key are not in the sheet: rows were deleted")
    for scale, found in result["scales"].items():
        unrated = ", ".join(
            f"{count} unrated by {rater.replace('_', ' ')}" for rater, count in found["unrated"].items()
        )
        lines += [f"\n{scale}: {found['n']} pairs rated by both; {unrated}", *(f"  {note}" for note in found["notes"])]
        lines += [_line(name, found[name]) for name in ("agreement", "kappa_linear", "kappa_quadratic") if found[name]]
        lines += ["  rater 1 in rows, rater 2 in columns", f"    {'':<3}" + "".join(f"{level:>5}" for level in LEVELS)]
        for level, row in zip(LEVELS, found["confusion"], strict=True):
            lines.append(f"    {level:<3}" + "".join(f"{count:>5}" for count in row))
        lines += [_line(f"mean, {label}", value) for label, value in found["means"].items()]
    return "\n".join(lines)


def _line(name: str, value: dict[str, Any]) -> str:
    interval = "[{:.3f}, {:.3f}]".format(*value["ci95"]) if value["ci95"] else "no interval"
    return f"  {name:<36} {value['value']:>6.3f}  {interval:<16} n = {value['n']}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw", help="write a blind sheet, its key and the raters' guide")
    draw.add_argument("run_dir", type=Path)
    draw.add_argument("--pairs", type=int, default=100, help="kept pairs (default: 100)")
    draw.add_argument("--rejected", type=int, default=0, help="refused pairs to mix in (default: 0)")
    draw.add_argument("--seed", type=int, default=1)
    draw.add_argument("--out", type=Path, required=True, metavar="SHEET.csv")
    agree = commands.add_parser("agreement", help="kappa and mean scores of one rated sheet, or of one a rater")
    agree.add_argument("sheets", type=Path, nargs="+", metavar="SHEET.csv")
    agree.add_argument("--key", type=Path, help="default: SHEET.key.json beside the first sheet")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs ``draw`` or ``agreement``; a user's mistake ends with advice and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "draw":
            draw_sheet(options.run_dir, options.out, pairs=options.pairs, rejected=options.rejected, seed=options.seed)
            print(f"wrote {', '.join(map(str, sheet_files(options.out)))}; keep the key from the raters")
        else:
            result = agreement(options.sheets, key_file=options.key)
            out = options.sheets[0].with_suffix(".agreement.json")
            write_json(out, result)
            print(f"{_table(result)}\n\nwrote {out}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename or 'file'}: {error.strerror}; check the path and the permissions", file=sys.stderr
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
