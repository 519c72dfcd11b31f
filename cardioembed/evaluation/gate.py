"""``--fail-under retrieval.accuracy@1=0.9``: a stage that fails when a measure is too low, for somebody's CI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cardioembed.errors import UserError

_EXAMPLE = "for example --fail-under paraphrase_retrieval.accuracy@1=0.9 or delta.sts_biosses.spearman_cosine=-0.02"


@dataclass(frozen=True)
class Gate:
    """A least value.

    Attributes:
        evaluation, metric: What is looked at, of the adapted model.
        least: Its least value.
        delta: Whether it is the difference to the base that is looked at.
    """

    evaluation: str
    metric: str
    least: float
    delta: bool = False

    def failure(self, document: dict[str, Any]) -> str | None:
        """Why ``metrics.json`` does not pass, None if it does.

        Raises:
            UserError: The evaluation has no such metric.
        """
        table = document["delta"] if self.delta else document["models"]["adapted"]
        metrics = table[self.evaluation]
        if self.metric not in metrics:
            raise UserError(
                f"--fail-under: {self.evaluation} has no metric {self.metric!r}; it has {', '.join(metrics)}"
            )
        value = metrics[self.metric]["value"]
        name = f"{'delta.' * self.delta}{self.evaluation}.{self.metric}"
        return None if value >= self.least else f"{name} is {value:.4f}, below {self.least:g}"


def parse_gates(arguments: list[str], evaluations: list[str]) -> list[Gate]:
    """Reads ``[delta.]evaluation.metric=least``; an evaluation may be called by the end of its name, if it is clear.

    Raises:
        UserError: Not of that form, or no such evaluation in this run.
    """
    return [_parse(argument, evaluations) for argument in arguments]


def _parse(argument: str, evaluations: list[str]) -> Gate:
    name, found, least = argument.partition("=")
    delta = name.startswith("delta.")
    evaluation, dot, metric = name.removeprefix("delta.").partition(".")
    try:
        value = float(least)
    except ValueError:
        found = ""
    if not (found and dot and metric and value == value):
        raise UserError(f"--fail-under: {argument!r} is not evaluation.metric=number; {_EXAMPLE}")
    matching = [e for e in evaluations if e == evaluation] or [e for e in evaluations if e.endswith(f"_{evaluation}")]
    if len(matching) != 1:
        known = ", ".join(matching or evaluations)
        problem = "is more than one evaluation" if matching else "is not an evaluation of this run"
        raise UserError(f"--fail-under: {evaluation!r} {problem}: {known}")
    return Gate(matching[0], metric, value, delta)
