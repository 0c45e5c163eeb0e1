"""One tree of errors, each a line that says what happened."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from chatterbox_nb import errors
from chatterbox_nb.errors import (
    Cancelled,
    EngineError,
    OutOfMemory,
    SettingError,
    SourceError,
    TTSError,
    nearest,
)

CLASSES = {
    name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str]:
    """Each name in the module's drawing, and the name it hangs from."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" │├└─").split(" ")[0]
        if not (line.startswith("    ") and name):
            continue
        depth = line.index(name)
        above[depth] = name
        parents[name] = above.get(depth - 4, "Exception")
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert drawn_tree() == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


def test_the_docstring_names_the_python_errors_that_ours_also_are() -> None:
    for name, kind in CLASSES.items():
        line = next(line for line in (errors.__doc__ or "").splitlines() if line.lstrip(" │├└─").split(" ")[0] == name)
        for also in kind.__bases__[1:]:
            assert f"(also a {also.__name__})" in line
        assert ("(also a" in line) == (len(kind.__bases__) > 1)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_is_a_tts_error(kind: type) -> None:
    assert issubclass(kind, TTSError)


def test_a_setting_error_is_a_value_error() -> None:
    assert issubclass(SettingError, ValueError)


def test_out_of_memory_is_a_memory_error() -> None:
    assert issubclass(OutOfMemory, MemoryError)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_a_notebook_shows_one_line_with_the_kind_and_the_message(kind: type[TTSError]) -> None:
    assert kind("Needs 3.1 GB, 1.0 GB is free.")._render_traceback_() == [
        f"{kind.__name__}: Needs 3.1 GB, 1.0 GB is free."
    ]


def test_a_message_that_quotes_several_lines_is_still_one_line() -> None:
    assert SourceError("The hub said:\nnot found\r\nat all")._render_traceback_() == [
        "SourceError: The hub said: not found at all"
    ]


def test_ipython_shows_the_line_and_the_cell_still_fails(tmp_path: Path) -> None:
    """IPython itself, not our reading of it: no frames, and the error is the cell's result."""
    cell = "from chatterbox_nb.errors import NotLoaded\nraise NotLoaded('No model is loaded. Try %tts_load demo')"
    code = f"result = get_ipython().run_cell({cell!r}); print(type(result.error_in_exec).__name__)"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "--no-term-title", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "NO_COLOR": "1"},
        check=False,
    )
    shown = [line for line in done.stdout.splitlines() if line.strip()]
    assert shown == ["NotLoaded: No model is loaded. Try %tts_load demo", "NotLoaded"]


def test_cancelled_says_so_and_keeps_no_take_unless_it_is_given_one() -> None:
    assert str(Cancelled()) == "Stopped."
    assert Cancelled().take is None


def test_an_engine_error_keeps_its_details_out_of_its_message() -> None:
    error = EngineError("Not finite at layer 3.", details="Traceback (most recent call last): ...")
    assert str(error) == "Not finite at layer 3."
    assert error.details == "Traceback (most recent call last): ..."


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_an_error_travels_between_processes(kind: type[TTSError]) -> None:
    """nbclient and joblib pickle what a cell or a worker raised."""
    error = kind("It broke.")
    error.details = "where"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.details) == (kind, "It broke.", "where")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("englsh", " Did you mean english?"),
        ("english", " Did you mean english?"),
        ("ENGLISH", " Did you mean english?"),
        ("demo_", " Did you mean Demo?"),
        ("klingon", ""),
        ("", ""),
    ],
)
def test_the_nearest_choice_is_offered_when_one_is_near(word: str, hint: str) -> None:
    assert nearest(word, ["english", "Demo"]) == hint


def test_nothing_is_near_where_there_is_nothing() -> None:
    assert nearest("english", []) == ""


def test_choices_may_be_of_any_kind() -> None:
    assert nearest("2400", [24000, 16000, None]) == " Did you mean 24000?"
