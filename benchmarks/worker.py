"""One side of a benchmark, in a process of its own: `python -m benchmarks.worker SIDE FOLDER` prints a line of JSON.

Sides: `package`, and ours as `fp32`, `fp16`, `bf16`, `int8`, with a kernel behind a dash: `int8-dynamic`. Instead of a
kernel, `int8-first` quantizes and keeps the int8 form on disk, and `int8-kept` reads it. Each does the same work on
the same files: load, speak TOKENS speech tokens of one text, turn them into a mel, a wave, a marked wave.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 100  # 4 s of audio
TEXT = "A benchmark should say what it measured, on which machine, and how often, before it says who was faster."


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def run(side: str, folder: Path) -> dict[str, Any]:
    import torch

    from chatterbox_nb.checkpoint import reference
    from chatterbox_nb.usage import PeakMeter, process_bytes

    reference.import_package()
    import chatterbox_nb.engine.pipeline
    import chatterbox_nb.speech  # noqa: F401

    after_imports = process_bytes()
    measure = _package if side == "package" else _ours
    with PeakMeter() as meter, torch.inference_mode():
        figures = measure(side, folder, after_imports)
    figures |= {
        "side": side,
        "peak_growth_bytes": meter.peak - after_imports,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return figures


def _package(_: str, folder: Path, after_imports: int) -> dict[str, Any]:
    import numpy as np
    import torch
    from chatterbox.tts import ChatterboxTTS, punc_norm

    from chatterbox_nb.usage import PeakMeter, process_bytes

    with PeakMeter() as meter:
        model, load_seconds = timed(lambda: ChatterboxTTS.from_local(folder, "cpu"))
    growth = process_bytes() - after_imports
    ids = model.tokenizer.text_to_tokens(punc_norm(TEXT))
    ids = torch.nn.functional.pad(torch.nn.functional.pad(ids, (1, 0), value=255), (0, 1), value=0)
    torch.manual_seed(0)
    found, tokens_seconds = timed(
        lambda: model.t3.inference(
            t3_cond=model.conds.t3, text_tokens=torch.cat([ids, ids]), max_new_tokens=TOKENS,
            temperature=0.8, cfg_weight=0.5, repetition_penalty=1.2, min_p=0.05, top_p=1.0,
        )[0]
    )  # fmt: skip
    count = len(found)
    found = found[found < 6561]
    mel, mel_seconds = timed(lambda: model.s3gen.flow_inference(found, ref_dict=model.conds.gen, finalize=True))
    (wave, _), wave_seconds = timed(lambda: model.s3gen.hift_inference(mel, None))
    samples = wave[0].numpy().astype(np.float32)
    model.watermarker.apply_watermark(samples, sample_rate=24_000)  # the first call warms it up
    _, watermark_seconds = timed(lambda: model.watermarker.apply_watermark(samples, sample_rate=24_000))
    tensors = [
        tensor
        for part in (model.t3, model.s3gen, model.ve)
        for tensor in (*part.parameters(), *part.buffers())
    ]  # fmt: skip
    return {
        "load_seconds": load_seconds,
        "load_growth_bytes": growth,
        "load_peak_bytes": meter.peak - after_imports,
        "tensor_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "tokens": count,
        "audio_seconds": len(samples) / 24_000,
        "seconds": {
            "tokens": tokens_seconds,
            "mel": mel_seconds,
            "wave": wave_seconds,
            "watermark": watermark_seconds,
        },
    }


def _ours(side: str, folder: Path, after_imports: int) -> dict[str, Any]:
    import torch

    from chatterbox_nb.checkpoint import source
    from chatterbox_nb.checkpoint.cache import QuantizedCache
    from chatterbox_nb.engine import decode, flow, vocoder
    from chatterbox_nb.engine import model as engine
    from chatterbox_nb.engine.noise import PackageNoise
    from chatterbox_nb.engine.sampling import Sampling
    from chatterbox_nb.precision import device
    from chatterbox_nb.usage import PeakMeter, process_bytes, release

    precision, _, kernel = side.partition("-")
    kept = folder.parent / "quantized"
    if kernel == "first":
        shutil.rmtree(kept, ignore_errors=True)
    cache = QuantizedCache(kept) if kernel in ("first", "kept") else None
    kernel = "auto" if cache or not kernel else kernel
    spec, files = source.find("english", folder)
    with PeakMeter() as meter:
        here = device.facts("cpu")
        model, load_seconds = timed(lambda: engine.load(spec, files, precision, here, kernel, cache=cache))
        release()
    growth = process_bytes() - after_imports
    voice, noise = model.builtin_voice(), PackageNoise(0)
    prefix, prefill_seconds = timed(lambda: decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5))
    spoken, tokens_seconds = timed(
        lambda: decode.decode(model.t3, prefix, model.text_ids(TEXT), Sampling(), noise, TOKENS, TOKENS)
    )
    tokens = torch.tensor([decode.audible(spoken.tokens, spec.s3gen.codes)])
    mel, mel_seconds = timed(lambda: flow.tokens_to_mel(model.flow, tokens, voice, noise, spec.s3gen.cfm_steps))
    wave, wave_seconds = timed(lambda: vocoder.mel_to_wave(model.vocoder, mel, noise))
    model.watermarker.apply(wave.numpy(), spec.sample_rate)  # the first call warms it up
    _, watermark_seconds = timed(lambda: model.watermarker.apply(wave.numpy(), spec.sample_rate))
    report = model.report
    return {
        "load_seconds": load_seconds,
        "load_growth_bytes": growth,
        "load_peak_bytes": meter.peak - after_imports,
        "tensor_bytes": report.bytes,
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
        "tokens": len(spoken.tokens),
        "audio_seconds": len(wave) / spec.sample_rate,
        "seconds": {
            "tokens": prefill_seconds + tokens_seconds,
            "mel": mel_seconds,
            "wave": wave_seconds,
            "watermark": watermark_seconds,
        },
    }  # fmt: skip


if __name__ == "__main__":
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            measured = run(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(measured))
