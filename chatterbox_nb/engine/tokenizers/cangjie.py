"""Chinese characters as the codes of the Cangjie input method, which is how the multilingual models read them.

A character is the keys it is typed with; where several share them, its place among those follows as a digit.
"""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import category

from chatterbox_nb.errors import SourceError


class Cangjie:
    """The table of a checkpoint: a JSON list of `character<tab>code` lines.

    Raises:
        SourceError: the file is no such table.
    """

    def __init__(self, path: Path) -> None:
        problem = ""
        try:
            lines = [line.split("\t")[:2] for line in json.loads(path.read_text(encoding="utf-8"))]
            self._codes = dict(lines)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            problem = " ".join(str(error).split())
        if problem:
            raise SourceError(f"{path} is not a table of Cangjie codes: {problem}. Delete it and load again.")
        self._sharing: dict[str, list[str]] = {}
        for character, code in lines:
            self._sharing.setdefault(code, []).append(character)

    def __call__(self, text: str) -> str:
        """The text with `[cj_a][cj_b][cj_.]` for each character that the table has."""
        return "".join(self._of(character) for character in text)

    def _of(self, character: str) -> str:
        code = self._codes.get(character) if category(character) == "Lo" else None
        if code is None:
            return character
        place = self._sharing[code].index(character)
        return "".join(f"[cj_{key}]" for key in [*code, *(str(place) if place else ""), "."])
