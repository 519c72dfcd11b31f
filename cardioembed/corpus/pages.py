"""One page of a book, as the readers hand it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """Raw text of one page and where it came from.

    Attributes:
        number: Counts from 1.
        text: "" where there is none or reading failed.
        origin: "text" (a text file or born digital) | "ocr" | "blank" | "failed".
        problem: Why it failed; "" otherwise.
    """

    number: int
    text: str
    origin: str
    problem: str = ""
