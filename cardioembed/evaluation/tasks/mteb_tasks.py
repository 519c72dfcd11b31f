"""Tasks of the MTEB benchmark by name, run by the ``mteb`` package on its own data.

The scores are mteb's; what mteb averages is kept for each query or pair, so that there are intervals and paired tests.
"""

from __future__ import annotations

import copy
import difflib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.evaluation.ranking import finite
from cardioembed.evaluation.similarity import sts_estimates
from cardioembed.evaluation.statistics import Estimate, Sampling, bootstrap_means, item_estimates
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.records import read_json

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

TESTED_VERSION = "2.26.24"
# Names of the measures in trec_eval, which mteb runs and whose values it gives for each query.
_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
_MEASURE = re.compile(r"(ndcg|map|recall|precision|hit_rate|mrr)_at_(\d+)")
_MEASURES = ("ndcg_at_10", "recall_at_10", "recall_at_100", "map_at_1000", "mrr_at_10")
_STS_MEASURE = "cosine_spearman"

Part = tuple[str, str]  # subset (most often a language) and split, as mteb names them
Items = dict[str, dict[str, float]]  # values by measure, by query


@dataclass(frozen=True)
class LoadedTask:
    """A task of mteb with its data, which prints as its name.

    Attributes:
        task: An ``AbsTask`` of mteb.
        name: Its name, with ``_subset`` if only one is measured.
    """

    task: Any
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class MtebTask:
    """One task of mteb: its main score and the usual measures beside it.

    A task of several subsets and splits is scored as mteb does, by the mean over them; each is a slice too.
    Details: a dict that can be written as JSON, with data revision, prompts, version of mteb and its own main score.
    """

    task: LoadedTask
    name: str
    title: str
    files: Sequence[Path] = ()

    def measure(self, embedder: Embedder, sampling: Sampling) -> Measured:
        """See ``Task``."""
        from mteb.abstasks import AbsTaskRetrieval

        task = copy.copy(self.task.task)  # what is set on it below ends with this call; the data are shared
        run = _measure_retrieval if isinstance(task, AbsTaskRetrieval) else _measure_sts
        measured, main_score = run(task, embedder, sampling)
        details = {**describe(task, embedder), "mteb_main_score": main_score}
        return Measured(measured.estimates, measured.slices, details)


