"""Compiles every kernel of T3's step for GPUs that are not here: `python tests/gpu_compile.py 75,90 FOLDER int8 half`.
The model in the folder, and the tiny turbo beside it, which is a GPT-2.

Triton asks its driver which GPU it is for, and that is all it needs to get from here to machine code. In a process of
its own: where kernels are interpreted nothing is compiled. Prints a line of JSON: what was compiled, and what failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from chatterbox_nb.engine.nets.t3 import T3


def known() -> list[int]:
    """The architectures that the installed ptxas compiles for, from 75 up."""
    from triton.backends import nvidia

    folder = Path(nvidia.__file__).parent / "bin"
    found: set[int] = set()
    for program in sorted(folder.glob("ptxas*")):
        told = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
        found |= {int(number) for number in re.findall(r"'sm_(\d+)'", told)}
    return sorted(arch for arch in found if arch >= 75)


class Driver:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return self.arch  # what is compiled is kept by device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compiled(arch: int, folder: Path, precisions: list[str]) -> list[str]:
    """Every kernel for one architecture, at int8 or the half precision it computes: their names."""
    import turbos
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from chatterbox_nb.checkpoint import source
    from chatterbox_nb.engine import model as engine
    from chatterbox_nb.precision import device

    made: list[str] = []
    run = JITFunction.run

    def compile_only(self: Any, *given: Any, grid: Any, warmup: bool, **more: Any) -> Any:
        kernel = run(self, *given, grid=grid, warmup=True, **more)
        assert kernel.asm["cubin"]
        made.append(f"{self.fn.__name__}/{len(given)}")
        return kernel

    spec, files = source.find(source=folder)
    driver.set_active(Driver(arch))
    JITFunction.run = compile_only
    try:
        for asked in precisions:
            precision = asked if asked == "int8" else "fp16" if arch < 80 else "bf16"
            steps(engine.load(spec, files, precision, device.facts("cpu"), "plain").t3, arch)
            steps(turbos.t3(precision, "cpu"), arch)
    finally:
        JITFunction.run = run
    return made


def steps(t3: T3, arch: int) -> None:
    """A draw, a layer and the head, of one chunk and of as many as tensor cores are for."""
    from chatterbox_nb.engine.nets.gpu_step import GpuStep, Room

    step, rows_a_line = GpuStep(t3), 1 if t3.dims.gpt2 else 2
    step.tiled = arch >= 80
    for lines in (1, 8 // rows_a_line) if step.tiled else (1,):
        room = Room.empty(t3.dims, lines, rows_a_line, 200, t3)
        step.draw(room, lines)
        step.layers(room, lines, count=1)
        step.head(room, lines)


def main() -> None:
    archs = known() if sys.argv[1] == "all" else [int(arch) for arch in sys.argv[1].split(",")]
    folder, precisions = Path(sys.argv[2]), sys.argv[3:]
    print(json.dumps({str(arch): compiled(arch, folder, precisions) for arch in archs if arch in known()}))


if __name__ == "__main__":
    main()
