"""Bases that do not fit on one card: their frozen weights are divided among the processes (FSDP)."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from cardioembed import distributed
from cardioembed.embedder.encoder import Embedder
from cardioembed.errors import UserError


def shard_base(embedder: Embedder, device: torch.device) -> None:
    """Divides every frozen weight among the processes; each layer is put together while it computes.

    What trains stays whole in each process, so gradients are summed as without sharding.

    Args:
        embedder: A base with its adapter in this process's memory; layers move to the device one by one.
        device: Where it is to compute.

    Raises:
        UserError: There is one process only.
    """
    if distributed.processes() == 1:
        raise UserError(
            "train.fsdp: one process has nobody to share with; start stage 03 with torchrun --nproc-per-node <cards> "
            "03_train_embedding_model.py ..., or set train.fsdp=false"
        )
    distributed.wait_for_all()  # begins the group
    model = embedder.model
    mesh = init_device_mesh(device.type, (distributed.processes(),))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for parameter in trained:
        parameter.data = parameter.data.to(device)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in [*layers, model]:
        fully_shard(module, mesh=mesh, ignored_params=trained)
    embedder.device, embedder.sharded = device, True
