"""What the benchmarks share: the settings they measure with, alternation, clean processes, and the report."""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cardioembed.config import Settings
from cardioembed.config_file import load_settings
from cardioembed.errors import UserError
from cardioembed.records import library_versions, write_json

CONFIG = "configs/laptop.yaml"


def run(main: Callable[[argparse.Namespace], None], description: str | None, size: Callable[[Any], Any]) -> int:
    """Parses the command line and runs ``main(options)``; a user's mistake becomes advice and exit code 2.

    Args:
        main: The benchmark.
        description: Its docstring.
        size: Adds the benchmark's own size option to the parser.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="timed runs of each side (default: 5)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all timings")
    size(parser)
    options = parser.parse_args()
    try:
        main(options)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    return 0


def positive(text: str) -> int:
    """An argument of 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def laptop_settings() -> Settings:
    """The shipped sample's settings; benchmarks run from the repository's root."""
    return load_settings(CONFIG)


def loading(settings: Settings) -> dict[str, Any]:
    """The arguments of ``load_embedder`` that the settings hold."""
    return settings.model.model_dump(exclude={"base", "lora", "fine_tuning", "frozen_layers"})


def alternate(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Runs the sides in turn, A B A B, so that a machine that grows slower does so for all of them."""
    results: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(repeats):
        for name, measure in sides.items():
            results[name].append(measure())
            print(f"  {number + 1}/{repeats} {name}", file=sys.stderr)
    return results


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a module-level function in a new interpreter: no state, caches or memory of an earlier measurement."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(_quietly, function, arguments).result()


def _quietly(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function(*arguments)


def peak_memory_mib() -> float:
    """Most memory that this process has held so far, in MiB.

    Linux's VmHWM, which starts anew with the process; ``ru_maxrss`` inherits the parent's.

    Raises:
        UserError: Not on Linux.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        raise UserError("peak memory is read from /proc/self/status, which only Linux has") from None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def process_tree(pid: int) -> list[int]:
    """A process and all below it; none of those that are gone."""
    tree = [pid]
    for parent in tree:
        for tasks in Path("/proc").glob(f"{parent}/task/*/children"):
            with contextlib.suppress(OSError):
                tree += map(int, tasks.read_text().split())
    return tree


def proportional_memory_mib(pid: int) -> float:
    """Memory of a process, pages that it shares with others divided among them; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1024


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder beside ``--out`` that is gone when the block ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=out.parent) as folder:
        yield Path(folder)


def environment(name: str, threads: int) -> dict[str, Any]:
    """What decides the numbers besides the code: command, processor, threads, load, libraries, date; call it first."""
    return {
        "command": shlex.join(["python", "-m", f"bench.{name}", *sys.argv[1:]]),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load_at_start": round(os.getloadavg()[0], 2),
        "started": (time.time(), _waited_for_cpu()),
        "libraries": library_versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _waited_for_cpu() -> float | None:
    """Seconds since boot in which some program waited for a core; None where the kernel does not count them."""
    try:
        text = Path("/proc/pressure/cpu").read_text(encoding="utf-8")
    except OSError:
        return None
    return int(text.split("total=")[1].split()[0]) / 1e6


def _contention(started: tuple[float, float | None]) -> float | None:
    """Share of the time since ``started`` in which some program waited for a core."""
    then, waited = started
    now = _waited_for_cpu()
    return None if waited is None or now is None else round((now - waited) / (time.time() - then), 3)


def versus(rates: dict[str, list[float]], unit: str, against: str | None = None) -> list[dict[str, Any]]:
    """Medians of each side; ``against`` is the one that the ratios refer to, None for the last."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    against = against or list(medians)[-1]
    return [
        {
            "": name,
            f"{unit}, median": f"{medians[name]:,.0f}",
            "lowest": f"{min(values):,.0f}",
            "highest": f"{max(values):,.0f}",
            f"ratio to {against}": f"{medians[name] / medians[against]:.2f}",
        }
        for name, values in rates.items()
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as a table, numbers to the right."""
    header = list(rows[0])
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def report(
    out: Path, title: str, where: dict[str, Any], rows: list[dict[str, Any]], notes: list[str], raw: Any
) -> None:
    """Prints the table with what it was measured on, and writes everything to ``out``."""
    where = dict(where)
    contention = where["contention"] = _contention(where.pop("started"))
    if contention is None:
        notes = [*notes, "whether other programs wanted the cores meanwhile is not known here"]
    else:
        advice = "; repeat it on an idle machine" if contention > 0.1 else ""
        notes = [*notes, f"some program waited for a core in {contention:.0%} of the time{advice}"]
    versions = ", ".join(f"{name} {version}" for name, version in where["libraries"].items())
    print(f"### {title}\n\n    {where['command']}\n")
    print(
        f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads, load {where['load_at_start']} at start;"
    )
    print(f"{versions}; {where['date']}\n")
    print(markdown(rows) + "\n")
    for note in notes:
        print(f"- {note}")
    write_json(out, {"title": title, **where, "table": rows, "notes": notes, "raw": raw})
    print(f"\nwrote {out}")
