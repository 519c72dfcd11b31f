"""Tables of the report, made from ``metrics.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cardioembed.evaluation.comparisons import power_note
from cardioembed.evaluation.document import GENERAL, GENERALISATION, IN_DOMAIN

Document = dict[str, Any]
NOT_SKILL = ("efficiency",)  # evaluations whose measures say nothing of how good the vectors are
# The metric that stands for an evaluation, by the beginning of its name.
_MAIN = {
    IN_DOMAIN: "accuracy@1",
    GENERALISATION: "accuracy@1",
    "concept_separation": "separation",
    "counterfactual": "accuracy",
    "sts_": "spearman_cosine",
    "beir_": "ndcg@10",
    "clustering_": "v_measure",
    "labelled_clustering": "precision@5",
    "efficiency": "latency_ms_mean",
}
_WIDTH_OF_95 = 3.92  # of a normal interval, in standard errors
DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A cell: text, the interval in brackets, and ``better``, ``worse`` or ``best`` for its colour."""

    text: str
    ci: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """Headers and rows, whose first cell names the row; folded tables open on a click."""

    headers: list[str]
    rows: list[list[Cell]]
    title: str = ""
    folded: bool = False
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with its tables, and notes under them; notes of one kind fold when there are many."""

    title: str
    tables: list[Table]
    notes: list[str] = field(default_factory=list)


def main_metric(evaluation: str, metrics: Mapping[str, Any]) -> str:
    """The metric that stands for an evaluation; of an unknown one the first that has a better side, "" of none."""
    for beginning, metric in _MAIN.items():
        if evaluation.startswith(beginning) and metric in metrics:
            return metric
    return next((metric for metric, cell in metrics.items() if cell["better"]), next(iter(metrics), ""))


def number(value: float, *, signed: bool = False) -> str:
    """Four decimals for scores, fewer for larger values, none for counts."""
    size = abs(value)
    decimals = 0 if size >= 1000 or (size >= 2 and size == int(size)) else 1 if size >= 100 else 2 if size >= 10 else 4
    return f"{value:{'+' if signed else ''},.{decimals}f}"


def p_text(value: float | None) -> str:
    """A p value as papers print it."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict(change: Mapping[str, Any]) -> str:
    """``better`` or ``worse`` when the interval leaves out zero, else nothing."""
    low, high = change["ci95"]
    if not change["better"] or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (change["better"] == "higher") else "worse"


def chance_text(*cells: Mapping[str, Any]) -> str:
    """Chance levels of the models, once if they are the same."""
    return ", ".join(dict.fromkeys(number(cell["chance"]) for cell in cells if "chance" in cell)) or DASH


def estimate_cell(cell: Mapping[str, Any] | None, *, signed: bool = False, mark: str = "") -> Cell:
    """A value with its interval; a dash for what was not measured, never a zero."""
    if cell is None:
        return Cell(DASH)
    low, high = (number(limit, signed=signed) for limit in cell["ci95"])
    return Cell(number(cell["value"], signed=signed), f"[{low}, {high}]", mark)


def pair_sections(document: Document) -> list[Section]:
    """A section an evaluation for base and adapted model, then what generalises."""
    sections = [_pair_section(document, evaluation) for evaluation in document["evaluations"]]
    return [*sections, *_drop_section(document)]


def _pair_section(document: Document, evaluation: str) -> Section:
    base, adapted = (document["models"][model].get(evaluation, {}) for model in ("base", "adapted"))
    changes = document["delta"].get(evaluation, {})
    headers = ["metric", "base", "adapted", "difference", "p", "n", "chance"]
    rows, notes = [], []
    for metric in dict.fromkeys([*adapted, *base]):
        cells = [model[metric] for model in (base, adapted) if metric in model]
        change = changes.get(metric)
        rows.append([
            Cell(metric),
            estimate_cell(base.get(metric)),
            estimate_cell(adapted.get(metric)),
            estimate_cell(change, signed=True, mark=verdict(change) if change else ""),
            Cell(p_text(change.get("p_value")) if change else DASH),
            Cell(f"{cells[0]['n']:,}"),
            Cell(chance_text(*cells)),
        ])  # fmt: skip
        if change and evaluation not in NOT_SKILL and (note := _power(metric, change)):
            notes.append(note)
    if not rows:
        notes = ["Not measured: it could not be run."]
    tables = [Table(headers, rows), *_pair_slices(document, evaluation)] if rows else []
    return Section(document["evaluations"][evaluation]["title"], tables, notes)


def _power(metric: str, change: Mapping[str, Any]) -> str | None:
    """Why a difference that is not clear may yet be one."""
    low, high = change["ci95"]
    if not change["better"] or not low <= 0 <= high or low == high:
        return None
    note = power_note(change["value"], change["n"], (high - low) / _WIDTH_OF_95)
    return note and f"{metric}: {note}."


