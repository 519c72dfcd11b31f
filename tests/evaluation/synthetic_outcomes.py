"""Outcomes of stage 04 from made-up vectors: real estimates, no model."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from cardioembed.evaluation.document import deltas, metrics_document
from cardioembed.evaluation.report import Outcome
from cardioembed.evaluation.retrieval import rank_pairs, retrieval_estimates
from cardioembed.evaluation.similarity import KINDS, separation_estimates, sts_estimates
from cardioembed.evaluation.statistics import Estimate, Sampling, item_estimates
from cardioembed.evaluation.tasks.base import Measured
from cardioembed.evaluation.tasks.paraphrases import RankedPairs, retrieval_slice

SAMPLING = Sampling(200, 1)
COUNT = 120
BOOKS = ("Valve disease in practice", "Arrhythmias", "Imaging of the heart & great vessels, third edition")
CATEGORIES = ("negation", "laterality", "number", "drug")


def make_task(name, title):
    return SimpleNamespace(name=name, title=title, files=())


TASKS = [
    make_task("paraphrase_retrieval", "Paraphrase retrieval on the test split"),
    make_task("generalisation_nhlbi", "Generalisation to nhlbi"),
    make_task("concept_separation", "Separation of concepts"),
    make_task("counterfactual_rules", "Counterfactual accuracy, rule-made changes of test anchors"),
    make_task("sts_demo", "Similarity of sentences: demo"),
    make_task("robustness", "Robustness"),
    make_task("efficiency", "Efficiency"),
]


def make_results(noise):
    """One model on all tasks; the less noise, the better."""
    return dict(_made(noise))


@cache
def _made(noise):
    rng = np.random.default_rng(0)
    return {
        "paraphrase_retrieval": _retrieval(rng, noise),
        "generalisation_nhlbi": _retrieval(rng, noise * 1.2),
        "concept_separation": _concepts(rng, noise),
        "counterfactual_rules": _counterfactuals(rng, noise),
        "sts_demo": _sts(rng, noise),
        "robustness": _robustness(rng, noise),
        "efficiency": _efficiency(noise),
    }


def _retrieval(rng, noise):
    anchors = rng.normal(size=(COUNT, 16))
    positives = anchors + noise * rng.normal(size=(COUNT, 16))
    anchors, positives = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (anchors, positives))
    ids = [f"{i:03d}" for i in range(COUNT)]
    ranks = rank_pairs(anchors, positives, ids, ids, ids)
    rows = [
        {"id": i, "group": i, "anchor": f"anchor <{i}>", "positive": f"positive & {i}", "source": BOOKS[int(i) % 3]}
        for i in ids
    ]
    members = {f"source={book}": np.arange(COUNT)[number::3] for number, book in enumerate(BOOKS)}
    members |= {"length=01-12 words": np.arange(40), "length=13-20 words": np.arange(40, COUNT)}
    slices = {part: retrieval_slice(ranks, ids, own, SAMPLING) for part, own in members.items()}
    return Measured(retrieval_estimates(ranks, ids, SAMPLING), slices, RankedPairs(rows, rows, ranks))


def _concepts(rng, noise):
    means = dict(zip(KINDS, (0.75, 0.3 + noise / 10, 0.7), strict=True))
    cosines = {kind: np.clip(rng.normal(means[kind], 0.1, 30), -1, 1) for kind in KINDS}
    return Measured(separation_estimates(cosines, SAMPLING), details=cosines)


def _counterfactuals(rng, noise):
    margins = rng.normal(0.2, 0.1 + noise / 10, COUNT)
    rows = [
        {"anchor": f"a <{i}>", "positive": f"p {i}", "counterfactual": f"c & {i}", "category": CATEGORIES[i % 4]}
        for i in range(COUNT)
    ]
    items = {"accuracy": (margins > 0).astype(float), "mean_margin": margins}
    slices = {
        f"category={name}": item_estimates(
            {"accuracy": items["accuracy"][number::4]}, SAMPLING, chance={"accuracy": 0.5}
        )
        for number, name in enumerate(CATEGORIES)
    }
    estimates = item_estimates(items, SAMPLING, chance={"accuracy": 0.5})
    return Measured(estimates, slices, SimpleNamespace(rows=rows, margins=margins))


def _sts(rng, noise):
    scores = rng.uniform(0, 4, 60)
    cosines = scores / 4 + rng.normal(0, 0.4 - noise / 10, 60)  # what training gains it loses here
    return Measured(sts_estimates(cosines, scores, SAMPLING), details=(cosines, scores))


def _robustness(rng, noise):
    slices = {
        f"perturbation={edit}": item_estimates(
            {"accuracy@1": (rng.uniform(size=80) > fall + noise / 10).astype(float)}, SAMPLING
        )
        for edit, fall in (("lower case", 0.02), ("typos", 0.2), ("truncated", 0.3))
    }
    falls = {"fall_accuracy@1_typos": rng.uniform(0, 0.2, 80)}
    return Measured(item_estimates(falls, SAMPLING, better=dict.fromkeys(falls, "lower")), slices)


def _efficiency(noise):
    latency = np.full(200, 10 + noise)
    values = {"latency_ms_mean": 10 + noise, "latency_ms_sd": 1, "latency_ms_p50": 10, "latency_ms_p95": 14,
              "peak_memory_mb": 400 + 900 * noise, "parameters": 22_000_000 + 9e7 * noise, "dimension": 384,
              "disk_mb": 88}  # fmt: skip
    values |= {f"texts_per_second_{batch}": 100 * batch**0.6 / noise for batch in (1, 4, 16, 32)}
    lower = ("latency", "peak", "disk")
    return Measured({
        name: Estimate(float(value), latency * 0 + value, 20, better="lower" if name.startswith(lower) else "higher")
        for name, value in values.items()
    })  # fmt: skip


def make_about(base, adapted):
    return {
        "base": base, "revision": "abc123", "adapted": adapted, "dimension": 384, "parameters": 22_713_216,
        "pooling": "mean", "max_length": 128, "quantization": None, "dtype": "float32", "anchor_prompt": "",
        "positive_prompt": "",
    }  # fmt: skip


def make_pair(before=1.6, after=0.8):
    results = {"base": make_results(before), "adapted": make_results(after)}
    about = {model: make_about("all-MiniLM-L6-v2", model == "adapted") for model in results}
    document = metrics_document(results, TASKS, about, SAMPLING)
    document["delta"] = deltas(results["base"], results["adapted"], SAMPLING)
    return Outcome(document, results, TASKS)


def make_comparison(models):
    """Of ``{adapted label: (base label, noise of base, noise of adapted)}``."""
    from cardioembed.evaluation.comparing import head_to_head, ranks
    from cardioembed.evaluation.comparisons import correlation, separation_tests

    results, about, base_of = {}, {}, {}
    for label, (base, before, after) in models.items():
        results[base], about[base] = make_results(before), make_about(base, False)
        results[label], about[label] = make_results(after), make_about(base, True)
        base_of[label] = base
    document = metrics_document(results, TASKS, about, SAMPLING)
    separations = [found["concept_separation"].estimates["separation"].value for found in results.values()]
    document["comparison"] = {
        "base_of": base_of,
        "deltas": {label: deltas(results[base], results[label], SAMPLING) for label, base in base_of.items()},
        "head_to_head": head_to_head(results),
        "ranks": ranks(results),
        "separation_tests": separation_tests({m: f["concept_separation"].details for m, f in results.items()}),
        "separation_correlations": {"dimension": correlation(range(len(results)), separations)},
    }
    return Outcome(document, results, TASKS)


STUDY = {
    "bge-m3-cardiology": ("BAAI bge-m3 (base)", 1.6, 0.9),
    "Qwen3-Embedding-8B-adapted-on-six-cardiology-books-rank-16": ("Qwen3-Embedding-8B (base)", 1.2, 0.7),
    "minilm-laptop": ("all-MiniLM-L6-v2 (base)", 1.8, 1.1),
}
