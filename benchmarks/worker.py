"""One side of a benchmark, in a process of its own: `python -m benchmarks.worker SIDE FOLDER` prints a line of JSON.

`--model` names a model of the catalog, whose files the folder has. Sides: `package`, and ours as `fp32`, `fp16`,
`bf16`, `int8`, with a kernel behind a dash: `int8-dynamic`. The int8 form is kept on disk beside the folder;
`int8-first` quantizes and writes it, and does no more. All others do the same work on the same files: load, warm up,
speak so many tokens of one text, turn them into a mel, a wave, a marked wave.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatterbox_nb.audio import Clip
    from chatterbox_nb.checkpoint.spec import ModelSpec
    from chatterbox_nb.engine.model import Model

TOKENS = 225  # 9 s of audio
# Random weights end a text after some three tokens for each of its own, so it has to be long enough not to.
TEXT = (
    "A benchmark should say what it measured, on which machine, and how often, before it says who was faster. "
    "This one speaks for nine seconds, with each of them in turn."
)
RATE = 24_000
CLIP_SECONDS = 10.0
_WARM_TEXT, _WARM_TOKENS, WARM_CLIP_SECONDS = "Warm.", 8, 2.0
CODES = 6561  # speech tokens that stand for sound
Figures = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returned, and seconds, to the end of its work on a GPU."""
    import torch

    started = time.perf_counter()
    result = work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def run(side: str, folder: Path, tokens: int, with_voice: bool, name: str = "english") -> Figures:
    """Everything about one side; memory is measured over the load and the take, before anything else is done."""
    import torch

    from benchmarks import package
    from chatterbox_nb.checkpoint import catalog, reference
    from chatterbox_nb.usage import PeakMeter, process_bytes

    reference.import_package()
    import chatterbox_nb.engine.pipeline
    import chatterbox_nb.speech  # noqa: F401

    after_imports = process_bytes()
    load, take, more = (
        (package.load, package.take, package.more) if side == "package" else (_load_ours, _our_take, _our_more)
    )
    spec = catalog.spec(name)
    with torch.inference_mode():
        with PeakMeter() as meter:
            with PeakMeter() as loading:
                (model, figures), load_seconds = timed(lambda: load(spec, side, folder))
            figures["load_growth_bytes"] = process_bytes() - after_imports
            if side != "int8-first":
                take(model, _WARM_TEXT, _WARM_TOKENS, True)
                figures |= _summed(take(model, TEXT, tokens, False))
        figures |= {
            "side": side,
            "load_seconds": load_seconds,
            "load_peak_bytes": loading.peak - after_imports,
            "peak_growth_bytes": meter.peak - after_imports,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        figures |= more(model, figures, tokens, with_voice)
    figures.pop("spoken", None)
    return figures


def _summed(figures: Figures) -> Figures:
    """A take with its sums: all seconds, and those of work for a second of audio."""
    total = sum(figures["seconds"].values())
    return {**figures, "total_seconds": total, "real_time_factor": total / figures["audio_seconds"]}


def rates(begun: float, stamps: list[float], ended: float) -> Figures:
    """Of the tokens of a take.

    Args:
        begun, ended: before its prefill, after its last token.
        stamps: when the logits of each token were there.
    """
    rate = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    return {
        "tokens": len(stamps),
        "tokens_per_second": rate,
        "milliseconds_a_token": 1000 / rate,
        "seconds": {"prefill": stamps[0] - begun, "decode": ended - stamps[0]},
    }


def clip(seconds: float) -> Clip:
    """A synthetic clip: harmonics that come and go, over some noise."""
    import numpy as np

    from chatterbox_nb.audio import Clip

    time_ = np.arange(int(seconds * RATE)) / RATE
    voiced = sum(np.sin(2 * np.pi * 120 * k * time_) / k for k in range(1, 9)) * (1 + np.sin(2 * np.pi * 3 * time_))
    noise = np.random.default_rng(0).standard_normal(len(time_))
    return Clip((0.05 * voiced + 0.005 * noise).astype(np.float32), RATE)


def _load_ours(spec: ModelSpec, side: str, folder: Path) -> tuple[Model, Figures]:
    from chatterbox_nb.checkpoint import source
    from chatterbox_nb.checkpoint.cache import QuantizedCache
    from chatterbox_nb.engine import model as engine
    from chatterbox_nb.precision import device
    from chatterbox_nb.usage import release

    precision, _, kernel = side.partition("-")
    kept = folder.parent / f"quantized-{spec.name}"
    if kernel == "first":
        shutil.rmtree(kept, ignore_errors=True)
        kernel = ""
    spec, files = source.find(spec.name, folder)
    cache = QuantizedCache(kept) if precision == "int8" else None
    model = engine.load(spec, files, precision, device.facts("cpu"), kernel or "auto", cache=cache)
    release()
    report = model.report
    every_token = [
        row.bytes
        for row in report.rows
        if row.component == "t3" and row.kind in ("linear", "norm", "head") and row.placement == "resident"
    ]
    return model, {
        "tensor_bytes": report.bytes,
        "token_bytes": sum(every_token),
        "shipped_bytes": report.shipped_bytes,
        "own_fp32_bytes": report.own_fp32_bytes,
        "own_fp16_bytes": report.own_fp16_bytes,
        "watermarker_bytes": report.watermarker_bytes,
        "kernel": model.plan.kernel,
        "cache": report.cache,
        "load_phases": dict(report.seconds),
        "rows": [
            {
                "component": row.component, "kind": row.kind, "storage": row.storage, "placement": row.placement,
                "tensors": row.tensors, "bytes": row.bytes, "shipped_bytes": row.shipped_bytes,
            }
            for row in report.rows
        ],
    }  # fmt: skip


def _our_take(model: Model, text: str, tokens: int, short: bool) -> Figures:
    """A stage at a time. Short: a second of the reference, and one step."""
    import torch

    from chatterbox_nb.engine import decode, flow, vocoder
    from chatterbox_nb.engine.noise import StageNoise
    from chatterbox_nb.engine.sampling import Sampling

    spec, noise = model.spec, StageNoise(0)
    voice = model.builtin_voice().shortened(1.0 if short else None)
    steps = 1 if short else spec.s3gen.cfm_steps
    ids = model.text_ids(text)
    begun = time.perf_counter()
    prefix, prefix_seconds = timed(lambda: decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5))
    with decode.Decoding(model.t3, prefix, Sampling.of(spec)) as decoding:
        line = decoding.begin(ids, noise, tokens, tokens)
        stamps = [time.perf_counter()]
        while line.finish is None:
            decoding.advance()
            stamps.append(time.perf_counter())
    ended = time.perf_counter()
    spoken = decode.audible(tuple(line.tokens), spec.s3gen.codes)
    found = torch.tensor([spoken + spec.closing_tokens])
    mel, mel_seconds = timed(lambda: flow.tokens_to_mel(model.flow, found, voice, noise, steps))
    wave, wave_seconds = timed(lambda: vocoder.mel_to_wave(model.vocoder, mel, noise))
    _, watermark_seconds = timed(lambda: model.watermarker.apply(wave.numpy(), spec.sample_rate))
    figures = rates(begun, stamps[:-1], ended)
    figures["seconds"] |= {"mel": mel_seconds, "wave": wave_seconds, "watermark": watermark_seconds}
    figures |= {"cfm_steps": steps, "reference_seconds": voice.seconds, "prefix_seconds": prefix_seconds}
    return {**figures, "audio_seconds": len(wave) / spec.sample_rate, "spoken": spoken}


def _our_more(model: Model, figures: Figures, tokens: int, with_voice: bool) -> Figures:
    if figures["side"] != "int8" or model.spec.name != "english":
        return {}
    from benchmarks import extras

    found = extras.measure(model, TEXT, figures, tokens)
    if with_voice:
        extras.prepared(model, clip(WARM_CLIP_SECONDS))
        found["voice"] = extras.prepared(model, clip(CLIP_SECONDS))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("side")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--tokens", type=int, default=TOKENS, help="speech tokens of the take")
    arguments.add_argument("--model", default="english", help="of the catalog")
    arguments.add_argument("--voice", action="store_true", help="prepare a voice, too")
    asked = arguments.parse_args()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            measured = run(asked.side, asked.folder, asked.tokens, asked.voice, asked.model)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
