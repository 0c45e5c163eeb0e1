"""The surface people build on, and the direction of the imports behind it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import chatterbox_nb as tts

PACKAGE = Path(tts.__file__).parent
# From the top down: a module imports from its own floor or a lower one. Siblings on a floor are listed in order.
FLOORS = (
    ("notebook",),
    ("render",),
    ("verification",),
    ("conversion", "speech"),
    ("making",),
    ("library", "history"),
    ("take",),
    ("manager", "jobs"),
    ("choices",),
    ("gpu_figures",),
    ("engine",),
    ("checkpoint",),
    ("precision",),
    ("usage", "audio"),
    ("languages", "text", "events", "settings", "shown"),
    ("tags", "capitals", "symbols", "abbreviations", "characters", "numerals", "dotenv_file", "errors"),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def test_the_public_names_are_these() -> None:
    assert tts.__all__ == [
        "load", "speak", "stream", "submit", "convert", "info", "memory", "models", "voices", "takes", "panel",
        "unload", "Take", "SpeechRequest", "ConversionRequest", "CancelToken", "Progress", "TTSError",
    ]  # fmt: skip
    for name in tts.__all__:
        assert getattr(tts, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tts, "speek")


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, chatterbox_nb; "
        "print([name for name in ('torch', 'chatterbox', 'IPython', 'ipywidgets', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def _imports(path: Path, deferred: bool = True) -> list[str]:
    """Absolute names of what a file imports at run time; with `deferred`, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree) if deferred else tree.body:
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_imports_go_down_only() -> None:
    wrong = []
    for path in _modules():
        home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] != "chatterbox_nb" or len(parts) < 2 or parts[1] not in FLOOR:
                continue
            if FLOOR[parts[1]] < FLOOR[home]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_every_room_stands_on_a_floor() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in _modules()}
    assert rooms == set(FLOOR)


def test_the_heavy_packages_have_one_door_each() -> None:
    allowed = {"IPython": {"notebook"}, "ipywidgets": {"notebook"}, "chatterbox": {"engine", "checkpoint"}}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in _modules()
        for name in _imports(path)
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        not in allowed.get(name.split(".")[0], {path.relative_to(PACKAGE).parts[0].removesuffix(".py")})
    ]
    assert not wrong


def test_widgets_are_for_panels_alone() -> None:
    found = {
        str(path.relative_to(PACKAGE).parent)
        for path in _modules()
        for name in _imports(path)
        if name.split(".")[0] == "ipywidgets"
    }
    assert found == {"notebook/panels"}


def test_no_file_holds_two_ideas() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in _modules()
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
