"""What turns a text into a vector besides weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cardioembed.embedder.bases import Traits
from cardioembed.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """All that turns a text into a vector besides weights; it is saved with the model.

    Attributes:
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        max_length: Longest text in tokens.
        prompts: Text put before a text, by prompt name.
        anchor_prompt: Name of the prompt of anchors (queries) in symmetric pairs, None for none.
        positive_prompt: Name of the prompt of positives (documents), None for none.
        quantization: ``none``, ``int8`` or ``nf4``: how the base is held in memory.
        dtype: Type of the base's other weights.
        attn_implementation: As asked for at loading.
        llm_int8_threshold: Of ``int8``, see ``load_base``.
    """

    pooling: str
    max_length: int
    prompts: dict[str, str] = field(default_factory=dict)
    anchor_prompt: str | None = None
    positive_prompt: str | None = None
    quantization: str = "none"
    dtype: str = "float32"
    attn_implementation: str = "auto"
    llm_int8_threshold: float = 6.0


def choose_recipe(
    traits: Traits, max_length: int, anchor: str | None, positive: str | None, name: str, loading: dict[str, Any]
) -> Recipe:
    """The recipe of a base.

    Args:
        traits: What the base's files say.
        max_length: Longest text in tokens.
        anchor, positive: ``auto``, None, or the text of the prompt itself.
        name: Of the base, for the error.
        loading: The recipe's attributes of how the base is loaded.

    Raises:
        UserError: The first token of a language model would be pooled.
    """
    if traits.causal and traits.pooling == "cls":
        raise UserError(
            f"model.pooling: cls is not usable with {name}: the first token of a language model sees no other; "
            "choose lasttoken or mean"
        )
    prompts = dict(traits.prompts)
    names: list[str | None] = []
    for side, value, own in (
        ("anchor", anchor, traits.pair_prompts[0]),
        ("positive", positive, traits.pair_prompts[1]),
    ):
        if value == "auto":
            names.append(own)
        elif not value:
            names.append(None)
        else:
            prompts[side] = value
            names.append(side)
    return Recipe(
        pooling=traits.pooling,
        max_length=max_length,
        prompts=prompts,
        anchor_prompt=names[0],
        positive_prompt=names[1],
        **loading,
    )