class MtebEncoder:
    """An embedder as mteb's ``EncoderProtocol``: queries as anchors, everything else as positives.

    Texts of symmetric tasks carry the prompt of documents on both sides, as in the project's own ones.
    """

    def __init__(self, embedder: Embedder) -> None:
        from mteb.models.model_meta import ModelMeta

        self.embedder = embedder
        self.mteb_model_meta = ModelMeta.create_empty()

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Vectors of all texts of a loader, float32, shape (n, dimension).

        Args:
            inputs: Yields batches with a list of texts as ``text``.
            prompt_type: mteb's ``PromptType``, None for a symmetric task.

        Raises:
            UserError: A vector that is not finite.
        """
        recipe = self.embedder.recipe
        query = prompt_type is not None and prompt_type.value == "query"
        texts = [text for batch in inputs for text in batch["text"]]
        prompt_name = recipe.anchor_prompt if query else recipe.positive_prompt
        return finite(self.embedder.encode(texts, prompt_name=prompt_name))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosine of every vector of the one with every one of the other."""
        return self.embedder.similarity(np.asarray(embeddings1), np.asarray(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosine of each vector with its counterpart."""
        return (np.asarray(embeddings1) * np.asarray(embeddings2)).sum(1)


def find_mteb_tasks(names: list[str]) -> list[LoadedTask]:
    """Tasks by name with their data, from the Hugging Face cache or hub; nothing is imported where none is named.

    Args:
        names: As mteb knows them; ``PublicHealthQA:english`` takes one subset of a task that has several.

    Raises:
        UserError: mteb is not installed, no such task or subset, a kind of task that gives no interval, a task that
            is named twice, or data that cannot be had.
    """
    if not names:
        return []
    if not find_spec("mteb"):
        raise UserError(
            f"evaluate.mteb: mteb is not installed; pip install mteb=={TESTED_VERSION}, or empty evaluate.mteb"
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"evaluate.mteb: {twice!r} is named twice; name it once")
    tasks = [_find(name) for name in names]
    missing = [reason for task in tasks if (reason := _load(task.task))]
    if missing:
        raise UserError(
            "evaluate.mteb: the data of these tasks cannot be loaded. They come by themselves where the Hugging Face "
            "Hub can be reached (and HF_HUB_OFFLINE is not set); elsewhere, fetch them with the commands below and put "
            "the folder, under the same name, where you run this command. Or leave the tasks out.\n"
            + "\n".join(missing)
        )
    return tasks


def _find(name: str) -> LoadedTask:
    """A task without its data."""
    import mteb

    task_name, _, subset = name.partition(":")
    try:
        task = mteb.get_task(task_name)
    except KeyError:
        names = [kind.metadata.name for kind in vars(mteb.tasks).values() if hasattr(kind, "metadata")]
        known = {name.lower(): name for name in names}
        near = difflib.get_close_matches(task_name.lower(), known, cutoff=0.5)
        close = [known[name] for name in near] or ["see mteb.get_tasks()"]
        raise UserError(f"evaluate.mteb: mteb has no task {task_name!r}; closest: {', '.join(close)}") from None
    if subset and subset not in task.hf_subsets:
        allowed = ", ".join(task.hf_subsets)
        raise UserError(f"evaluate.mteb: {task_name} has no subset {subset!r}; allowed: {allowed}")
    _check_supported(task)
    task.hf_subsets = [subset] if subset else task.hf_subsets
    return LoadedTask(task, f"{task_name}_{subset}" if subset else task_name)


def _check_supported(task: Any) -> None:
    from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS

    about = task.metadata
    retrieval = isinstance(task, AbsTaskRetrieval) and _MEASURE.fullmatch(about.main_score)
    similarity = isinstance(task, AbsTaskSTS) and about.main_score == _STS_MEASURE
    if not (retrieval or similarity) or list(about.modalities) != ["text"]:
        raise UserError(
            f"evaluate.mteb: {about.name} is of type {about.type} ({', '.join(about.modalities)}) with main score "
            f"{about.main_score}, of which mteb gives no values by item, so no interval; supported are tasks on texts: "
            f"Retrieval and Reranking (nDCG, MAP, recall, precision, hit rate, MRR), and STS ({_STS_MEASURE})"
        )


def _load(task: Any) -> str | None:
    """Loads a task's data; which are missing and how to get them if that fails."""
    try:
        task.load_data()
    except Exception as error:  # datasets has a dozen kinds for data that are not there, from OSError to ValueError
        path, revision = task.metadata.dataset["path"], task.metadata.dataset["revision"]
        return (
            f"  {task.metadata.name}: {path}, revision {revision} ({error})\n"
            f"    hf download {path} --repo-type dataset --revision {revision} --local-dir {path}"
        )
    return None


def describe(task: Any, embedder: Embedder) -> dict[str, Any]:
    """What was run, on which data and with which prompts, JSON-ready."""
    about, recipe = task.metadata, embedder.recipe
    return {
        "task": about.name,
        "type": about.type,
        "main_score": about.main_score,
        "dataset": about.dataset["path"],
        "revision": about.dataset["revision"],
        "subsets": list(task.hf_subsets),
        "splits": list(task.eval_splits),
        "prompts": {
            "query": embedder.prompt_text(recipe.anchor_prompt),
            "document": embedder.prompt_text(recipe.positive_prompt),
        },
        "mteb": version("mteb"),
    }


def _run(task: Any, embedder: Embedder, predictions: Path | None = None) -> float:
    """Runs a task without writing or reading results; returns mteb's main score."""
    import mteb

    with _no_bars():
        result = mteb.evaluate(
            MtebEncoder(embedder), task, cache=None, co2_tracker=False, show_progress_bar=False,
            prediction_folder=predictions,
        )  # fmt: skip
    return float(result.task_results[0].get_score())


@contextmanager
def _no_bars() -> Iterator[None]:
    """A block in which datasets shows no progress bars."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _measure_retrieval(task: Any, embedder: Embedder, sampling: Sampling) -> tuple[Measured, float]:
    parts: dict[Part, Items] = {}
    own_scores, names = task.task_specific_scores, list(dict.fromkeys((task.metadata.main_score, *_MEASURES)))

    def keep(scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> dict[str, float]:
        # mteb hands a task the values of each query here, for scores of its own, and averages them afterwards.
        items = parts.setdefault((hf_subset, hf_split), {})
        for query, found in sorted(scores.items()):
            ranked = _ranked(results[query])[task.skip_first_result :]
            values = {name: _value(name, found, qrels[query], ranked) for name in names}
            items[query] = {name: value for name, value in values.items() if value is not None}
        return own_scores(scores, qrels, results, hf_split, hf_subset)

    task.task_specific_scores = keep
    main_score = _run(task, embedder)
    slices = {_part_name(part): item_estimates(_columns(items), sampling) for part, items in parts.items()}
    estimates = mean_of_parts(list(parts.values()), sampling)
    return Measured(estimates, slices if len(parts) > 1 else {}), main_score


def _ranked(found: dict[str, float]) -> list[str]:
    """Document ids, best first; equal scores in mteb's order, the greatest id first."""
    return sorted(found, key=lambda document: (found[document], document), reverse=True)


def _value(name: str, scores: dict[str, float], judged: dict[str, int], ranked: list[str]) -> float | None:
    """One measure of one query; None if the task does not look at that depth."""
    measure, depth = name.split("_at_")
    if measure == "mrr":
        return next((1 / rank for rank, d in enumerate(ranked[: int(depth)], 1) if judged.get(d, 0) > 0), 0.0)
    return scores.get(f"{_TREC[measure]}_{depth}")


def _columns(items: Items) -> dict[str, np.ndarray]:
    """Values of all queries by measure, under the project's names (``ndcg@10``)."""
    rows = list(items.values())
    return {name.replace("_at_", "@"): np.array([row[name] for row in rows]) for name in rows[0]}


def mean_of_parts(parts: list[Items], sampling: Sampling) -> dict[str, Estimate]:
    """Means over the parts of a task of the means over their queries; each part counts the same.

    Queries are resampled by id in all parts together, as one may be in several (all topics and its own one, or
    translated). Values of items are scaled so that their mean over the n different queries is the measure.
    """
    queries = sorted({query for part in parts for query in part})
    row = {query: i for i, query in enumerate(queries)}
    present = np.zeros((len(queries), len(parts)))
    columns = [_columns(part) for part in parts]
    values = {name: np.zeros(present.shape) for name in columns[0]}
    for number, part in enumerate(parts):
        rows = [row[query] for query in part]
        present[rows, number] = 1
        for name in values:
            values[name][rows, number] = columns[number][name]
    drawn = bootstrap_means(
        np.concatenate([present, *values.values()], axis=1), resamples=sampling.resamples, seed=sampling.seed
    )
    sizes, *sums = np.split(drawn, 1 + len(values), axis=1)
    estimates = {}
    for (name, found), total in zip(values.items(), sums, strict=True):
        items = (found / present.mean(0)).mean(1)
        # A small part may have no query in a draw; the mean is then over the others.
        means = np.divide(total, sizes, out=np.full(total.shape, np.nan), where=sizes > 0)
        estimates[name] = Estimate(float(items.mean()), np.nanmean(means, axis=1), len(queries), items=items)
    return estimates


def _measure_sts(task: Any, embedder: Embedder, sampling: Sampling) -> tuple[Measured, float]:
    with tempfile.TemporaryDirectory() as folder:
        main_score = _run(task, embedder, Path(folder))
        predictions = read_json(Path(folder) / task.prediction_file_name)
    parts: dict[Part, dict[str, Estimate]] = {}
    for subset in task.hf_subsets:
        for split in task.eval_splits:
            rows = task.dataset[split] if subset not in task.dataset else task.dataset[subset][split]
            cosines, scores = np.array(predictions[subset][split]["cosine_scores"]), np.array(rows["score"], float)
            # Parts are different pairs: each is drawn for itself.
            parts[subset, split] = sts_estimates(
                cosines, scores, Sampling(sampling.resamples, sampling.seed + len(parts))
            )
    slices = {_part_name(part): estimates for part, estimates in parts.items()}
    found = list(parts.values())
    estimates = {name: _mean_estimate([estimates[name] for estimates in found]) for name in found[0]}
    return Measured(estimates, slices if len(parts) > 1 else {}), main_score


def _mean_estimate(parts: list[Estimate]) -> Estimate:
    resamples = np.mean([part.resamples for part in parts], axis=0)
    return Estimate(float(np.mean([part.value for part in parts])), resamples, sum(p.n for p in parts), chance=0.0)


def _part_name(part: Part) -> str:
    return f"subset={part[0]}, split={part[1]}"
