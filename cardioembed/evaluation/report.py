"""``metrics.json``, the terminal table and ``report.html`` from the same numbers."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from cardioembed.evaluation.similarity import tier
from cardioembed.evaluation.suite import Result
from cardioembed.records import Row

TITLES = {
    "paraphrase_retrieval": "Paraphrase retrieval on the test split",
    "concept_separation": "Separation of concepts",
}
# A lower value is better for these; for those in the second set neither direction is.
LOWER_IS_BETTER = {"different_similarity", "negation_similarity", "sd_similarity"}
NEITHER = {"mean_similarity", "similar_similarity", "sd_similarity"}


def metrics_document(results: dict[str, Result]) -> dict[str, Any]:
    """The content of ``metrics.json``.

    ``models.<base|adapted>.<evaluation>.<metric>`` is ``{"value", "ci95", "n"}`` with ``chance`` where there is one;
    ``delta.<evaluation>.<metric>`` is the same for adapted - base on the same items.
    """
    models = {
        name: {
            evaluation: {m: e.summary() for m, e in metrics.items()} for evaluation, metrics in result.estimates.items()
        }
        for name, result in results.items()
    }
    base, adapted = results["base"].estimates, results["adapted"].estimates
    delta = {
        evaluation: {
            metric: adapted[evaluation][metric].minus(base[evaluation][metric]).summary() for metric in metrics
        }
        for evaluation, metrics in base.items()
    }
    return {"schema_version": 1, "models": models, "delta": delta}


def terminal_table(document: dict[str, Any]) -> str:
    """Base, adapted and difference, a line a metric."""
    lines = [f"{'':<22} {'base':>8} {'adapted':>8} {'difference':>11}  {'95 % interval':<19} {'n':>5}  chance"]
    for evaluation, rows in table_rows(document).items():
        lines.append(TITLES.get(evaluation, evaluation))
        for row in rows:
            low, high = row["delta"]["ci95"]
            lines.append(
                f"  {row['metric']:<20} {row['base']['value']:>8.4f} {row['adapted']['value']:>8.4f} "
                f"{row['delta']['value']:>+11.4f}  [{low:+.4f}, {high:+.4f}] {row['base']['n']:>6}  {row['chance']}"
            )
    return "\n".join(lines)


def table_rows(document: dict[str, Any]) -> dict[str, list[Row]]:
    """Rows of the result tables by evaluation."""
    models, delta = document["models"], document["delta"]
    tables: dict[str, list[Row]] = {}
    for evaluation, metrics in delta.items():
        tables[evaluation] = [
            {
                "metric": metric,
                "base": models["base"][evaluation][metric],
                "adapted": models["adapted"][evaluation][metric],
                "delta": difference,
                "verdict": _verdict(metric, difference["ci95"]),
                "chance": _chance(models["base"][evaluation][metric], models["adapted"][evaluation][metric]),
            }
            for metric, difference in metrics.items()
        ]
    return tables


def html_report(
    document: dict[str, Any],
    results: dict[str, Result],
    pairs: list[Row],
    figures: dict[str, tuple[str, bytes]],
    *,
    run: str,
    base: str,
    resamples: int,
    settings: str,
) -> str:
    """One self-contained page: summary, tables, figures, worst errors, settings."""
    template = Environment(autoescape=True, trim_blocks=True).from_string(
        files("cardioembed.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    ranks = results["adapted"].ranks
    worst = sorted((i for i in range(len(pairs)) if ranks.ranks[i] > 1), key=lambda i: (-ranks.ranks[i], i))
    errors = [
        {
            "rank": int(ranks.ranks[i]),
            "anchor": pairs[i]["anchor"],
            "positive": pairs[i]["positive"],
            "rival": pairs[ranks.rival[i]]["positive"],
        }
        for i in worst[:20]
    ]
    return template.render(
        run=run,
        base=base,
        resamples=f"{resamples:,}",
        summary=summary_sentences(document),
        tables=table_rows(document),
        titles=TITLES,
        figures=[{"caption": c, "data": base64.b64encode(png).decode()} for c, png in figures.values()],
        errors=errors,
        misses=len(worst),
        settings=settings,
    )


def summary_sentences(document: dict[str, Any]) -> list[str]:
    """What the numbers say, decided by the intervals."""
    base, adapted, delta = document["models"]["base"], document["models"]["adapted"], document["delta"]
    before, after = (model["paraphrase_retrieval"]["accuracy@1"] for model in (base, adapted))
    change = delta["paraphrase_retrieval"]["accuracy@1"]
    sentences = [
        f"On {after['n']} held-out pairs the adapted model puts the right paraphrase first for "
        f"{after['value']:.1%} of the anchors, the base for {before['value']:.1%}: {_reading(change)}."
    ]
    if "concept_separation" in delta:
        separation, gap = (delta["concept_separation"][m] for m in ("separation", "negation_gap"))
        value, distance = (adapted["concept_separation"][m]["value"] for m in ("separation", "negation_gap"))
        closer = "; negated statements are still placed closer than rephrased ones" if distance < 0 else ""
        sentences.append(
            f"Separation of similar from different concepts is {value:.3f} ({tier(value)}), {_reading(separation)}; "
            f"the gap to negated statements is {distance:+.3f}, {_reading(gap)}{closer}."
        )
    for evaluation, metrics in delta.items():
        if evaluation.startswith("sts_"):
            sentences.append(
                f"On {evaluation.removeprefix('sts_')} the Spearman correlation is "
                f"{adapted[evaluation]['spearman_cosine']['value']:.4f}, {_reading(metrics['spearman_cosine'])}."
            )
    return sentences


def _reading(change: dict[str, Any]) -> str:
    low, high = change["ci95"]
    interval = f"{change['value']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    if low > 0:
        return f"a rise ({interval})"
    return f"a fall ({interval})" if high < 0 else f"no clear change ({interval})"


def _verdict(metric: str, ci95: list[float]) -> str:
    if metric in NEITHER or ci95[0] <= 0 <= ci95[1]:
        return ""
    return "better" if (ci95[0] > 0) != (metric in LOWER_IS_BETTER) else "worse"


def _chance(base: dict[str, Any], adapted: dict[str, Any]) -> str:
    values = [f"{model['chance']:.4f}" for model in (base, adapted) if "chance" in model]
    return ", ".join(dict.fromkeys(values)) or "-"
