"""The `.env` file: the nearest one in the current folder or above it, as python-dotenv reads it.

Nothing of it is put into `os.environ`. `PYTHON_DOTENV_DISABLED=1`, python-dotenv's own switch, leaves it alone.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from chatterbox_nb.errors import SettingError

_Stamp = tuple[Path, int, int, int]  # path, time, size, inode
_last: tuple[_Stamp, Mapping[str, str]] | None = None


def read() -> tuple[Path | None, Mapping[str, str]]:
    """The file and what it sets, without what it leaves blank; read again only after it changed.

    Raises:
        SettingError: it cannot be read or parsed. The message has the line's number and not the line: others keep
            their passwords there.
    """
    global _last
    stamp = _nearest()
    if stamp is None:
        return None, {}
    if _last is None or _last[0] != stamp:
        _last = stamp, _parse(stamp[0])
    return stamp[0], _last[1]


def _nearest() -> _Stamp | None:
    if os.environ.get("PYTHON_DOTENV_DISABLED", "").strip().casefold() in ("1", "true", "t", "yes", "y"):
        return None
    try:
        here = Path.cwd()
    except OSError:  # somebody removed it
        return None
    for folder in (here, *here.parents):
        path = folder / ".env"
        try:
            found = path.stat()
        except OSError:  # there is none, or the folder is closed to us
            continue
        if stat.S_ISREG(found.st_mode):  # a virtual environment may be a folder of that name
            return path, found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _parse(path: Path) -> Mapping[str, str]:
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    problem = ""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")  # as Windows' Notepad writes
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}. PYTHON_DOTENV_DISABLED=1 leaves it alone."
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"{path}, line {line}: this is not UTF-8. Save the file as UTF-8."
    if problem:
        raise SettingError(problem)
    for statement in parse_stream(io.StringIO(text)):  # dotenv_values would log these and go on
        if statement.error:
            written = statement.original.string
            line = statement.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            raise SettingError(
                f"{path}, line {line}: this cannot be parsed. Write NAME=value; a value with a quote or a # in quotes."
            )
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value.strip() for name, value in values.items() if value and value.strip()}
