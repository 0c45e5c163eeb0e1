"""What IPython would not pass on: `%tts Are you there?`, and `%%tts` without a cell.

IPython reads a line that ends in `?` as a call for help with its last word, and the sentence never arrives. Such lines
are turned into the call that they mean first. `%tts?` still asks for help.
"""

from __future__ import annotations

import re
import tokenize
from itertools import pairwise
from typing import Any

from IPython.core.inputtransformer2 import TokenTransformBase, assemble_continued_line, find_end_of_continued_line

_MAGIC = "%tts"
_INDENTS = (tokenize.INDENT, tokenize.DEDENT)
_CELL_MAGIC = re.compile(rf"%{_MAGIC}(\s|$)")


class Question(TokenTransformBase):
    """`%tts ...?`, also behind `x =`. Found by its tokens: what a string or a comment says stays as it is."""

    priority = 1  # IPython takes the lowest first; its own help has 5

    def __init__(self, start: tuple[int, int], magic: tuple[int, int]) -> None:
        super().__init__(start)
        self.magic_line, self.magic_column = magic[0] - 1, magic[1]

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Question | None:
        """The first `%tts` that begins a line or an assigned value, a question or not."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in _INDENTS]
            for index, (percent, name) in enumerate(pairwise(tokens)):
                begins = index == 0 or tokens[index - 1].string == "="
                if begins and percent.string + name.string == _MAGIC:
                    return cls(tokens[0].start, percent.start)
        return None

    def transform(self, lines: list[str]) -> list[str]:
        """The lines with that one as a call. Raises SyntaxError, which IPython expects, when it is no question."""
        end = find_end_of_continued_line(lines, self.magic_line)
        text = assemble_continued_line(lines, (self.magic_line, self.magic_column), end)[len(_MAGIC) :]
        if not text[:1].isspace() or not text.endswith("?"):
            raise SyntaxError("not a question")
        before = lines[self.magic_line][: self.magic_column]
        call = f"{before}get_ipython().run_line_magic('tts', {text.lstrip()!r})\n"
        return [*lines[: self.magic_line], call, *lines[end + 1 :]]


def with_a_cell(lines: list[str]) -> list[str]:
    """Gives `%%tts` alone an empty cell: IPython answers none with a UsageError, which nbval does not see."""
    return [*lines, "\n"] if len(lines) == 1 and _CELL_MAGIC.match(lines[0]) else lines


# So that it is left out when a terminal asks whether the cell is complete.
with_a_cell.has_side_effects = True  # type: ignore[attr-defined]


def register(shell: Any) -> None:
    unregister(shell)
    shell.input_transformers_cleanup.append(with_a_cell)
    shell.input_transformer_manager.token_transformers.append(Question)


def unregister(shell: Any) -> None:
    for transforms in (shell.input_transformers_cleanup, shell.input_transformer_manager.token_transformers):
        transforms[:] = [transform for transform in transforms if getattr(transform, "__module__", "") != __name__]
