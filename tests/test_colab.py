"""What is installed on Colab: one list, in the wheel and in the notebooks, and a cell that changes nothing else.

`make test-colab` (tests/colab.py) runs the cell on Colab's own stack.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

import chatterbox_nb

ROOT = Path(__file__).parent.parent
LISTED = [
    line
    for line in (Path(chatterbox_nb.__file__).parent / "colab.txt").read_text().splitlines()
    if not line.startswith("#")
]


def cells(name: str) -> list[str]:
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


CELL = cells("colab.ipynb")[0]


def run(python: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return subprocess.run(
        [str(python), "-c", CELL], capture_output=True, text=True, check=False, env={**environment, **variables}
    )


def test_the_cell_installs_what_is_listed() -> None:
    (needs,) = (
        node.value
        for node in ast.parse(CELL).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NEEDS"
    )
    assert ast.literal_eval(needs) == LISTED


def test_every_notebook_for_colab_has_the_same_cell() -> None:
    assert cells("verify.ipynb")[0] == CELL


def test_everything_we_depend_on_is_listed_or_colabs_own() -> None:
    asked = [entry for entry in metadata.requires("chatterbox-nb") or [] if "extra ==" not in entry]
    names = {re.split(r"[^\w-]", entry)[0].lower().replace("_", "-") for entry in asked}
    stack = (ROOT / "tests" / "data" / "colab_stack.txt").read_text().lower().replace("_", "-")
    there = {line.split("==")[0] for line in stack.splitlines()}
    assert names <= {entry.split("==")[0] for entry in LISTED} | there


def test_the_cell_installs_nothing_where_it_is_installed() -> None:
    done = run(sys.executable)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"chatterbox-nb \S+ was here already, with all it needs\. Nothing was installed\.\n", done.stdout
    )


def _write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A wheel with nothing in it but some files."""
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        **files,
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}"
        for path, text in files.items()
    ]
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            **files,
            f"{stem}.dist-info/RECORD": "\n".join([*rows, f"{stem}.dist-info/RECORD,,\n"]),
        }.items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that has pip and a package called `guest`, and an index of empty packages."""
    folder = tmp_path_factory.mktemp("made")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    (folder / "index").mkdir()
    for need in LISTED[1:]:
        name, _, version = need.partition("==")
        _write_wheel(folder / "index", name, version or "1.0", {})
    guest = _write_wheel(folder, "guest", "1.0", {})
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", str(guest)], check=True)
    return folder


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The Python of a copy of it, of this test's own, and how pip finds the index."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    python, index = (tmp_path / "copy" / part for part in ("venv/bin/python", "index"))
    return python, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def test_the_cell_adds_what_is_missing_and_says_so(fresh: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, variables = fresh
    ours = _write_wheel(tmp_path, "chatterbox-nb", "9.0", {})
    done = run(python, CHATTERBOX_NB_WHEEL=str(ours), **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Added chatterbox-nb 9.0, chatterbox-tts 0.1.7, ")
    assert done.stdout.count(",") == len(LISTED) - 1
    assert re.search(r"The \d+ packages that were here are as they were\.\n$", done.stdout)


def test_the_cell_raises_when_a_package_was_changed(fresh: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, variables = fresh
    changed = {"chatterbox_nb-9.0.data/purelib/guest-1.0.dist-info/METADATA": "Name: guest\nVersion: 2.0\n"}
    ours = _write_wheel(tmp_path, "chatterbox-nb", "9.0", changed)
    done = run(python, CHATTERBOX_NB_WHEEL=str(ours), **variables)
    assert done.stderr.endswith(
        "RuntimeError: Installing changed guest 1.0 to 2.0. Delete this runtime and report it, please.\n"
    )


def test_the_cell_says_what_pip_says(fresh: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, variables = fresh
    done = run(python, CHATTERBOX_NB_WHEEL=str(tmp_path / "absent.whl"), **variables)
    assert done.returncode == 1
    assert "absent.whl" in done.stderr.splitlines()[-1]
