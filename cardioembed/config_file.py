"""Settings read from one YAML file plus ``--set key.path=value`` overrides; mistakes are reported together."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cardioembed.config import GeneratorSettings, Settings, flatten
from cardioembed.errors import UserError


def load_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Settings:
    """Reads a YAML file, applies ``key.path=value`` overrides, and validates everything at once.

    Args:
        path: A YAML file; keys that it leaves out keep the paper's values.
        overrides: ``["train.learning_rate=1e-4", ...]``; each value is read as YAML.

    Raises:
        UserError: The file is missing or not YAML, or any key or value is wrong (all of them are listed).
    """
    path = Path(path)
    raw, lines = _read_yaml(path)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        _apply_override(raw, override, origins)
    problems: list[str] = []
    while True:
        try:
            settings = Settings.model_validate(raw)
        except ValidationError as error:
            found = [_explain(item, origins, path) for item in error.errors()]
            new = [problem for problem in found if problem not in problems]
            problems += new
            # Pairs of values are checked once the single values are right, so look again without the wrong ones.
            if new and all(_remove(raw, item["loc"]) for item in error.errors()):
                continue
        if problems:
            listed = "".join(f"\n  - {problem}" for problem in problems)
            raise UserError(f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the settings:{listed}")
        return settings


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's content and the line on which each key path stands."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        found = ", ".join(sorted(str(p) for p in [*Path().glob("*.yaml"), *Path("configs").glob("*.yaml")]))
        raise UserError(
            f"config file {path} does not exist. Give one with --config; here are: {found or 'none'}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} cannot be read as UTF-8 text: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error)
        raise UserError(f"{where}: not valid YAML ({reason}). Check indentation, colons and quotes there.") from None
    if content is None:
        return {}, {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected 'key: value' lines at the top, found a {type(content).__name__}")
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines, path)
    return content, lines


def _collect_lines(node: yaml.Node, prefix: str, lines: dict[str, int], path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            raise UserError(f"{path}, line {line}: {name} is set twice (first on line {lines[name]}); keep one")
        lines[name] = line
        _collect_lines(value, name + ".", lines, path)


def _apply_override(raw: dict[str, Any], override: str, origins: dict[str, str]) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or not key:
        raise UserError(f"--set {override!r}: expected key.path=value, for example --set train.learning_rate=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(
            f"--set {override!r}: the value is not valid YAML; quote it, for example --set '{key}=[a, b]'"
        ) from None
    *parents, last = key.split(".")
    block = raw
    for depth, parent in enumerate(parents):
        if block.get(parent) is None:
            block[parent] = {}
        block = block[parent]
        if not isinstance(block, dict):
            raise UserError(f"--set {override!r}: {'.'.join(parents[: depth + 1])} is a value, not a block of settings")
    block[last] = value
    origins[key] = f"--set {override}"


def _explain(item: Any, origins: dict[str, str], path: Path) -> str:
    """One validation error as: where, key, what is wrong, what is allowed."""
    location = [str(part) for part in item["loc"] if not str(part).startswith(("literal[", "list[", "function-"))]
    if location[-1:] == ["[key]"]:  # a wrong key of a mapping, which the message shows as its value
        location = location[:-2]
    key = ".".join(location)
    where = next((origins[k] for k in _prefixes(location) if k in origins), str(path))
    if item["type"] == "extra_forbidden":
        known = list(flatten(Settings())) + ["merge", "prepare", "model", "train", "evaluate"]
        if location[:2] == ["merge", "generators"]:
            known = [f"{'.'.join(location[:-1])}.{name}" for name in GeneratorSettings.model_fields]
        leaf = {name.rsplit(".", 1)[-1]: name for name in known}
        if len(location) == 1 and key in known:
            block, _, name = key.partition(".")
            return f"{where}: {key}: in a file, {name} stands inside its block, below a line '{block}:'"
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        near = near or [leaf[name] for name in difflib.get_close_matches(location[-1], leaf, n=1, cutoff=0.6)]
        hint = f"did you mean {near[0]}?" if near else "see config.yaml for the keys there are"
        return f"{where}: {key}: unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{where}: {key + ': ' if key else ''}{message}"
    return f"{where}: {key}: {item['input']!r} is not allowed: {message[0].lower()}{message[1:]}"


def _remove(raw: dict[str, Any], location: tuple[int | str, ...]) -> bool:
    """Takes a wrong key out of the raw settings; False where there is none to take out."""
    block: Any = raw
    for part in location:
        if not isinstance(block, dict) or part not in block:
            return False
        if not isinstance(block[part], dict) or part == location[-1]:
            del block[part]
            return True
        block = block[part]
    return False


def _prefixes(location: list[str]) -> list[str]:
    return [".".join(location[:end]) for end in range(len(location), 0, -1)]
