"""Base and adapted model on all tasks: one set of weights, adapter off and on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cardioembed.config import Settings
from cardioembed.embedder.encoder import Embedder
from cardioembed.embedder.saving import load_model
from cardioembed.evaluation.document import deltas, metrics_document
from cardioembed.evaluation.report import Outcome
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.suite import measure
from cardioembed.evaluation.tasks.base import Task
from cardioembed.evaluation.tasks.efficiency import active_parameters

BASE, ADAPTED = "base", "adapted"


def evaluate(model_path: Path, tasks: list[Task], sampling: Sampling, settings: Settings) -> Outcome:
    """Measures the model of a run and its base.

    Raises:
        UserError: The folder is not a model, or does not give the vectors that it was saved with.
    """
    embedder = load_model(model_path, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    about, results = {}, {}
    with embedder.without_adapter():
        about[BASE], results[BASE] = describe(embedder, adapted=False), measure(embedder, tasks, sampling)
    about[ADAPTED], results[ADAPTED] = describe(embedder, adapted=True), measure(embedder, tasks, sampling)
    document = metrics_document(results, tasks, about, sampling)
    document["delta"] = deltas(results[BASE], results[ADAPTED], sampling)
    return Outcome(document, results, tasks)


def describe(embedder: Embedder, *, adapted: bool) -> dict[str, Any]:
    """What a model is: its base, revision, recipe and size."""
    recipe = embedder.recipe
    return {
        "base": embedder.base.name,
        "revision": embedder.base.revision,
        "adapted": adapted,
        "dimension": embedder.dimension,
        "parameters": active_parameters(embedder.model),
        "pooling": recipe.pooling,
        "max_length": recipe.max_length,
        "quantization": recipe.quantization,
        "dtype": recipe.dtype,
        "anchor_prompt": embedder.prompt_text(recipe.anchor_prompt),
        "positive_prompt": embedder.prompt_text(recipe.positive_prompt),
    }
