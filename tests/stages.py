"""Runs the stage scripts as commands, as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGE_01, STAGE_02 = "01_merge_paraphrases.py", "02_prepare_training_data.py"


def run(script, *arguments, hash_seed="random"):
    command = [sys.executable, script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def succeed(script, *arguments, **options):
    done = run(script, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(script, *arguments):
    done = run(script, *arguments)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode == 2, done.stderr
    return done.stderr


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sets(**values):
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
