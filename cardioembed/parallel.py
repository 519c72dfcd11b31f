"""Work spread over processes, in order, with a bounded number of pieces under way."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from cardioembed.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(function: Callable[[Item], Result], items: Iterable[Item], num_proc: int) -> Iterator[Result]:
    """Yields ``function(item)`` in the order of the items, as ``map`` does, from ``num_proc`` processes.

    At most two items a process are taken ahead, so a stream of any length needs little memory.

    Args:
        function: A function of a module: the processes import it.
        items: What to work on; taken in this process.
        num_proc: Processes; 1 works in this one.

    Raises:
        UserError: A process was killed, most likely by a machine short of memory.
    """
    if num_proc == 1:
        yield from map(function, items)
        return
    # Not forked: a forked copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(num_proc, mp_context=context) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(function, item))
                if len(waiting) > 2 * num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                f"one of {num_proc} processes was killed, most likely because memory ran out; "
                "set num_proc lower, for example --set num_proc=1"
            ) from None
        finally:
            for future in waiting:
                future.cancel()
