"""The outcome of stage 04 on disk and on the terminal: ``metrics.json``, ``figures/`` and ``report.html``."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from cardioembed.evaluation.document import IN_DOMAIN
from cardioembed.evaluation.summary import summary_sentences, terminal_table
from cardioembed.evaluation.tables import (
    Cell,
    Section,
    Table,
    about_table,
    comparison_sections,
    files_table,
    pair_sections,
)
from cardioembed.evaluation.tasks.base import Measured, Task
from cardioembed.evaluation.tasks.counterfactuals import ROUNDING
from cardioembed.records import write_json

_SHOWN_ERRORS = 20


@dataclass(frozen=True)
class Outcome:
    """All that stage 04 measured.

    Attributes:
        document: The content of ``metrics.json``, with ``delta`` (models base and adapted) or ``comparison``.
        results: By model and task.
        tasks: What was measured.
    """

    document: dict[str, Any]
    results: dict[str, dict[str, Measured]]
    tasks: list[Task]

    def write(self, folder: Path, *, run: str, settings: str) -> None:
        """Writes ``metrics.json``, ``report.html``, and every figure as PNG and SVG in ``figures/``.

        Args:
            folder: Where; it exists.
            run: The run's name in the page's heading.
            settings: The resolved settings, shown as they are.
        """
        from cardioembed.evaluation.figures import all_figures  # matplotlib takes a second to import

        write_json(folder / "metrics.json", self.document)
        (folder / "figures").mkdir()
        shown = []
        for drawing in all_figures(self.document, self.results):
            png = drawing.render("png")
            (folder / "figures" / f"{drawing.name}.png").write_bytes(png)
            (folder / "figures" / f"{drawing.name}.svg").write_bytes(drawing.render("svg"))
            shown.append({"caption": drawing.caption, "alt": drawing.alt, "data": base64.b64encode(png).decode()})
        page = html_report(self.document, self.results, shown, run=run, settings=settings)
        (folder / "report.html").write_text(page, encoding="utf-8")

    def show(self) -> None:
        """Prints the table and the summary."""
        print(terminal_table(self.document))
        print()
        for sentence in summary_sentences(self.document):
            print(sentence)


def html_report(
    document: dict[str, Any],
    results: dict[str, dict[str, Measured]],
    figures: list[dict[str, str]],
    *,
    run: str,
    settings: str,
) -> str:
    """One self-contained page: summary, tables, figures, worst errors, settings.

    Args:
        document: The content of ``metrics.json``.
        results: What the lists of errors are made from.
        figures: ``{"caption", "alt", "data"}`` each, data being a PNG in base64.
        run, settings: See ``Outcome.write``.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("cardioembed.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    pair = "delta" in document
    return template.render(
        heading="Base against adapted model" if pair else f"Comparison of {len(document['models'])} models",
        pair=pair,
        run=run,
        bases=sorted({about["base"] for about in document["about"].values()}),
        bootstrap=document["bootstrap"],
        summary=summary_sentences(document),
        sections=pair_sections(document) if pair else comparison_sections(document),
        figures=figures,
        errors=error_sections(results, ["adapted"] if pair else list(results), folded=not pair),
        about=about_table(document),
        files=files_table(document),
        libraries=document["libraries"],
        settings=settings,
    )


def error_sections(results: dict[str, dict[str, Measured]], models: list[str], *, folded: bool) -> list[Section]:
    """The worst errors of models as text: anchors that miss their paraphrase, and counterfactuals that lie closer."""
    retrieval = [_retrieval_errors(results[model][IN_DOMAIN], model, folded) for model in models]
    sections = [Section("Worst retrieval errors", retrieval, ["Rank 1 is right; the worst ranks come first."])]
    names = dict.fromkeys(name for model in models for name in results[model] if name.startswith("counterfactual"))
    for name in names:
        tables = [_counterfactual_errors(results[m][name], m, folded) for m in models if name in results[m]]
        note = "Margin: cosine with the paraphrase - cosine with the counterfactual; the smallest come first."
        sections.append(Section(f"Worst counterfactual errors: {name}", tables, [note]))
    return sections


def _retrieval_errors(measured: Measured, model: str, folded: bool) -> Table:
    pairs = measured.details
    ranks = pairs.ranks.ranks
    worst = [int(i) for i in np.argsort(-ranks, kind="stable") if ranks[i] > 1]
    rows = [
        [Cell(f"{ranks[i]:,}"), Cell(pairs.rows[i]["anchor"]), Cell(pairs.rows[i]["positive"]),
         Cell(pairs.documents[pairs.ranks.rival[i]]["positive"])]
        for i in worst[:_SHOWN_ERRORS]
    ]  # fmt: skip
    title = f"{model}: {len(worst):,} of {len(ranks):,} anchors do not find their own paraphrase first"
    return Table(["rank", "anchor", "own paraphrase", "most like it instead"], rows, title, folded, words=True)


def _counterfactual_errors(measured: Measured, model: str, folded: bool) -> Table:
    found, margins = measured.details, np.asarray(measured.details.margins)
    worst = [int(i) for i in np.argsort(margins, kind="stable") if margins[i] <= ROUNDING]
    rows = [
        [Cell(f"{margins[i]:+.3f}"), Cell(str(found.rows[i].get("category") or "")),
         *(Cell(found.rows[i][key]) for key in ("anchor", "positive", "counterfactual"))]
        for i in worst[:_SHOWN_ERRORS]
    ]  # fmt: skip
    title = f"{model}: {len(worst):,} of {len(margins):,} counterfactuals lie as close as the paraphrase, or closer"
    return Table(["margin", "category", "anchor", "paraphrase", "counterfactual"], rows, title, folded, words=True)
