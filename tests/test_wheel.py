"""The wheel, installed away from the repository, speaks `demo` without a network and without a home it may write to."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import os, pathlib, socket, sys

def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse

import chatterbox_nb as tts
home = pathlib.Path(tts.__file__).resolve()
assert str(home).startswith(sys.prefix), home
tts.load("demo", precision="int8")
take = tts.speak("The brown spring wants the orange street.", seed=7)
assert take.finish == "stop" and 1.5 < take.duration < 4.0, take
print("spoke", take.duration)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (found,) = folder.glob("*.whl")
    return found


def test_it_contains_the_code_the_voice_and_the_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    package = {name.removeprefix("chatterbox_nb/") for name in names if name.startswith("chatterbox_nb/")}
    sources = {
        str(path.relative_to(ROOT / "chatterbox_nb"))
        for path in (ROOT / "chatterbox_nb").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package == sources
    assert {"py.typed", "demo/config.json", "demo/t3_cfg.safetensors", "demo/conds.pt"} <= package
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE"}
    assert not [name for name in names if name.startswith(("tests", "notebooks", "benchmarks"))]
    assert wheel.stat().st_size < 14_000_000


@pytest.mark.more
def test_it_speaks_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are lent by this environment; this package is not, since it is installed editable here."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    (target,) = (environment / "lib").glob("python3*/site-packages")
    (target / "lent.pth").write_text("\n".join(site.getsitepackages()))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    home = "/proc/sys/kernel" if Path("/proc/sys/kernel").is_dir() else "/dev/null"  # read-only for root too
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "PYTHON"))}
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", PROGRAM],
        cwd=tmp_path,
        env={**variables, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("spoke")
