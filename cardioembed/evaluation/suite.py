"""Which tasks a run has, read and checked before a model loads, and one model measured on all of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from cardioembed.config import EvaluateSettings
from cardioembed.evaluation.statistics import Sampling
from cardioembed.evaluation.tasks.base import Measured, Task, unique_names
from cardioembed.evaluation.tasks.beir import BeirRetrieval, load_beir
from cardioembed.evaluation.tasks.bias import BiasProbe
from cardioembed.evaluation.tasks.clustering import LabelClustering, load_labelled
from cardioembed.evaluation.tasks.concepts import ConceptSeparation, load_concept_pairs
from cardioembed.evaluation.tasks.counterfactuals import (
    CounterfactualAccuracy,
    counterfactuals_of_pairs,
    load_counterfactuals,
)
from cardioembed.evaluation.tasks.efficiency import Efficiency
from cardioembed.evaluation.tasks.mteb_tasks import MtebTask, find_mteb_tasks
from cardioembed.evaluation.tasks.paraphrases import ParaphraseRetrieval, load_pairs
from cardioembed.evaluation.tasks.robustness import Robustness
from cardioembed.evaluation.tasks.sts import TextSimilarity, load_sts
from cardioembed.records import Row

if TYPE_CHECKING:
    from cardioembed.embedder.encoder import Embedder

LABELLED = "labelled_clustering"


def build_tasks(
    settings: EvaluateSettings,
    pairs: list[Row],
    *,
    distractors: list[Row],
    held_out: Path | None,
    labelled: Path | None = None,
    seed: int,
) -> list[Task]:
    """All tasks that the settings ask for.

    Args:
        settings: The ``evaluate`` block.
        pairs: Rows of the test split.
        distractors: Rows of the other splits, whose positives compete too.
        held_out: Pairs of books that were kept out of training as a whole.
        labelled: The labelled passages that the test split's pairs were drawn from, if they were.
        seed: Of what is drawn: edits of texts, not the bootstrap.

    Raises:
        UserError: A test set that is missing or not as it should be.
    """
    tasks: list[Task] = [ParaphraseRetrieval(pairs, distractors)]
    if labelled:
        title = "Retrieval: a passage of the anchor's label before all of other labels"
        tasks = [
            ParaphraseRetrieval(pairs, distractors, title=title),
            LabelClustering(load_labelled(labelled), LABELLED, "Clusters of the held-out passages", (labelled,)),
        ]
    if held_out:
        title = "Generalisation to held-out books"
        tasks.append(ParaphraseRetrieval(load_pairs(held_out), (), "generalisation_held_out_books", title, (held_out,)))
    for name, path in unique_names(settings.generalisation, "evaluate.generalisation").items():
        title = f"Generalisation to {name}"
        tasks.append(ParaphraseRetrieval(load_pairs(path), (), f"generalisation_{name}", title, (path,)))
    if settings.concept_pairs:
        path = Path(settings.concept_pairs)
        tasks.append(ConceptSeparation(load_concept_pairs(path), (path,)))
    if settings.counterfactual_rules and (rows := counterfactuals_of_pairs(pairs, seed)):
        title = "Counterfactual accuracy, rule-made changes of test anchors"
        tasks.append(CounterfactualAccuracy(rows, "counterfactual_rules", title))
    for name, path in unique_names(settings.counterfactuals, "evaluate.counterfactuals").items():
        rows = load_counterfactuals(path)
        tasks.append(
            CounterfactualAccuracy(rows, f"counterfactual_{name}", f"Counterfactual accuracy on {name}", (path,))
        )
    for name, path in unique_names(settings.sts, "evaluate.sts").items():
        tasks.append(TextSimilarity(load_sts(path), f"sts_{name}", f"Similarity of sentences: {name}", (path,)))
    for name, path in unique_names(settings.beir, "evaluate.beir").items():
        tasks.append(BeirRetrieval(load_beir(path), f"beir_{name}", f"Retrieval: {name}"))
    for name, path in unique_names(settings.clustering, "evaluate.clustering").items():
        tasks.append(LabelClustering(load_labelled(path), f"clustering_{name}", f"Clusters of {name}", (path,)))
    if settings.robustness:
        tasks.append(Robustness(pairs, seed))
    if settings.bias:
        tasks.append(BiasProbe(pairs))
    tasks += [MtebTask(task, f"mteb_{task}", f"MTEB: {task}") for task in find_mteb_tasks(settings.mteb)]
    if settings.efficiency:
        tasks.append(Efficiency([row["anchor"] for row in pairs]))
    return tasks


def measure(embedder: Embedder, tasks: list[Task], sampling: Sampling) -> dict[str, Measured]:
    """One model on all tasks, by task name; a task that its texts are too few for is left out, and told."""
    from cardioembed.evaluation.remembering import RememberingEmbedder  # imports torch

    found, remembering = {}, RememberingEmbedder(embedder)
    for task in tasks:
        started = time.monotonic()
        # What is timed is not remembered.
        measured = task.measure(embedder if isinstance(task, Efficiency) else remembering, sampling)
        if measured.estimates:
            found[task.name] = measured
        told = f"{time.monotonic() - started:.1f} s" if measured.estimates else "not measured, too few texts"
        print(f"  {task.title}: {told}", flush=True)
    return found
