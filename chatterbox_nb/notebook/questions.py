"""`%tts Are you there?` is speech.

IPython reads a line that ends in `?` as a call for help, of whatever word stands before it, and the sentence never
arrives. Such lines are turned into the call that they mean before IPython looks at them. `%tts?` still asks for help.
"""

from __future__ import annotations

import re
from typing import Any

_QUESTION = re.compile(r"^(?P<before>\s*(?:[A-Za-z_]\w*\s*=\s*)?)%tts[ \t]+(?P<text>\S.*\?)\s*$")


def protect(lines: list[str]) -> list[str]:
    """An input transformer: the lines of a cell in, and out."""
    if not lines or lines[0].lstrip().startswith("%%"):
        return lines
    return [_protect(line) for line in lines]


def _protect(line: str) -> str:
    match = _QUESTION.match(line)
    if match is None:
        return line
    return f"{match['before']}get_ipython().run_line_magic('tts', {match['text']!r})\n"


def register(shell: Any) -> None:
    unregister(shell)
    shell.input_transformers_cleanup.append(protect)


def unregister(shell: Any) -> None:
    kept = [
        transform for transform in shell.input_transformers_cleanup if getattr(transform, "__module__", "") != __name__
    ]
    shell.input_transformers_cleanup[:] = kept