def _pair_slices(document: Document, evaluation: str) -> Iterator[Table]:
    before, after = (document["slices"][model].get(evaluation, {}) for model in ("base", "adapted"))
    parts = dict.fromkeys([*after, *before])
    if parts:
        rows = []
        for part in parts:
            own, other = before.get(part, {}), after.get(part, {})
            for metric in dict.fromkeys([*other, *own]):
                n = (other.get(metric) or own[metric])["n"]
                cells = [estimate_cell(model.get(metric)) for model in (own, other)]
                rows.append([Cell(part), Cell(metric), *cells, Cell(f"{n:,}")])
        yield Table(["part", "metric", "base", "adapted", "n"], rows, f"By part of the items ({len(parts)})", True)


def _drop_section(document: Document) -> list[Section]:
    rows = [
        [Cell(model), Cell(evaluation.removeprefix(GENERALISATION)), Cell(metric), estimate_cell(cell, signed=True),
         Cell(f"{cell['n']:,}")]
        for model, evaluations in document["generalisation_drop"].items()
        for evaluation, metrics in evaluations.items()
        for metric, cell in metrics.items()
    ]  # fmt: skip
    note = (
        "How much lower retrieval is outside than on the test split; the two are resampled independently. "
        "Sets of different size are not equally hard."
    )
    table = Table(["model", "texts", "metric", "drop", "n"], rows)
    return [Section("Drop from the test split to other texts", [table], [note])] if rows else []


def forgetting(document: Document) -> list[dict[str, Any]]:
    """What each adapted model gained or lost on benchmarks of general ability; rows for a table."""
    return [
        {"model": label, "evaluation": evaluation, "metric": metric, **change}
        for label, changes in document["comparison"]["deltas"].items()
        for evaluation, metrics in changes.items()
        if evaluation.startswith(GENERAL)
        for metric, change in metrics.items()
        if change["better"]
    ]


def main_columns(document: Document) -> dict[str, str]:
    """The main metric of each evaluation that some model has."""
    columns = {}
    for evaluation in document["evaluations"]:
        metrics = next((found[evaluation] for found in document["models"].values() if found.get(evaluation)), None)
        if metrics:
            columns[evaluation] = main_metric(evaluation, metrics)
    return columns


def comparison_sections(document: Document) -> list[Section]:
    """One table of all models, then how they compare, then each evaluation whole."""
    comparison = document["comparison"]
    sections = [
        _all_models(document),
        _gains(comparison),
        _head_to_head(comparison["head_to_head"]),
        _ranks(document),
        *_separation(comparison),
        *_forgetting(document),
        *_drop_section(document),
    ]
    return [*sections, *(_models_section(document, evaluation) for evaluation in document["evaluations"])]


def _all_models(document: Document) -> Section:
    columns = main_columns(document)
    rows = []
    for model, found in document["models"].items():
        cells = [
            estimate_cell(found.get(evaluation, {}).get(metric), mark=_best(document, evaluation, metric, model))
            for evaluation, metric in columns.items()
        ]
        rows.append([Cell(model), *cells])
    headers = ["model", *(f"{evaluation} {metric}" for evaluation, metric in columns.items())]
    note = "Bold: the best, and those that their interval does not tell apart from it (rank 1 by interval)."
    return Section("All models", [Table(headers, rows)], [note])


def _best(document: Document, evaluation: str, metric: str, model: str) -> str:
    own = document["comparison"]["ranks"].get(evaluation, {}).get(metric, {})
    return "best" if own.get(model) == 1 and len(own) > 1 else ""


def _gains(comparison: Mapping[str, Any]) -> Section:
    """Zero-shot against adapted, for the main metric of each evaluation."""
    rows = [
        [Cell(model), Cell(comparison["base_of"][model]), Cell(evaluation), Cell(metric),
         estimate_cell(metrics[metric], signed=True, mark=verdict(metrics[metric])),
         Cell(p_text(metrics[metric].get("p_value")))]
        for model, changes in comparison["deltas"].items()
        for evaluation, metrics in changes.items()
        if metrics and evaluation not in NOT_SKILL
        for metric in [main_metric(evaluation, metrics)]
    ]  # fmt: skip
    headers = ["adapted model", "base", "evaluation", "metric", "adapted - base", "p"]
    tables = [Table(headers, rows)] if rows else []
    return Section("Zero-shot against adapted", tables, [] if rows else ["No adapted model is among them."])


