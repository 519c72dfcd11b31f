"""LoRA adapters: attaching, checking, saving."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from cardioembed.errors import UserError

QUERY_VALUE = ("query", "value", "q_proj", "v_proj", "q", "v")


def attach_lora(
    model: PreTrainedModel,
    *,
    r: int,
    lora_alpha: int,
    lora_dropout: float,
    target_modules: str | list[str],
    base_reference: str,
    revision: str | None,
    use_rslora: bool = False,
    use_dora: bool = False,
) -> PeftModel:
    """Adds a float32 LoRA adapter whatever the base's dtype.

    Args:
        model: The frozen base.
        r, lora_alpha, lora_dropout, use_rslora, use_dora: As in PEFT.
        target_modules: ``all-linear`` (every linear of attention and feed-forward), ``query-value``, or names.
        base_reference: Written into the adapter, so that PEFT and sentence-transformers find the base.
        revision: The base's hub commit.

    Raises:
        UserError: No module has one of the names.
    """
    names = linear_names(model)
    wanted = target_modules
    if target_modules == "all-linear":
        wanted = sorted(names)
    elif target_modules == "query-value":
        wanted = sorted(names.intersection(QUERY_VALUE))
    unknown = set(wanted) - names
    if unknown or not wanted:
        raise UserError(
            f"model.lora.target_modules: {sorted(unknown) or target_modules} is not in this base; its linears are: "
            f"{', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        use_rslora=use_rslora,
        use_dora=use_dora,
        target_modules=wanted,
        exclude_modules=_unused_heads(model) or None,
        task_type=TaskType.FEATURE_EXTRACTION,
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = base_reference
    adapted.peft_config["default"].revision = revision
    return adapted.eval()


def _unused_heads(model: nn.Module) -> list[str]:
    """BERT's pooler, which no pooling here reads; a target named "dense" would match it."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and "pooler" in name]


def linear_names(model: nn.Module) -> set[str]:
    """Last parts of the names of all linears inside the layers (quantised ones are subclasses of ``nn.Linear``)."""
    linears = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {name.rsplit(".", 1)[-1] for name in linears if "pooler" not in name}


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Loads a saved adapter onto its base.

    Raises:
        UserError: Weights of the file do not fit the base, or the base expects others: the adapter of another base; or
            the file is damaged.
    """
    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except SafetensorError as error:
        raise UserError(
            f"{folder / 'adapter_model.safetensors'} is damaged ({error}); restore it, or train again with stage 03"
        ) from None
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: the adapter does not fit its base ({reason}); it belongs to another base") from None
    saved = set(load_file(folder / "adapter_model.safetensors"))
    expected = {name.replace(".default", "") for name in adapter_weights(adapted)}
    if saved != expected:
        odd = sorted(saved ^ expected)
        raise UserError(f"{folder}: {len(odd)} adapter weights do not match the base, for example {odd[0]}")
    return adapted.eval()


def adapter_weights(model: PeftModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name: the adapter's, or all of a fully fine-tuned model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def untouched_adapters(model: PeftModel) -> list[str]:
    """Names of lora_B weights that are still zero: the adapter changed nothing there."""
    return [n for n, p in adapter_weights(model).items() if "lora_B" in n and not torch.count_nonzero(p)]


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """``(trainable, total)`` parameters; a 4-bit weight counts as the two numbers that it packs."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() * (2 if p.__class__.__name__ == "Params4bit" else 1) for p in model.parameters())
    return trainable, total


def train_everything(model: PreTrainedModel, frozen_layers: int | None = None) -> PreTrainedModel:
    """Makes every parameter train except BERT's pooler, which no pooling here reads, and the lowest layers.

    Args:
        model: The base.
        frozen_layers: None freezes nothing; 0 the embeddings; n the embeddings and the lowest n layers.

    Raises:
        UserError: The base has no more layers than that.
    """
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    stack = max(lists, key=lists.get)
    layers = [f"{stack}.{number}" for number in range(lists[stack])]
    if frozen_layers is not None and frozen_layers >= len(layers):
        raise UserError(
            f"model.frozen_layers: {frozen_layers} would freeze all {len(layers)} layers of this base; give 0 (its "
            f"embeddings) to {len(layers) - 1}, or null"
        )
    first_trained = None if frozen_layers is None else layers[frozen_layers]
    below = first_trained is not None
    for name, parameter in model.named_parameters():  # in the order of the data's way through the model
        below = below and not name.startswith(f"{first_trained}.")
        parameter.requires_grad_("pooler" not in name and not below)
    return model
