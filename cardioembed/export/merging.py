"""An adapter merged into its base's unquantised weights, and how far the vectors moved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from cardioembed.embedder.adapters import load_adapter
from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.loading import load_base
from cardioembed.errors import UserError

# Highest 1 - cosine that is let pass unasked, by what the adapter was trained on. Leaving a quantisation takes its own
# error out of the vectors: on all-MiniLM-L6-v2 up to 0.0015 (int8) and 0.05 (nf4), less on larger bases.
MAX_DRIFT = {"none": 0.001, "int8": 0.01, "nf4": 0.08}
DRIFT_TEXTS = (
    "Bisoprolol",
    "ECG",
    "LVEF <35 %",
    "No thrombus was seen in the left atrial appendage.",
    "Severe aortic stenosis with a mean gradient of 48 mmHg and preserved ejection fraction.",
    "The patient denies chest pain, dyspnoea or palpitations.",
    "Which patients with atrial fibrillation need an anticoagulant?",
    "Apixaban 5 mg twice daily; 2.5 mg twice daily if two of age >=80, weight <=60 kg, creatinine >=133 µmol/L.",
    "ST elevation in II, III and aVF with reciprocal depression in I and aVL points to the right coronary artery.",
    "Loop diuretics relieve congestion but do not prolong life, whereas beta-blockers, mineralocorticoid antagonists "
    "and SGLT2 inhibitors do so in heart failure with reduced ejection fraction.",
    "A short PR interval, a delta wave and a broad QRS complex show pre-excitation over an accessory pathway; in "
    "atrial fibrillation such a pathway can conduct fast enough to end in ventricular fibrillation, so that drugs "
    "which block the atrioventricular node alone are to be avoided and an unstable patient is cardioverted.",
    "Tetralogy of Fallot joins a ventricular septal defect, an overriding aorta, right ventricular outflow obstruction "
    "and right ventricular hypertrophy.",
    "Die Mitralklappeninsuffizienz wurde mittels TEER behandelt.",
    "The invoice is due within thirty days of delivery.",
)


@dataclass(frozen=True)
class Drift:
    """How far vectors moved, as 1 - cosine.

    Attributes:
        texts: How many were compared.
        mean, worst: Over them.
        worst_text: Where the worst was.
    """

    texts: int
    mean: float
    worst: float
    worst_text: str


def encode_sides(embedder: Embedder, texts: list[str]) -> np.ndarray:
    """Vectors of the texts with each of the prompts that the model gives anchors and positives, one after the other.

    Returns:
        Shape (prompts * texts, dimension); prompts is 1 where both sides have the same.
    """
    sides = dict.fromkeys((embedder.recipe.anchor_prompt, embedder.recipe.positive_prompt))
    return np.concatenate([embedder.encode(texts, prompt_name=side) for side in sides])


def measure_drift(before: np.ndarray, after: np.ndarray, texts: list[str]) -> Drift:
    """Compares two models' vectors of the same texts; arguments as ``encode_sides`` gives and takes them."""
    moved = 1 - (before.astype(np.float64) * after).sum(1)
    moved[~np.isfinite(moved)] = 2  # as far as two unit vectors can be apart
    worst = int(moved.argmax())
    return Drift(len(texts), max(0.0, float(moved.mean())), max(0.0, float(moved[worst])), texts[worst % len(texts)])


def refuse_drift(drift: Drift, limit: float, quantization: str) -> None:
    """Raises if the worst text moved more than the limit."""
    if drift.worst > limit:
        shown = drift.worst_text if len(drift.worst_text) <= 80 else drift.worst_text[:77] + "..."
        cause = "" if quantization == "none" else f" The adapter was trained on {quantization}, whose error it knows."
        raise UserError(
            f"the merged model's vectors drift from the adapter model's by up to {drift.worst:.2g} (1 - cosine; mean "
            f"{drift.mean:.2g} over {drift.texts} texts), more than {limit:g}; worst: {shown!r}.{cause} Nothing was "
            "written. Take --dtype float32, keep the model as stage 03 wrote it, or evaluate the merged model with "
            "stage 04 after --max-drift with a higher limit"
        )


def merged_model(embedder: Embedder, folder: Path, dtype: str) -> Embedder:
    """A trained model with whole weights.

    Args:
        embedder: From ``load_model``. It gives up its model: where that has an adapter, the base is loaded again,
            unquantised, in its place.
        folder: Where the model was loaded from.
        dtype: Of the weights.

    Raises:
        UserError: The base is stored quantised, or the merged weights are not finite in ``dtype``.
    """
    recipe = replace(embedder.recipe, quantization="none", dtype=dtype)
    if isinstance(embedder.model, PeftModel):
        embedder.model = nn.Module()  # its memory is needed
        base = load_base(
            embedder.base,
            quantization="none",
            dtype=dtype,
            attn_implementation=recipe.attn_implementation,
            max_length=recipe.max_length,
            trust_remote_code=False,
            device=embedder.device,
        )
        if getattr(base.config, "quantization_config", None) is not None:
            raise UserError(
                f"{embedder.base.name} is stored quantised; an adapter is merged into unquantised weights only. Give "
                "the unquantised base with --base"
            )
        model = merge_adapter(load_adapter(base, folder))
    else:
        model = _cast(embedder.model, dtype)
    return Embedder(model, embedder.tokenizer, recipe, embedder.base, embedder.device)


def merge_adapter(adapted: PeftModel) -> PreTrainedModel:
    """Merges a LoRA, rsLoRA or DoRA adapter into its base, which becomes the merged model.

    The sum is taken in float32, one layer at a time, and rounded once to the layer's dtype.

    Raises:
        UserError: A merged weight is not finite.
    """
    for name, layer in adapted.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        linear = layer.get_base_layer()
        dtype = linear.weight.dtype
        if not dtype.is_floating_point:
            raise ValueError(f"{name} is quantised ({dtype}); merging in place would round the adapter away")
        linear.float()
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise UserError(f"{name}: {error}; train the model again with stage 03") from None
        linear.to(dtype)
        _refuse_non_finite(linear.weight.isfinite().all(), name, dtype)
    return adapted.unload().requires_grad_(False).eval()


def _cast(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    model = model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    for name, weight in model.named_parameters():
        _refuse_non_finite(weight.isfinite().all(), name, dtype)
    return model


def _refuse_non_finite(finite: object, name: str, dtype: object) -> None:
    if not finite:
        kind = str(dtype).removeprefix("torch.")
        raise UserError(f"{name} is too large for {kind}; take --dtype bfloat16 or float32. Nothing was written")
