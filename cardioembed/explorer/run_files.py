"""The files of a run, and what to do about one that is missing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cardioembed.errors import UserError
from cardioembed.records import BadLine, Row, parse_jsonl, read_json
from cardioembed.stage import SCRIPTS

STAGES = ("01", "02", "03", "04")
MODEL = "03_model"


def needed(run_dir: Path, name: str) -> Path:
    """A file or folder of a run.

    Raises:
        UserError: It is missing; says which stage writes it and how to run that stage.
    """
    path = run_dir / name
    if not path.exists():
        raise UserError(f"{path} is missing. Stage {name[:2]} writes it:\n{stage_command(run_dir, name[:2])}")
    return path


def stage_command(run_dir: Path, number: str) -> str:
    """The command of a stage, with the settings that the run's latest stage recorded."""
    recorded = [path for path in (run_dir / f"{stage}_settings.yaml" for stage in STAGES) if path.is_file()]
    config = str(recorded[-1]) if recorded else "config.yaml"
    return shlex.join(["python", SCRIPTS[number], "--config", config])


def needed_json(run_dir: Path, name: str) -> Any:
    """Content of a JSON file of a run.

    Raises:
        UserError: Missing, or not JSON.
    """
    return read_json(needed(run_dir, name))


def training_log(run_dir: Path) -> list[Row]:
    """Whole rows of the training log; a last line cut by a stop is left out.

    Raises:
        UserError: Missing.
    """
    rows = [row for _, row in parse_jsonl(needed(run_dir, "03_training_log.jsonl"))]
    return [row for row in rows if not isinstance(row, BadLine) and isinstance(row.get("step"), int)]


def manifests(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Manifests of the stages that ran, by stage number; those that cannot be read are left out."""
    found = {}
    for number in STAGES:
        path = run_dir / f"{number}_manifest.json"
        if path.is_file():
            try:
                content = read_json(path)
            except UserError:
                continue
            if isinstance(content, dict):
                found[number] = content
    return found