def _head_to_head(wins: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Section:
    rows = []
    for one, others in wins.items():
        cells = [
            Cell(DASH) if one == other
            else Cell(f"{others[other]['wins']} of {others[other]['metrics']}", f"{others[other]['clear_wins']} clear")
            for other in wins
        ]  # fmt: skip
        rows.append([Cell(one), *cells])
    note = (
        "How many metrics of all evaluations the model of the row has better than that of the column; clear: the 95 % "
        "interval of the difference leaves out zero."
    )
    return Section("Head-to-head wins", [Table(["model", *wins], rows)], [note])


def _ranks(document: Document) -> Section:
    columns = {
        evaluation: metric
        for evaluation, metric in main_columns(document).items()
        if metric in document["comparison"]["ranks"].get(evaluation, {})
    }
    rows = [
        [
            Cell(model),
            *(
                Cell(str(document["comparison"]["ranks"][evaluation][metric].get(model, DASH)))
                for evaluation, metric in columns.items()
            ),
        ]
        for model in document["models"]
    ]
    headers = ["model", *(f"{evaluation} {metric}" for evaluation, metric in columns.items())]
    note = "One more than the number of models whose interval is wholly better; equal ranks are not told apart."
    return Section("Ranks by interval", [Table(headers, rows)], [note])


def _separation(comparison: Mapping[str, Any]) -> list[Section]:
    tests = comparison.get("separation_tests", [])
    if not tests:
        return []
    rows = [
        [Cell(" - ".join(row["models"])), Cell(number(row["difference"], signed=True)), Cell(_plain(row["t"])),
         Cell(_plain(row["df"])), Cell(p_text(row["p_value"])), Cell(p_text(row["p_holm"])),
         Cell(_plain(row["cohens_d"]))]
        for row in tests
    ]  # fmt: skip
    notes = [
        f"Separation and {trait}: {_correlation_text(found)}."
        for trait, found in comparison.get("separation_correlations", {}).items()
    ]
    power = [f"{' - '.join(row['models'])}: {row['power_note']}." for row in tests if row["power_note"]]
    headers = ["models", "difference", "Welch t", "df", "p", "p (Holm)", "Cohen's d"]
    return [Section("Do models differ in separation?", [Table(headers, rows)], [*notes, *power])]


def _plain(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def _correlation_text(found: Mapping[str, Any]) -> str:
    if found["r"] is None:
        return f"no correlation can be given for {found['n']} models"
    interval = f", 95 % interval {found['ci95'][0]:+.2f} to {found['ci95'][1]:+.2f}" if found["ci95"] else ""
    return f"Pearson r = {found['r']:+.2f}{interval}, p {p_text(found['p_value'])}, n = {found['n']} models"


def _forgetting(document: Document) -> list[Section]:
    rows = [
        [Cell(row["model"]), Cell(row["evaluation"]), Cell(row["metric"]),
         estimate_cell(row, signed=True, mark=verdict(row)), Cell(p_text(row.get("p_value")))]
        for row in forgetting(document)
    ]  # fmt: skip
    headers = ["adapted model", "benchmark", "metric", "adapted - base", "p"]
    return [Section("Forgetting: general benchmarks, adapted - base", [Table(headers, rows)])] if rows else []


def _models_section(document: Document, evaluation: str) -> Section:
    models = {model: found[evaluation] for model, found in document["models"].items() if found.get(evaluation)}
    metrics = list(dict.fromkeys(metric for found in models.values() for metric in found))
    missing = [model for model in document["models"] if model not in models]
    rows = [[Cell(model), *(estimate_cell(found.get(metric)) for metric in metrics)] for model, found in models.items()]
    about = {metric: next(found[metric] for found in models.values() if metric in found) for metric in metrics}
    chances = {metric: chance_text(*(f[metric] for f in models.values() if metric in f)) for metric in metrics}
    rows += [[Cell("chance"), *(Cell(chances[metric]) for metric in metrics)]] if models else []
    rows += [[Cell("n"), *(Cell(f"{about[metric]['n']:,}") for metric in metrics)]] if models else []
    tables = [Table(["model", *metrics], rows, "All metrics", True), *_model_slices(document, evaluation)]
    notes = [f"Not measured: {', '.join(missing)}."] if missing else []
    return Section(document["evaluations"][evaluation]["title"], tables if models else [], notes)


def _model_slices(document: Document, evaluation: str) -> Iterator[Table]:
    slices = {model: found[evaluation] for model, found in document["slices"].items() if evaluation in found}
    parts = list(dict.fromkeys(part for found in slices.values() for part in found))
    if parts:
        metric = main_metric(evaluation, next(iter(slices.values()))[parts[0]])
        rows = [
            [Cell(part), *(estimate_cell(found.get(part, {}).get(metric)) for found in slices.values())]
            for part in parts
        ]
        yield Table(["part", *slices], rows, f"{metric} by part of the items ({len(parts)})", True)


def about_table(document: Document) -> Table:
    """What each model is."""
    about = document["about"]
    traits = list(dict.fromkeys(trait for own in about.values() for trait in own))
    rows = [[Cell(model), *(Cell(_trait(own.get(trait))) for trait in traits)] for model, own in about.items()]
    return Table(["model", *(trait.replace("_", " ") for trait in traits)], rows, words=True)


def _trait(value: Any) -> str:
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def files_table(document: Document) -> Table:
    """Test files with their hashes."""
    rows = [
        [Cell(found["title"]), Cell(name), Cell(digest)]
        for found in document["evaluations"].values()
        for name, digest in found["files"].items()
    ]
    return Table(["evaluation", "file", "sha256"], rows, words=True)
