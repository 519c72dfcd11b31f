"""Several processes that work as one, started by ``torchrun`` or ``accelerate launch``.

All run the same program on the same data, share the chunks of a batch among them, and sum what they computed; only the
first one writes. Without a launcher there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE = timedelta(hours=2)  # a process may wait for the first one to write a large checkpoint


def processes() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0 up; process 0 writes and prints."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its machine: the graphics card it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor, in place and the same bits in each."""
    if processes() > 1:
        _group(tensor.device.type).all_reduce(tensor)
    return tensor


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if processes() > 1:
        _group(None).barrier()


def leave() -> None:
    """Ends the group, if one was begun."""
    if processes() > 1:
        import torch.distributed as group

        if group.is_initialized():
            group.destroy_process_group()


def _group(device: str | None):
    """torch's process group, begun on first use: gloo for the CPU, NCCL for cards."""
    import torch
    import torch.distributed as group

    if not group.is_initialized():
        cards = torch.cuda.is_available() and device != "cpu"
        group.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo", timeout=_PATIENCE)
    return group
