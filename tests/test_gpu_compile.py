"""Kernels compiled to machine code for GPUs that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")

TESTS = Path(__file__).parent
FEW = (75, 90)  # a T4 and the newest that every Triton here knows; all others where there is more time


def compiled(archs: str, folder: Path, *precisions: str) -> dict[str, list[str]]:
    path = os.pathsep.join(filter(None, (str(TESTS.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(TESTS / "gpu_compile.py"), archs, str(folder), *precisions],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def held(found: dict[str, list[str]]) -> None:
    for arch, kernels in found.items():
        names = [name.partition("/")[0] for name in kernels]
        assert {"_draw", "_attend", "_multiply"} <= set(names), arch
        assert names.count("_draw") >= (2 if int(arch) < 80 else 4), "of a Llama and of a GPT-2; few rows and many"
        assert ("_multiply_tiles" in names) == (int(arch) >= 80), arch


def test_kernels_compile_for_a_t4_and_for_hopper(tiny_folder: Path) -> None:
    found = compiled(",".join(map(str, FEW)), tiny_folder, "int8")
    assert set(found) == set(map(str, FEW))
    held(found)


@pytest.mark.more
def test_kernels_compile_for_every_architecture_that_ptxas_knows(tiny_folder: Path) -> None:
    found = compiled("all", tiny_folder, "int8")
    assert {"75", "80", "86", "89", "90"} <= set(found)
    held(found)
    held(compiled("75,80,90", tiny_folder, "half"))
