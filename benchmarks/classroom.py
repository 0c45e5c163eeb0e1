"""Memory of kernels on one machine that hold the same model at int8: `make classroom`, when the machine is idle.

Real kernels, one after another: each makes the imports of a load, then loads the same full-size random weights from the
same cache, then says a few words. PSS counts a page that n processes share as 1/n in each, so that sums are memory of
the machine; USS is what nobody shares. A last kernel reads the cache into memory of its own: what a copy each would be.
`benchmarks/classroom_table.py` makes docs/classroom.md of it.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks import classroom_table, pages
from benchmarks.kernel import Kernel, started
from chatterbox_nb.checkpoint import synthetic

KERNELS = 8
SPOKEN, STEPS = 25, 2  # speech tokens, a second, and Euler steps
IMPORTS = """
import sys, torch
from chatterbox_nb.checkpoint import reference
reference.import_package()
import chatterbox_nb.speech, chatterbox_nb.notebook.magics, chatterbox_nb.engine.model, chatterbox_nb.engine.pipeline
import chatterbox_nb.engine.nets.stepper, perth, librosa.core, librosa.filters, librosa.util
before = set(sys.modules)
"""
LOAD = """
%load_ext chatterbox_nb
import chatterbox_nb as tts
report = tts.load("english", precision="int8", device="cpu", source={folder!r})
"""
OF_ITS_OWN = """
import chatterbox_nb.engine.weights
chatterbox_nb.engine.weights._shares = lambda planned: False
"""
SPEAK = f"""
from dataclasses import replace
model = tts.manager.get().loaded()
model.spec = replace(model.spec, max_tokens={SPOKEN})  # random weights never stop by themselves
take = tts.speak("Hello.", seed=7, cfm_steps={STEPS})
seconds, tokens = round(take.duration, 2), len(take.chunks[0].tokens)
del take, model
tts.takes.clear()
"""


def environment(quantized: Path, threads: int) -> dict[str, str]:
    """Of a kernel of the class."""
    return {
        "QUANTIZED_CACHE_DIR": str(quantized.resolve()),
        "OMP_NUM_THREADS": str(threads),
        "MEMORY_CLEANUP_INTERVAL": "1",
        "PYTHON_DOTENV_DISABLED": "1",
    }


def measure(folder: Path, quantized: Path, count: int, threads: int) -> dict[str, Any]:
    """Memory of every kernel at each stage, and of all together after each kernel's step."""
    load = LOAD.format(folder=str(folder.resolve()))
    found: dict[str, Any] = {"kernels": count, "stages": {}, "totals": {}}
    with ExitStack() as stack:
        kernels: list[Kernel] = []

        def enter() -> Kernel:
            kernels.append(stack.enter_context(started(environment(quantized, threads))))
            return kernels[-1]

        def note(stage: str) -> None:
            total = sum(kernel.memory()["pss"] for kernel in kernels)
            found["totals"].setdefault(stage, []).append(total)
            print(f"{stage}: {total / 1e6:.0f} MB in all", flush=True)

        for _ in range(count):
            enter().ask(IMPORTS)
            note("imports")
        found["stages"]["imports"] = [kernel.memory() for kernel in kernels]
        for kernel in kernels:
            begun = time.perf_counter()
            kernel.ask(load)
            found.setdefault("load_seconds", []).append(round(time.perf_counter() - begun, 1))
            note("loaded")
        found["cache"] = [kernel.ask("", "report.cache") for kernel in kernels]
        found["plan"] = kernels[0].ask("", "(report.plan.kernel, report.bytes, report.watermarker_bytes)")
        found["imported_by_load"] = kernels[0].ask("", "len(set(sys.modules) - before)")
        time.sleep(1)
        found["stages"]["loaded"] = [kernel.memory() for kernel in kernels]
        for kernel in kernels:
            found.setdefault("spoken", []).append(kernel.ask(SPEAK, "(seconds, tokens)"))
            time.sleep(1)
            note("after speech")
        found["stages"]["after speech"] = [kernel.memory() for kernel in kernels]
        alone = enter()
        alone.ask(IMPORTS)
        before = alone.memory()
        alone.ask(OF_ITS_OWN + load)
        found["of its own"] = {"imports": before, "loaded": alone.memory()}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kernels", type=int, default=KERNELS, help="how many")
    arguments.add_argument("--threads", type=int, default=1, help="of each kernel")
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="those weights, made if absent")
    arguments.add_argument("--dry", action="store_true", help="print, write nothing")
    asked = arguments.parse_args()
    synthetic.kept_full(asked.folder)
    results = {
        **pages.here("make classroom"),
        "torch": torch.__version__,
        "threads": asked.threads,
        "spoken_tokens": SPOKEN,
        "cfm_steps": STEPS,
        **measure(asked.folder, asked.folder.parent / "quantized", asked.kernels, asked.threads),
    }
    print(classroom_table.table(results), classroom_table.verdict(results), sep="\n\n")
    if not asked.dry:
        classroom_table.write(results)


if __name__ == "__main__":
    main()
