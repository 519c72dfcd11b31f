"""What the five stage scripts share: command line, errors as advice, manifests, and the check of earlier stages."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cardioembed import distributed
from cardioembed.config import Settings, flatten, to_yaml
from cardioembed.config_file import load_settings
from cardioembed.errors import GateError, UserError
from cardioembed.records import atomic_open, library_versions, read_json, sha256, write_json

# Said on import by libraries, of kernels and names that this project does not use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)

SCRIPTS = {
    "01": "01_merge_paraphrases.py",
    "02": "02_prepare_training_data.py",
    "03": "03_train_embedding_model.py",
    "04": "04_evaluate_model.py",
    "05": "05_usage_example.py",
}

# The settings that decide what a stage writes; a later stage refuses its files if one of them has changed since.
DECIDES = {
    "01": ("merge.",),
    "02": ("merge.", "prepare.", "seed"),
    "03": ("merge.", "prepare.", "seed", "model.", "train."),
    "04": ("merge.", "prepare.", "seed", "model.", "train.", "evaluate."),
}
# Where and how fast the same pages are read.
NOT_DECIDING = tuple(
    f"merge.ocr.{name}" for name in ("base_url", "api_key_env", "max_concurrency", "max_retries", "timeout", "cache")
)


def run(
    main: Callable[..., None],
    description: str | None,
    arguments: list[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Parses the command line, runs the stage and turns a user's mistake into advice and exit code 2.

    Args:
        main: Takes the settings and, if the stage has options of its own, all options.
        description: The stage's docstring.
        arguments: Command line; None takes the program's.
        add_options: Adds the stage's own options to the parser.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_shared_options(parser)
    if add_options:
        add_options(parser)
    options = parser.parse_args(arguments)
    with _one_voice():
        return _run(main, options, own_options=add_options is not None)


def _add_shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="config.yaml", metavar="FILE", help="settings (default: config.yaml)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="key.path=value",
        help="override one setting; may be repeated, for example --set train.learning_rate=1e-4",
    )


@contextmanager
def _one_voice() -> Iterator[None]:
    """Of several processes the first one speaks; what the others write is for the bin, see ``Stage.path``."""
    if not distributed.rank():
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _run(main: Callable[..., None], options: argparse.Namespace, own_options: bool) -> int:
    try:
        settings = load_settings(options.config, options.overrides)
        main(settings, options) if own_options else main(settings)
        distributed.wait_for_all()
        distributed.leave()
    except GateError as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr if not distributed.rank() else sys.__stderr__)
        return 2
    except SafetensorError as error:
        print(f"\nerror: a weights file is damaged, or the disk is full: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"\nerror: {_explain_os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def next_command(stage: str) -> str:
    """The command of another stage with this run's own ``--config`` and ``--set`` arguments."""
    parser = argparse.ArgumentParser(add_help=False)
    _add_shared_options(parser)
    given, _ = parser.parse_known_args(sys.argv[1:])
    config = ["--config", given.config] if given.config != parser.get_default("config") else []
    overrides = [part for override in given.overrides for part in ("--set", override)]
    return shlex.join(["python", SCRIPTS[stage], *config, *overrides])


class Stage:
    """Bookkeeping of one stage: what it read and wrote, its counts and seconds.

    Args:
        number: "01".."05".
        settings: The run's settings; they are saved as ``<run_dir>/<number>_settings.yaml``.

    Raises:
        UserError: ``run_dir`` cannot be written.
    """

    def __init__(self, number: str, settings: Settings) -> None:
        self.number = number
        self.settings = settings
        self.run_dir = Path(settings.run_dir)
        self.started = time.monotonic()
        self.inputs: list[Path] = []
        self.outputs: list[Path] = []
        self._bin = tempfile.TemporaryDirectory() if distributed.rank() else None
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            with atomic_open(self.path(f"{number}_settings.yaml")) as stream:
                stream.write(to_yaml(settings))
        except OSError as error:
            raise UserError(
                f"run_dir {self.run_dir} cannot be written ({error.strerror}); set run_dir to a folder of yours"
            ) from None
        print(f"{SCRIPTS[number]}: {self.run_dir}")

    def path(self, name: str) -> Path:
        """Where to write a file of the run; for all processes but the first a folder that nobody reads."""
        return Path(self._bin.name) / name if self._bin else self.run_dir / name

    def requires(self, number: str, *names: str) -> list[Path]:
        """Files of an earlier stage, after checking that the present settings are the ones that wrote them.

        Raises:
            UserError: A file is missing, or a setting that decided its content has changed.
        """
        command = next_command(number)
        paths = [self.run_dir / name for name in names]
        manifest_path = self.run_dir / f"{number}_manifest.json"
        for path in [*paths, manifest_path]:
            if not path.exists():
                raise UserError(f"{path} is missing. Run stage {number} first:\n  {command}")
        manifest = read_json(manifest_path)
        if not isinstance(manifest, dict) or not {"settings", "outputs"} <= manifest.keys():
            raise UserError(
                f"{manifest_path} is not a manifest of this program. Run stage {number} again:\n  {command}"
            )
        changed = changed_settings(manifest["settings"], self.settings, number)
        if changed:
            listed = "\n".join(f"  - {key}: was {old!r}, is {new!r}" for key, old, new in changed)
            raise UserError(
                f"{self.run_dir} holds stage {number} outputs of other settings:\n{listed}\n"
                f"Run stage {number} again, or keep both by giving this run a run_dir of its own:\n  {command}"
            )
        for path in paths:
            if manifest["outputs"].get(path.name) != sha256(path):
                print(f"  note: {path} was changed after stage {number} wrote it; using it as it is")
        self.inputs += paths
        return paths

    def wrote(self, path: Path) -> None:
        """Notes an output for the manifest and says so."""
        self.outputs.append(path)
        print(f"  wrote {path}")

    def finish(self, counts: dict[str, Any], following: str | None = None) -> None:
        """Writes ``<number>_manifest.json`` and prints the next command."""
        seconds = time.monotonic() - self.started
        manifest = {
            "stage": self.number,
            "settings": flatten(self.settings),
            "inputs": {str(path): sha256(path) for path in self.inputs},
            "outputs": {path.name: sha256(path) for path in self.outputs},
            "counts": counts,
            "seconds": round(seconds, 2),
            "libraries": library_versions(),
        }
        write_json(self.path(f"{self.number}_manifest.json"), manifest)
        print(f"  {seconds:.1f} s")
        if following:
            print(f"next: {next_command(following)}")


def changed_settings(recorded: dict[str, Any], settings: Settings, number: str) -> list[tuple[str, Any, Any]]:
    """Settings that decide what a stage writes and are not what its manifest recorded: ``(key, was, is)``."""
    now = flatten(settings)
    # A setting that came after the manifest: what it stands for by default is what was done then.
    before = {**{key: value for key, value in flatten(Settings()).items() if key in now}, **recorded}
    keys = [key for key in {**recorded, **now} if key.startswith(DECIDES[number]) and key not in NOT_DECIDING]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def _explain_os_error(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    text = f"{name}{error.strerror or error}."
    room, rights = " Free some space or point run_dir at another disk.", " Check the permissions or change run_dir."
    advice = {errno.ENOSPC: room, errno.EDQUOT: room, errno.EACCES: rights, errno.EPERM: rights, errno.EROFS: rights}
    return text + advice.get(error.errno or 0, "")
