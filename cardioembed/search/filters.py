"""Which rows of an index a filter lets through."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from cardioembed.errors import UserError
from cardioembed.records import Row

Filter = Mapping[str, Any] | Callable[[Row], bool]


class Filters:
    """Finds the rows that pass; values of a key are gathered when it is first asked for.

    Args:
        rows: Of the index, ``{"id", "text", "metadata"}``.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._columns: dict[str, dict[str, np.ndarray]] = {}

    def positions(self, condition: Filter | None) -> np.ndarray | None:
        """Positions of the rows that pass, ascending; None stands for all.

        Args:
            condition: A dict of metadata that must all be equal, or a function of the row.

        Raises:
            UserError: It is neither, or asks for a key that no row has.
        """
        if condition is None or (isinstance(condition, Mapping) and not condition):
            return None
        if callable(condition):
            return np.flatnonzero(np.fromiter((bool(condition(row)) for row in self._rows), bool, len(self._rows)))
        if not isinstance(condition, Mapping):
            kind = type(condition).__name__
            raise UserError(f"filter is a {kind}; give a dict such as {{'source': 'esc-2021'}}, or a function of a row")
        passing = np.arange(len(self._rows))
        for key, value in condition.items():
            passing = np.intersect1d(passing, self._having(key, value), assume_unique=True)
        return passing

    def has(self, key: str, value: Any) -> bool:
        """Whether some row has this value.

        Raises:
            UserError: No row has the key.
        """
        return len(self._having(key, value)) > 0

    def _having(self, key: str, value: Any) -> np.ndarray:
        try:
            form = _form(value)
        except (TypeError, ValueError):
            raise UserError(f"filter: {key} is compared with {value!r}, which is no JSON value") from None
        return self._column(key).get(form, np.zeros(0, np.int64))

    def _column(self, key: str) -> dict[str, np.ndarray]:
        if key not in self._columns:
            found: dict[str, list[int]] = {}
            for position, row in enumerate(self._rows):
                if key in row["metadata"]:
                    found.setdefault(_form(row["metadata"][key]), []).append(position)
            if not found:
                raise UserError(self._unknown(key))
            # Set when it is whole: another thread sees all of it or nothing.
            self._columns[key] = {form: np.array(positions) for form, positions in found.items()}
        return self._columns[key]

    def _unknown(self, key: str) -> str:
        known = sorted({name for row in self._rows for name in row["metadata"]})
        near = get_close_matches(str(key), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; keys are: {', '.join(known[:20]) or 'none'}"
        return f"filter: no text of this index has the metadata key {key!r}{hint}"


def _form(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True, ensure_ascii=False)
