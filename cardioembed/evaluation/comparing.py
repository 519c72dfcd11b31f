"""Several models on the same tasks: one table, wins, ranks, tests of all pairs, and what each gained and lost."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from cardioembed.config import Settings
from cardioembed.embedder.encoder import Embedder, load_embedder
from cardioembed.embedder.saving import load_model
from cardioembed.errors import UserError
from cardioembed.evaluation.comparisons import correlation, separation_tests
from cardioembed.evaluation.document import Results, deltas, metrics_document
from cardioembed.evaluation.evaluating import describe
from cardioembed.evaluation.report import Outcome
from cardioembed.evaluation.statistics import Estimate, Sampling
from cardioembed.evaluation.suite import measure
from cardioembed.evaluation.tables import NOT_SKILL
from cardioembed.evaluation.tasks.base import Task
from cardioembed.records import read_json


@dataclass(frozen=True)
class Spec:
    """A model to compare.

    Attributes:
        label: Its name in tables.
        place: Folder or hub id.
        adapted: Whether it is a trained model, whose base is measured beside it.
    """

    label: str
    place: str
    adapted: bool


def find_models(places: list[str]) -> list[Spec]:
    """Run folders, model folders and bases, each with a label of its own.

    Raises:
        UserError: A run without a model, or two models that would have one label.
    """
    specs = []
    for place in places:
        folder = Path(place)
        model = folder / "03_model" if (folder / "03_manifest.json").exists() else folder
        if (folder / "02_manifest.json").exists() and not (folder / "03_model").exists():
            raise UserError(f"--models: {place} is a run without a trained model; run stage 03 there first")
        adapted = (model / "cardioembed.json").is_file()
        name = folder.parent.name if folder.name == "03_model" else folder.name.split("@")[0]
        specs.append(Spec(name, str(model if adapted else place), adapted))
    labels = [spec.label for spec in specs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(f"--models: two models are called {twice[0]!r}; rename a folder, or leave one out")
    return specs


def compare(
    specs: list[Spec], tasks: list[Task], sampling: Sampling, settings: Settings, *, training_sha256: str
) -> Outcome:
    """Measures all models, one after another in memory.

    Args:
        specs: From ``find_models``.
        tasks, sampling: See ``suite``.
        settings: Device, and for bases dtype, quantization and length.
        training_sha256: Of this run's training triplets: a model trained on others may have seen test texts.

    Raises:
        UserError: No model could be measured; some that could not are listed in the document.
    """
    results: Results = {}
    about: dict[str, dict[str, Any]] = {}
    base_of: dict[str, str] = {}
    failures: dict[str, str] = {}
    for spec in sorted(specs, key=lambda spec: spec.adapted):  # a base that is given serves its adapted models as well
        print(spec.label)
        try:
            _measure_with_base(spec, tasks, sampling, settings, results, about, base_of)
        except (UserError, RuntimeError) as error:  # RuntimeError: out of memory, or a kernel that this card lacks
            failures[spec.label] = str(error).splitlines()[0]
            print(f"  {spec.label} could not be measured: {error}")
            continue
        if spec.adapted:
            _note_other_training(spec, training_sha256)
        gc.collect()
    if not results:
        told = "; ".join(f"{label}: {reason}" for label, reason in failures.items())
        raise UserError(f"--models: none could be measured: {told}")
    document = metrics_document(results, tasks, about, sampling)
    document["comparison"] = {
        "base_of": base_of,
        "failures": failures,
        "deltas": {label: deltas(results[base], results[label], sampling) for label, base in base_of.items()},
        "head_to_head": head_to_head(results),
        "ranks": ranks(results),
        **_separation(results, about),
    }
    return Outcome(document, results, tasks)


def _measure_with_base(
    spec: Spec,
    tasks: list[Task],
    sampling: Sampling,
    settings: Settings,
    results: Results,
    about: dict[str, dict[str, Any]],
    base_of: dict[str, str],
) -> None:
    """Adds a model and, if it is adapted and its base is not there yet, its base."""
    embedder = _open(spec, settings)
    if spec.adapted:
        with embedder.without_adapter():
            base = describe(embedder, adapted=False)
            label = _base_label(embedder.base.name, base, about)
            if label not in results:
                results[label] = measure(embedder, tasks, sampling)
                about[label] = base
    measured = measure(embedder, tasks, sampling)
    about[spec.label], results[spec.label] = describe(embedder, adapted=spec.adapted), measured
    if spec.adapted:
        base_of[spec.label] = label


def _open(spec: Spec, settings: Settings) -> Embedder:
    """The model; a base by the run's own dtype, quantisation, length and device."""
    if spec.adapted:
        return load_model(spec.place, device=settings.device, trust_remote_code=settings.model.trust_remote_code)
    kept = ("quantization", "dtype", "max_length", "llm_int8_threshold", "trust_remote_code")
    return load_embedder(spec.place, device=settings.device, **{key: getattr(settings.model, key) for key in kept})


