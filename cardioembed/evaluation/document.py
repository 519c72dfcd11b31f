"""``metrics.json``: every number of an evaluation, in the shape of ``metrics.schema.json``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from cardioembed.evaluation.comparisons import permutation_p_value
from cardioembed.evaluation.statistics import Estimate, Sampling
from cardioembed.evaluation.tasks.base import Measured, Task
from cardioembed.records import library_versions, sha256

SCHEMA_VERSION = 2
GENERALISATION = "generalisation_"
# Names of evaluations of general ability begin so: what a base could do before, and an adapted model may have lost.
GENERAL = ("beir_", "sts_", "mteb_", "clustering_")
IN_DOMAIN = "paraphrase_retrieval"

Results = dict[str, dict[str, Measured]]  # by model, then by task


def metrics_document(
    results: Results, tasks: list[Task], about: dict[str, dict[str, Any]], sampling: Sampling
) -> dict[str, Any]:
    """The content of ``metrics.json``.

    ``models.<model>.<evaluation>.<metric>`` is ``{"value", "ci95", "n", "better"}`` with ``chance`` where there is
    one; ``slices`` has the same on parts of the items, ``generalisation_drop`` the loss against the test split, and
    ``benchmarks`` data revision and prompts of MTEB's tasks.

    Args:
        results: By model and task.
        tasks: What was measured.
        about: What each model is.
        sampling: Of the bootstrap.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "bootstrap": {"resamples": sampling.resamples, "seed": sampling.seed},
        "evaluations": {
            task.name: {"title": task.title, "files": {path.name: sha256(path) for path in task.files}}
            for task in tasks
        },
        "about": about,
        "models": {
            model: {task: _summaries(measured.estimates) for task, measured in found.items()}
            for model, found in results.items()
        },
        "slices": {
            model: {
                task: {part: _summaries(estimates) for part, estimates in measured.slices.items()}
                for task, measured in found.items()
                if measured.slices
            }
            for model, found in results.items()
        },
        "benchmarks": {
            model: {task: measured.details for task, measured in found.items() if task.startswith("mteb_")}
            for model, found in results.items()
        },
        "generalisation_drop": {model: _drops(found) for model, found in results.items()},
        "libraries": library_versions(),
    }


def deltas(before: dict[str, Measured], after: dict[str, Measured], sampling: Sampling) -> dict[str, Any]:
    """Differences on the same items: ``<evaluation>.<metric>`` is ``{"value", "ci95", "n", "better"}``.

    ``p_value`` is that of a permutation test; it is there for measures that are means of items.
    """
    return {
        task: {
            metric: delta_summary(estimate.minus(before[task].estimates[metric]), sampling)
            for metric, estimate in measured.estimates.items()
            if metric in before[task].estimates
        }
        for task, measured in after.items()
        if task in before
    }


def delta_summary(difference: Estimate, sampling: Sampling) -> dict[str, Any]:
    """A difference of two models with its permutation p value."""
    summary = difference.summary()
    if difference.items is not None:
        summary["p_value"] = permutation_p_value(difference.items, difference.clusters, sampling)
    return summary


def _drops(found: dict[str, Measured]) -> dict[str, Any]:
    """How far retrieval falls from the test split to other texts; the two are resampled independently."""
    inside = found[IN_DOMAIN].estimates
    return {
        task: {metric: _drop(inside[metric], measured.estimates[metric]).summary() for metric in ("accuracy@1", "mrr")}
        for task, measured in found.items()
        if task.startswith(GENERALISATION)
    }


def _drop(inside: Estimate, outside: Estimate) -> Estimate:
    # Both were drawn with one seed: reversing one list makes the two draws independent.
    resamples = inside.resamples - outside.resamples[::-1]
    return Estimate(inside.value - outside.value, resamples, outside.n, better="lower")


def _summaries(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {metric: estimate.summary() for metric, estimate in estimates.items()}


def schema() -> dict[str, Any]:
    """The JSON schema of ``metrics.json``."""
    return json.loads(files("cardioembed.evaluation").joinpath("metrics.schema.json").read_text(encoding="utf-8"))
