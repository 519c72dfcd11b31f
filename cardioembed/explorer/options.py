"""The explorer's options: one parser for ``python -m cardioembed.explorer`` and for ``streamlit run``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from cardioembed.errors import UserError

DEFAULT_RUN = "runs/laptop"


@dataclass(frozen=True)
class Options:
    """What is explored.

    Attributes:
        run_dir: The run's folder.
        texts: Labelled texts of the user's own, JSONL of ``{"id", "label", "text"}``; None for the run's only.
        cache: Where vectors and projections are kept.
    """

    run_dir: Path
    texts: Path | None
    cache: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide what is explored."""
    parser.add_argument("--run", default=DEFAULT_RUN, metavar="FOLDER", help=f"the run (default: {DEFAULT_RUN})")
    parser.add_argument("--texts", metavar="FILE", help='texts of your own: JSONL, {"id", "label", "text"} a line')
    parser.add_argument("--cache", metavar="FOLDER", help="for vectors and maps (default: <run>/explorer_cache)")


def checked(parsed: argparse.Namespace) -> Options:
    """Options whose run and file exist.

    Raises:
        UserError: One does not.
    """
    run_dir = Path(parsed.run)
    if not run_dir.is_dir():
        found = sorted(path.parent for path in run_dir.parent.glob("*/*_manifest.json")) if run_dir.name else []
        others = ", ".join(dict.fromkeys(map(str, found))) or "none beside it"
        raise UserError(
            f"--run {run_dir} is not a folder; runs: {others}. Make one with make demo, or give the run_dir of your "
            "configuration"
        )
    texts = Path(parsed.texts) if parsed.texts else None
    if texts and not texts.is_file():
        raise UserError(f'--texts {texts} is not a file; give JSONL with {{"id", "label", "text"}} a line')
    return Options(run_dir, texts, Path(parsed.cache) if parsed.cache else run_dir / "explorer_cache")


def parse_page_arguments(arguments: list[str]) -> Options:
    """Options that stand after ``--`` of ``streamlit run``, where argparse must not end the process.

    Raises:
        UserError: An unknown option, or a run or file that does not exist.
    """
    parser = argparse.ArgumentParser(prog="app.py", add_help=False, exit_on_error=False)
    add_options(parser)
    try:
        parsed, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; for example -- --run {DEFAULT_RUN}") from None
    if unknown:
        raise UserError(f"unknown option {unknown[0]}; allowed: --run FOLDER, --texts FILE, --cache FOLDER")
    return checked(parsed)
