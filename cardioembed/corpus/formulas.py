"""Inline LaTeX, as OCR models write numbers and units, to plain text: "\\(\\geq 35\\%\\)" is "≥ 35%"."""

from __future__ import annotations

import re

RAISED = str.maketrans("0123456789+-−–", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻")

_SYMBOLS = {
    "geq": "≥", "ge": "≥", "geqslant": "≥", "leq": "≤", "le": "≤", "leqslant": "≤", "times": "×", "cdot": "·",
    "pm": "±", "approx": "≈", "sim": "~", "neq": "≠", "rightarrow": "→", "to": "→", "uparrow": "↑",
    "downarrow": "↓", "circ": "°", "degree": "°", "mu": "μ", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ",
    "Delta": "Δ", "kappa": "κ", "lambda": "λ", "sigma": "σ", "chi": "χ", "omega": "ω", "Omega": "Ω", "quad": " ",
    "prime": "′", "left": "", "right": "", "infty": "∞", "sqrt": "√", "gt": ">", "lt": "<",
}  # fmt: skip
_WRAPPED = re.compile(r"\\(?:mathrm|mathbf|mathit|mathsf|text|textbf|textit|operatorname|rm|bf)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_POWER = re.compile(r"\s*\^\s*(?:\{\s*([^{}]*?)\s*\}|(\\?\w))")
_INDEX = re.compile(r"\s*_\s*(?:\{\s*([^{}]*?)\s*\}|(\w))")
_COMMAND = re.compile(r"\\([A-Za-z]+)\s?")


def plain_formula(match: re.Match[str]) -> str:
    """The content of a matched formula (group 1) as plain text."""
    text = _WRAPPED.sub(r"\1", match[1])
    text = _FRACTION.sub(r"\1/\2", text)
    text = _POWER.sub(_power, text)
    text = _INDEX.sub(lambda index: index[1] or index[2], text)
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = _COMMAND.sub(lambda command: _SYMBOLS.get(command[1], command[1]), text)
    return re.sub(r"\\([%&$#])", r"\1", text).replace("{", "").replace("}", "").strip()


def _power(match: re.Match[str]) -> str:
    power = (match[1] or match[2] or "").replace(" ", "")
    if power in ("\\circ", "\\degree", "°"):
        return "°"
    return power.translate(RAISED) if re.fullmatch(r"[\d+\-−–,]+", power) else f"^{power}"
