"""Full-size report on a GPU: `make gpu`, or `python -m benchmarks.gpu [--folder FULL]`. Under 8 minutes.

Writes a random checkpoint of the English model's true size, then in one process: the kernels against float64 and
against a copy, the embedded voice at fp32 against the package on the CPU, every precision, and the package on the same
GPU. Figures go to `benchmarks/results/gpu.json` as they come; `benchmarks/gpu_table.py` makes docs/gpu.md of them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import gpu_table, pages
from chatterbox_nb import gpu_figures
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.gpu_figures import Figures

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.precision.plan import DeviceFacts

PRECISIONS = ("int8", "bf16", "fp16", "fp32")
PACKAGE_TOKENS = 125


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path("out/full"), help="the checkpoint, made if absent")
    arguments.add_argument("--out", type=Path, default=gpu_table.RESULTS, help="where the figures go")
    arguments.add_argument("--precisions", default=",".join(PRECISIONS), help="those of the full-size model")
    arguments.add_argument("--no-package", action="store_true", help="without the package's own run on the GPU")
    asked = arguments.parse_args()
    import torch

    from chatterbox_nb.checkpoint import synthetic
    from chatterbox_nb.precision import device

    if not torch.cuda.is_available():
        raise SystemExit("This machine has no CUDA device that torch can use: there is nothing to measure.")
    begun = time.perf_counter()
    device.wake("cuda:0")
    facts = device.facts("cuda:0")
    results: Figures = {**pages.here("make gpu"), "engine": pages.engine(), **_versions(facts)}

    def part(name: str, work: Callable[[], Any]) -> None:
        started = time.perf_counter()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results[name] = work()
            except Exception as error:  # the rest is measured all the same
                results[name] = {"failure": " ".join(f"{type(error).__name__}: {error}".split())}
        results["seconds"] = time.perf_counter() - begun
        pages.keep(asked.out, results)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        print(gpu_table.told(name, results[name]), flush=True)

    here = torch.device(facts.name)
    part("copy_bytes_per_second", lambda: gpu_figures.copy_bandwidth(here))
    part("kernels", lambda: gpu_figures.kernels(ENGLISH.t3, here))
    part("oracle", lambda: _oracle(facts))
    part("demo", lambda: {precision: _measured("demo", None, precision, facts) for precision in ("fp32", "int8")})
    part("checkpoint", lambda: str(synthetic.kept_full(asked.folder).name))
    part(
        "english",
        lambda: {name: _measured("english", asked.folder, name, facts) for name in asked.precisions.split(",")},
    )
    if not asked.no_package:
        part("package", lambda: _package(asked.folder))
    print(gpu_table.markdown(results))


def _versions(facts: DeviceFacts) -> Figures:
    import torch

    from chatterbox_nb.verification import device_title, versions

    return {
        "device": device_title(facts.name),
        "capability": facts.capability,
        "cuda": torch.version.cuda,
        "versions": versions(),
    }


def _oracle(facts: DeviceFacts) -> Figures:
    """The embedded voice at fp32 on the GPU against the package on the CPU: tokens, mel, wave."""
    from chatterbox_nb import verification

    return verification.compare(_load("demo", None, "fp32", facts))


def _load(name: str, folder: Path | None, precision: str, facts: DeviceFacts) -> Model:
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


def _package(folder: Path) -> Figures:
    """The package on the GPU, as its `generate` works, a stage at a time; the second of two takes."""
    import torch
    from chatterbox.tts import ChatterboxTTS

    from benchmarks.worker import TEXT

    _empty()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with _quiet():
        started = time.perf_counter()
        model = ChatterboxTTS.from_local(folder, "cuda")
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        loaded, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
        for tokens in (8, PACKAGE_TOKENS):
            torch.cuda.reset_peak_memory_stats()
            stages = _package_take(model, TEXT, tokens)
    audio = stages.pop("audio")
    return {
        "load_seconds": seconds,
        "allocated_bytes": loaded,
        "load_peak_bytes": peak,
        "tokens": PACKAGE_TOKENS,
        "milliseconds_a_token": 1000 * stages["tokens"] / PACKAGE_TOKENS,
        "audio_seconds": audio,
        "seconds_by_stage": stages,
        "real_time_factor": sum(stages.values()) / audio,
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def _package_take(model: Any, text: str, tokens: int) -> dict[str, float]:
    """Seconds of each stage, and of the audio."""
    import numpy as np
    import torch

    ids = model.tokenizer.text_to_tokens(text).to("cuda")
    ids = torch.nn.functional.pad(torch.nn.functional.pad(ids, (1, 0), value=255), (0, 1), value=0)
    torch.manual_seed(0)
    clock = _Clock()
    found = model.t3.inference(
        t3_cond=model.conds.t3, text_tokens=torch.cat([ids, ids]), max_new_tokens=tokens,
        temperature=0.8, cfg_weight=0.5, repetition_penalty=1.2, min_p=0.05, top_p=1.0,
    )[0]  # fmt: skip
    clock.stage("tokens")
    spoken = found[found < ENGLISH.s3gen.codes]
    mel = model.s3gen.flow_inference(spoken, ref_dict=dict(model.conds.gen), finalize=True)
    clock.stage("mel")
    wave, _ = model.s3gen.hift_inference(mel, None)
    samples = wave[0].cpu().numpy().astype(np.float32)
    clock.stage("wave")
    model.watermarker.apply_watermark(samples, sample_rate=model.sr)
    clock.stage("watermark")
    return {**clock.seconds, "audio": len(samples) / model.sr}


class _Clock:
    """Seconds of stages, each measured to the end of its work on the device."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def stage(self, name: str) -> None:
        now = self._now()
        self.seconds[name], self._last = now - self._last, now

    def _now(self) -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
