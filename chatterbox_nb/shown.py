"""What results have in common: they are shown as text anywhere and as HTML in a notebook.

How is registered by `render`, which is above the things it draws; nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Renderer:
    text: Callable[[Any], str]
    html: Callable[[Any], str]


RENDERERS: dict[str, Renderer] = {}


class Shown:
    """Base of a result. Dataclasses that inherit from it are declared with `repr=False`."""

    def __repr__(self) -> str:
        renderer = RENDERERS.get(type(self).__name__)
        return renderer.text(self) if renderer else super().__repr__()

    def _repr_html_(self) -> str | None:
        renderer = RENDERERS.get(type(self).__name__)
        return renderer.html(self) if renderer else None
