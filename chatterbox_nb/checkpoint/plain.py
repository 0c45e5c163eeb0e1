"""Frozen dataclasses from plain JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")


def read(path: Path, kind: type[T], key: str, version: int) -> tuple[T | None, str]:
    """A dataclass of a JSON file whose `key` says the version; or None, and why it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.pop(key, None) == version:
            return built(kind, data), ""
    except (OSError, TypeError, ValueError, AttributeError) as error:
        return None, str(error)
    return None, f"its '{key}' is not {version}"


def built(kind: type, data: Any) -> Any:
    """A frozen dataclass, with its nested ones and tuples of them. Unknown keys are a TypeError."""
    hints = get_type_hints(kind)
    values = {}
    for key, value in data.items():
        hint = hints.get(key)
        if dataclasses.is_dataclass(hint):
            value = built(hint, value)  # type: ignore[arg-type]
        elif (inner := next(iter(get_args(hint)), None)) is not None and dataclasses.is_dataclass(inner):
            value = tuple(built(inner, entry) for entry in value)  # type: ignore[arg-type]
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    return kind(**values)
