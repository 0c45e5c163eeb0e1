"""Colab's stack made anew, the install cell of `notebooks/colab.ipynb` run in it, then the tests: `make test-colab`.

The stack is `tests/data/colab_stack.txt` on Python 3.13, in `.venv-colab`. It takes 5.4 GB where uv's cache cannot be
linked to, and 3 GB of downloads when that is empty; made from the cache it takes seconds, so it is made every time.
The cell runs in a kernel of that environment and gets the wheel just built. Whatever it was that changed one of the
packages that were there, the cell or the test tools after it, it fails here and is named.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
STACK = ROOT / "tests" / "data" / "colab_stack.txt"
ENVIRONMENT = ROOT / ".venv-colab"
PYTHON = ENVIRONMENT / "bin" / "python"
VERSION = "3.13"
OTHERS = ("3.12", "3.11")  # better than none, where Colab's own cannot be had
# Of the `test` extra: what is run before, in the other environment.
NOT_NEEDED = {"jupyterlab", "ruff", "mypy", "playwright", "axe-playwright-python"}
SELECTED = "not weights and not full and not gpu and not browser"
# What is the same on every stack, and takes long or is much: names and numbers of files, texts, documents.
LEFT_OUT = ("quality_gate", "tensorfile", "text", "abbreviations", "docs", "demo_voice")
# Colab's jupyter_client and ipykernel are older than Python 3.13, which warns of them; httpx leaves a socket to it.
HOST_WARNINGS = (
    "-W", "ignore:datetime.datetime.utcnow:DeprecationWarning",
    "-W", "ignore:There is no current event loop:DeprecationWarning",
    "-W", "ignore::ResourceWarning",
)  # fmt: skip
RUN_THE_CELL = """
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells = [next(cell for cell in notebook.cells if cell.cell_type == "code")]
NotebookClient(notebook, kernel_name="python3", timeout=900).execute()
print("".join(output.get("text", "") for output in notebook.cells[0].outputs).strip())
"""


def main() -> None:
    with _timed("Colab's stack"):
        _make_the_stack()
    before = _installed()
    with _timed("the install cell"):
        _run_the_cell()
    with_ours = _installed()
    _check_nothing_changed(before, with_ours, "the install cell")
    with _timed("test tools"):
        _install_the_tools(with_ours)
    _check_nothing_changed(with_ours, _installed(), "installing the test tools")
    failed = []
    ignored = [f"--ignore=tests/{name}" for name in ("browser", *(f"test_{name}.py" for name in LEFT_OUT))]
    for name, command in {
        "tests": ["-n", "2", "--dist", "loadgroup", "-m", SELECTED, *ignored],
        "notebooks": ["--nbval-lax", "--nbval-cell-timeout", "300", "-n", "2", "--dist", "loadfile", "notebooks"],
    }.items():
        with _timed(f"{name} on Colab's stack"):
            done = _run("-m", "pytest", "-p", "no:cacheprovider", *HOST_WARNINGS, *command, check=False)
        failed += [name] if done else []
    if failed:
        raise SystemExit(f"On Colab's stack failed: {', '.join(failed)}.")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"== {what}: {time.monotonic() - started:.0f} s", flush=True)


def _uv(*arguments: str) -> str:
    """What uv says; SystemExit where it fails."""
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, check=False, text=True, capture_output=True, env=_variables())
    if done.returncode:
        raise SystemExit(f"uv {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def _variables(**more: str) -> dict[str, str]:
    """This process's, as seen from within the environment."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    found = {name: value for name, value in os.environ.items() if name not in hidden}
    path = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kernels = {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return {**found, **kernels, "PATH": path, "CHATTERBOX_NB_MODEL": "demo", **more}


def _run(*arguments: str, check: bool = True, **variables: str) -> int:
    """Runs the environment's Python."""
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT, check=check, env=_variables(**variables)).returncode


def _make_the_stack() -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [(VERSION, "--no-python-downloads")]
    places += [(str(python), "--no-python-downloads") for python in versions.glob(f"{VERSION}.*/bin/python")]
    places += [(VERSION, "--quiet")]  # fetched, where it can be
    places += [(other, "--no-python-downloads") for other in OTHERS]
    for python, option in places:
        with suppress(SystemExit):
            _uv("venv", "--quiet", "--clear", "--python", python, option, str(ENVIRONMENT))
            break
    else:
        raise SystemExit(f"There is no Python {VERSION} here, and uv cannot fetch one. Install it, then try again.")
    if python in OTHERS:
        print(
            f"== There is no Python {VERSION}, which Colab has, and none to fetch: this is Python {python}.", flush=True
        )
    _install("--requirement", str(STACK))


def _install(*arguments: str) -> None:
    _uv("pip", "install", "--python", str(PYTHON), *arguments)
    _uv("pip", "uninstall", "--python", str(PYTHON), "jedi")  # IPython asks for it, and Colab has none


def _installed() -> dict[str, str]:
    listed = json.loads(_uv("pip", "list", "--python", str(PYTHON), "--format", "json"))
    return {entry["name"]: entry["version"] for entry in listed}


def _run_the_cell() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, capture_output=True)
        (wheel,) = folder.glob("*.whl")
        _run("-c", RUN_THE_CELL, str(ROOT / "notebooks" / "colab.ipynb"), CHATTERBOX_NB_WHEEL=str(wheel))
    finally:
        shutil.rmtree(folder)


def _install_the_tools(present: Mapping[str, str]) -> None:
    """What the project's own `test` extra names, at versions that leave what is present alone."""
    asked = [Requirement(line) for line in importlib.metadata.requires("chatterbox-nb") or []]
    wanted = [
        f"{tool.name}{tool.specifier}"
        for tool in asked
        if tool.marker and tool.marker.evaluate({"extra": "test"}) and not tool.marker.evaluate({"extra": ""})
        if tool.name not in NOT_NEEDED
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={version}\n" for name, version in present.items())
        constraints.flush()
        _install("--constraint", constraints.name, *wanted)


def _check_nothing_changed(before: Mapping[str, str], after: Mapping[str, str], who: str) -> None:
    changed = [f"{name} {old} to {after.get(name, 'none')}" for name, old in before.items() if after.get(name) != old]
    if changed:
        raise SystemExit(f"{who} changed {', '.join(changed)}.")
    added = ", ".join(f"{name} {after[name]}" for name in sorted(after.keys() - before.keys()))
    print(f"{who} left {len(before)} packages as they were and added {added}", flush=True)


if __name__ == "__main__":
    main()
