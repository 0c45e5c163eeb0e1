"""Full-size report on a GPU: `make gpu`, or `python -m benchmarks.gpu [--folder FULL]`. Under 10 minutes.

In one process: the kernels against float64 and against a copy, the embedded voice and tiny models at fp32 against the
package on the CPU; then random checkpoints of each model's true size, which are written if absent: the English one at
every precision, the others at some, each beside the package on the same GPU. Figures go to
`benchmarks/results/gpu.json` as they come; `benchmarks/gpu_table.py` makes docs/gpu.md of them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import gpu_table, pages
from chatterbox_nb import gpu_figures
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.gpu_figures import Figures

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.precision.plan import DeviceFacts

PRECISIONS = ("int8", "bf16", "fp16", "fp32")
OTHERS, OF_OTHERS = ("turbo", "nano", "multilingual-v3"), ("int8", "bf16")
PACKAGE_TOKENS = 125


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="English's checkpoint, made if absent")
    arguments.add_argument(
        "--models", type=Path, default=Path("out/models"), help="the others', each in its own folder"
    )
    arguments.add_argument("--out", type=Path, default=gpu_table.RESULTS, help="where the figures go")
    arguments.add_argument("--precisions", default=",".join(PRECISIONS), help="those of the full-size model")
    arguments.add_argument("--others", nargs="*", default=OTHERS, metavar="NAME", help="models beside the English one")
    arguments.add_argument("--no-package", action="store_true", help="without the package's own runs on the GPU")
    asked = arguments.parse_args()
    import torch

    from chatterbox_nb.precision import device

    if not torch.cuda.is_available():
        raise SystemExit("This machine has no CUDA device that torch can use: there is nothing to measure.")
    report = _Report(asked.out)
    device.wake("cuda:0")
    facts = device.facts("cuda:0")
    report.results |= {**pages.here("make gpu"), "engine": pages.engine(), **_versions(facts)}
    here = torch.device(facts.name)
    report.part(gpu_figures.copy_bandwidth, here, at=("copy_bytes_per_second",))
    report.part(gpu_figures.kernels, catalog.ENGLISH.t3, here, at=("kernels", "english"))
    report.part(gpu_figures.kernels, catalog.TURBO.t3, here, at=("kernels", "turbo"))
    report.part(_oracles, facts, at=("oracles",))
    for precision in ("fp32", "int8"):
        report.part(_measured, "demo", None, precision, facts, at=("precisions", "demo", precision))
    for name in ("english", *asked.others):
        folder = asked.folder if name == "english" else asked.models / name
        report.part(_checkpoint, name, folder, at=("checkpoints", name))
        for precision in asked.precisions.split(",") if name == "english" else OF_OTHERS:
            report.part(_measured, name, folder, precision, facts, at=("precisions", name, precision))
        if not (asked.no_package or len(catalog.spec(name).languages) > 1):
            report.part(_package, name, folder, at=("packages", name))
    print(gpu_table.markdown(report.results))


class _Report:
    """The figures as they come: kept after each part, whatever becomes of the next.

    Args:
        out: the file that they are kept in.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.results = out, Figures()
        self._begun = time.perf_counter()

    def part(self, work: Callable[..., Any], *of: Any, at: tuple[str, ...]) -> None:
        """Measures something; a failure is what was found, too.

        Args:
            of: the arguments of `work`.
            at: where its figures stand.
        """
        import torch

        started = time.perf_counter()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = work(*of)
            except Exception as error:  # the rest is measured all the same
                found = {"failure": " ".join(f"{type(error).__name__}: {error}".split())}
        *above, name = at
        here = self.results
        for each in above:
            here = here.setdefault(each, {})
        here[name] = found
        self.results["seconds"] = time.perf_counter() - self._begun
        pages.keep(self.out, self.results)
        print(f"{' of '.join(at)}: {time.perf_counter() - started:.0f} s{gpu_table.told(found)}", flush=True)


def _versions(facts: DeviceFacts) -> Figures:
    import torch

    from chatterbox_nb.verification import device_title, versions

    return {
        "device": device_title(facts.name),
        "capability": facts.capability,
        "cuda": torch.version.cuda,
        "versions": versions(),
    }


def _oracles(facts: DeviceFacts) -> Figures:
    """At fp32 on the GPU against the package on the CPU: tokens, mel, wave of the embedded voice and of tiny models."""
    from chatterbox_nb import verification
    from chatterbox_nb.checkpoint.synthetic import TINY_MULTILINGUAL, TINY_TURBO, write

    found = {"demo": verification.compare(_load("demo", None, "fp32", facts))}
    with tempfile.TemporaryDirectory() as folder:
        for spec in (TINY_TURBO, TINY_MULTILINGUAL):
            there = write(spec, Path(folder) / spec.name)
            found[spec.name] = verification.compare(_load(None, there, "fp32", facts))
    return found


def _checkpoint(name: str, folder: Path) -> str:
    from chatterbox_nb.checkpoint import synthetic

    return str(synthetic.kept_full(folder, catalog.spec(name)).name)


def _load(name: str | None, folder: Path | None, precision: str, facts: DeviceFacts) -> Model:
    from chatterbox_nb.checkpoint import source
    from chatterbox_nb.engine import model as engine

    return engine.load(*source.find(name, folder), precision, facts)


def _measured(name: str, folder: Path | None, precision: str, facts: DeviceFacts) -> Figures:
    """A precision: load and memory, tokens, takes."""
    import torch

    _empty()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    model = _load(name, folder, precision, facts)
    torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - started, torch.cuda.max_memory_allocated()
    _empty()
    loaded = torch.cuda.memory_allocated()
    found: Figures = {
        "reason": model.reason,
        "load_seconds": seconds,
        "load_seconds_by_phase": dict(model.report.seconds),
        "tensor_bytes": model.report.bytes,
        "shipped_bytes": model.report.shipped_bytes,
        "allocated_before_bytes": before,
        "allocated_bytes": loaded - before,
        "load_peak_bytes": peak - before,
        "takes": gpu_figures.takes(model),
        "steps": gpu_figures.steps(model),
    }
    found["reason"] = model.reason  # with what turned out meanwhile
    _empty()
    found["allocated_after_takes_bytes"] = torch.cuda.memory_allocated() - before
    del model
    _empty()
    found["allocated_after_unload_bytes"] = torch.cuda.memory_allocated()
    return found


def _empty() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _package(name: str, folder: Path) -> Figures:
    """The package on the GPU, as its `generate` works, a stage at a time; the second of two takes."""
    import torch

    from benchmarks import package, worker

    _empty()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with _quiet():
        (model, _), seconds = worker.timed(lambda: package.load(catalog.spec(name), "package", folder, "cuda"))
        loaded, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
        for tokens in (8, PACKAGE_TOKENS):
            torch.cuda.reset_peak_memory_stats()
            taken = package.take(model, worker.TEXT, tokens, False)
    found = taken["seconds"]
    stages = {"tokens": found.pop("prefill") + found.pop("decode"), **found}
    return {
        "load_seconds": seconds,
        "allocated_bytes": loaded,
        "load_peak_bytes": peak,
        "tokens": taken["tokens"],
        "milliseconds_a_token": 1000 * stages["tokens"] / taken["tokens"],
        "audio_seconds": taken["audio_seconds"],
        "seconds_by_stage": stages,
        "real_time_factor": sum(stages.values()) / taken["audio_seconds"],
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