def _base_label(name: str, base: dict[str, Any], about: dict[str, dict[str, Any]]) -> str:
    """The label of an adapted model's base; one that is measured already with the same recipe keeps its label."""
    for label, known in about.items():
        if known == base:
            return label
    short = Path(name).name
    taken = sum(label.startswith(f"{short} (base") for label in about)
    return f"{short} (base)" if not taken else f"{short} (base {taken + 1})"


def _note_other_training(spec: Spec, training_sha256: str) -> None:
    own = read_json(Path(spec.place) / "cardioembed.json")["training"].get("training_data_sha256")
    if own != training_sha256:
        print(f"  note: {spec.label} was trained on other triplets than this run's; it may have seen test sentences")


def head_to_head(results: Results) -> dict[str, dict[str, dict[str, int]]]:
    """Wins of each model over each other, over all metrics that have a better side (MedEmbed's table).

    Returns:
        ``[a][b]`` is ``{"wins", "clear_wins", "metrics"}``: how often a is better than b, how often with a 95 %
        interval of the difference that leaves out zero, and of how many.
    """
    table: dict[str, dict[str, dict[str, int]]] = {model: {} for model in results}
    for one, other in permutations(results, 2):
        count = {"wins": 0, "clear_wins": 0, "metrics": 0}
        for _, _, mine, theirs in _shared(results, one, other):
            sign = 1 if mine.better == "higher" else -1
            difference = mine.minus(theirs)
            count["metrics"] += 1
            count["wins"] += sign * difference.value > 0
            count["clear_wins"] += min(sign * limit for limit in difference.interval()) > 0
        table[one][other] = count
    return table


def _shared(results: Results, one: str, other: str) -> list[tuple[str, str, Estimate, Estimate]]:
    """Metrics of skill that both models have."""
    return [
        (task, metric, estimate, results[other][task].estimates[metric])
        for task, measured in results[one].items()
        if task in results[other] and task not in NOT_SKILL
        for metric, estimate in measured.estimates.items()
        if estimate.better and metric in results[other][task].estimates
    ]


def ranks(results: Results) -> dict[str, dict[str, dict[str, int]]]:
    """Ranks by interval: one more than the models whose interval is wholly better; equal ranks are not told apart.

    Returns:
        ``[evaluation][metric][model]``, 1 is best.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for model, measured in results.items():
        for task, one in measured.items():
            for metric, estimate in one.estimates.items():
                if estimate.better:
                    rank = 1 + sum(
                        _wholly_better(other[task].estimates[metric], estimate)
                        for other in results.values()
                        if task in other and metric in other[task].estimates
                    )
                    found.setdefault(task, {}).setdefault(metric, {})[model] = rank
    return found


def _wholly_better(one: Estimate, other: Estimate) -> bool:
    (low, high), (other_low, other_high) = one.interval(), other.interval()
    return low > other_high if one.better == "higher" else high < other_low


def _separation(results: Results, about: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The comparison paper's tests: Welch t of all pairs, and separation against dimension and parameters."""
    cosines = {m: found["concept_separation"].details for m, found in results.items() if "concept_separation" in found}
    if len(cosines) < 2:
        return {}
    values = [results[model]["concept_separation"].estimates["separation"].value for model in cosines]
    return {
        "separation_tests": separation_tests(cosines),
        "separation_correlations": {
            trait: correlation([about[model][trait] for model in cosines], values)
            for trait in ("dimension", "parameters")
        },
    }
