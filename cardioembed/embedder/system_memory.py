"""Memory that is free on a device and that this process has taken; sizes are in bytes."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import torch


def available_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Free bytes of a CUDA device, else of the machine or the container; None where neither can be told.

    Args:
        device: Where the base goes; Apple's MPS shares the machine's memory.
        root: Where ``proc`` and ``sys`` are.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return min([int(found[1]) * 1024, *_cgroup_rooms(root)])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS: all of it, free or not
    except (AttributeError, ValueError, OSError):
        return None


def _cgroup_rooms(root: Path) -> list[int]:
    """Bytes left under each memory limit on this process (cgroup v2 and v1); inactive file cache counts as free."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    rooms = []
    for _, controllers, name in groups:
        v1 = "memory" in controllers.split(",")
        if controllers and not v1:
            continue
        limit, used, cache = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if v1
            else ("memory.max", "memory.current", "inactive_file")
        )
        top = root / ("sys/fs/cgroup/memory" if v1 else "sys/fs/cgroup")
        # A container often sees its own group as the top, so every level up to it is asked.
        group = top / name.strip("/")
        for level in [group, *group.parents]:
            if level.is_relative_to(top) and (room := _room(level, limit, used, cache)) is not None:
                rooms.append(room)
    return rooms


def _room(level: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most, now = int((level / limit).read_text()), int((level / used).read_text())
        statistics = dict(line.split() for line in (level / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such level, or the limit is "max"
        return None
    return max(0, most - now + int(statistics.get(cache, 0)))


def peak_bytes(device: torch.device) -> int | None:
    """Most memory held so far: of a CUDA device by torch, else of this process; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
