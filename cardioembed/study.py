"""Many runs in one command: each base goes through stages 01 to 04, then all are compared.

    python -m cardioembed.study configs/study.yaml

What is done is skipped, what fails is noted with its reason and the others go on; the same command takes up what is
left. ``<run_dir>/study.json`` says what became of each, ``<run_dir>/comparison`` has the tables and figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cardioembed.config import Settings
from cardioembed.config_file import load_settings
from cardioembed.errors import UserError
from cardioembed.records import atomic_folder, read_json, write_json
from cardioembed.stage import SCRIPTS, changed_settings

ROOT = Path(__file__).parents[1]
STAGES = ("01", "02", "03", "04")
_TAIL_BYTES = 8192


class Member(BaseModel):
    """One run of a study.

    Attributes:
        config: Its settings file.
        name: Its name; the file's own if there is none.
        set: Overrides, ``key.path: value``.
    """

    model_config = ConfigDict(extra="forbid")
    config: str
    name: str = ""
    set: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"config": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named(self) -> Member:
        self.name = self.name or Path(self.config).stem
        if Path(self.name).name != self.name:
            raise ValueError(f"name {self.name!r} is not a folder name")
        return self


class Study(BaseModel):
    """A study file.

    Attributes:
        run_dir: Each member gets the folder of its name in it.
        members: Settings files, or ``{config, name, set}``.
        set: Overrides for all of them, ``key.path: value``; a member's own come after.
        compare: More models for the comparison: folders or hub ids.
    """

    model_config = ConfigDict(extra="forbid")
    run_dir: str = "runs/study"
    members: list[Member] = Field(min_length=1)
    set: dict[str, Any] = {}
    compare: list[str] = []

    def folder(self, member: Member) -> Path:
        """Where a member's files are."""
        return Path(self.run_dir) / member.name

    def overrides(self, member: Member) -> list[str]:
        """A member's ``--set`` arguments."""
        given = {**self.set, **member.set, "run_dir": str(self.folder(member))}
        return [f"{key}={json.dumps(value)}" for key, value in given.items()]


@dataclass(frozen=True)
class Outcome:
    """What became of a member: ``done``, ``skipped`` (it was done before) or ``failed``, in which stage, and why."""

    member: str
    state: str
    seconds: float = 0.0
    stage: str | None = None
    reason: str | None = None


def load_study(path: Path) -> tuple[Study, dict[str, Settings]]:
    """Reads a study file and the settings of all its members, so that a mistake is told before anything runs.

    Raises:
        UserError: The file or one of its settings is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        study = Study.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"study file {path} cannot be read: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UserError(f"study file {path}: {problems}. Keys: {', '.join(Study.model_fields)}") from None
    names = [member.name for member in study.members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"study file {path}: two members are named {twice[0]!r}; give each a name of its own")
    return study, {member.name: load_settings(member.config, study.overrides(member)) for member in study.members}


def run_study(path: Path) -> list[Outcome]:
    """Runs what is not done yet and compares what there is.

    Raises:
        UserError: The study file is wrong, nothing could be trained, or the comparison failed.
    """
    study, settings = load_study(path)
    Path(study.run_dir).mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for number, member in enumerate(study.members, 1):
        print(f"== {member.name} ({number} of {len(study.members)})", flush=True)
        outcomes.append(_run_member(study, member, settings[member.name]))
        write_json(Path(study.run_dir) / "study.json", [asdict(outcome) for outcome in outcomes])
    trained = [member for member in study.members if _is_done(study, member, settings[member.name], "03")]
    if not trained:
        raise UserError(f"nothing could be trained:\n{_told(outcomes)}")
    _compare(study, trained)
    print(_told(outcomes))
    return outcomes


def _compare(study: Study, trained: list[Member]) -> None:
    """All that is trained side by side, on the test split of the first: members share texts, splits and seed."""
    print("== comparison", flush=True)
    first, folder = trained[0], Path(study.run_dir) / "comparison"
    models = [str(study.folder(member)) for member in trained]
    if reason := _call("04", first.config, study.overrides(first), ["--models", *models, *study.compare]):
        raise UserError(f"the comparison failed: {reason}")
    with atomic_folder(folder) as target:
        shutil.copytree(study.folder(first) / "04_comparison", target, dirs_exist_ok=True)
    print(f"  wrote {folder}")


def _run_member(study: Study, member: Member, settings: Settings) -> Outcome:
    started, skipped = time.monotonic(), True
    for stage in STAGES:
        # A stage that runs makes the later ones run as well.
        if skipped and _is_done(study, member, settings, stage):
            continue
        skipped = False
        if reason := _call(stage, member.config, study.overrides(member), []):
            return Outcome(member.name, "failed", round(time.monotonic() - started, 1), stage, reason)
    return Outcome(member.name, "skipped" if skipped else "done", round(time.monotonic() - started, 1))


def _is_done(study: Study, member: Member, settings: Settings, stage: str) -> bool:
    """Whether a stage has run to its end with these settings, and what it wrote is still there."""
    manifest_path = study.folder(member) / f"{stage}_manifest.json"
    if not manifest_path.exists():
        return False
    manifest = read_json(manifest_path)
    there = all((study.folder(member) / output).exists() for output in manifest["outputs"])
    return there and not changed_settings(manifest["settings"], settings, stage)


def _call(stage: str, config: str, overrides: list[str], options: list[str]) -> str | None:
    """Runs a stage in a process of its own, so that a crash or a lack of memory ends that member alone.

    Returns:
        Why it failed, None if it did not.
    """
    given = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, str(ROOT / SCRIPTS[stage]), "--config", config, *given, *options]
    tail = b""
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while block := process.stderr.read1(1 << 16):
            sys.stderr.buffer.write(block)
            sys.stderr.flush()
            tail = (tail + block)[-_TAIL_BYTES:]
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"killed by signal {-process.returncode} (9: most likely out of memory)"
    text = tail.decode("utf-8", "replace").strip()
    told = text.rpartition("error: ")[2] if "error: " in text else text.rpartition("\n")[2]
    return told.strip() or f"exit code {process.returncode}"


def _told(outcomes: list[Outcome]) -> str:
    return "\n".join(
        f"  {outcome.member}: {outcome.state}"
        + (f" in stage {outcome.stage}: {outcome.reason}" if outcome.reason else "")
        for outcome in outcomes
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 if a member failed, 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, metavar="FILE", help="study file, such as configs/study.yaml")
    options = parser.parse_args(arguments)
    try:
        outcomes = run_study(options.study)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return int(any(outcome.state == "failed" for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
