"""A machine, verified: every precision loaded, measured and heard, and fp32 held against the package itself.

    from chatterbox_nb import verification
    verification.run("english", tell=print)    # writes verified-<device>-<date>.json

It works as a user would, by `load`, `speak` and `memory`, and so changes the kernel's model. What fails is a line of
the report, and the rest is run all the same.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import manager, speech
from chatterbox_nb.settings import PRECISIONS
from chatterbox_nb.take import Take, now

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Model

Figures = dict[str, Any]
Tell = Callable[[str], Any]

TEXT = "The brown spring wants the orange street. Turn on the yellow lamp, and open the small window."
SEED = 7
# How far fp32 on a CPU may be from the package. A GPU rounds in another order; there the distances are for reading.
MEL_TOLERANCE, WAVE_TOLERANCE = 1e-4, 1e-5
_ORACLE_TOKENS = 64
_PACKAGES = (
    "chatterbox-nb", "chatterbox-tts", "torch", "torchaudio", "transformers", "diffusers", "numpy", "safetensors",
    "ipython", "ipykernel",
)  # fmt: skip


def run(
    model: str = "english", device: str | None = None, folder: str | Path = ".", tell: Tell = lambda line: None
) -> Path:
    """Verifies this machine.

    Args:
        model: a name of the catalog.
        device: as of `load`.
        folder: where the report is written.
        tell: told a line of each step as it ends.

    Returns:
        The report's file.
    """
    measured: dict[str, Figures] = {}
    oracle: Figures = {"failure": "fp32 did not load."}
    for precision in (name for name in PRECISIONS if name != "auto"):
        figures = measured[precision] = _attempt(_measure, model, precision, device)
        tell(f"{precision}: {told(figures)}")
        for step in figures.get("steps", []):
            tell(f"  {step['rows']} rows at {step['position']}: {step['milliseconds']:.2f} ms a token")
        if precision == "fp32" and "bytes" in figures:
            oracle = _attempt(_against_the_package)
            tell(f"the package's own numbers: {told_of_oracle(oracle)}")
    used = next((figures["device"] for figures in measured.values() if "device" in figures), "none")
    kernels = _attempt(_kernels, used) if used.startswith("cuda") else {}
    results: Figures = {
        "model": model,
        "date": now().date().isoformat(),
        "device": used,
        "title": device_title(used),
        "versions": versions(),
        "text": TEXT,
        "seed": SEED,
        "precisions": measured,
        "oracle": oracle,
        **({"gpu": kernels} if kernels else {}),
    }
    path = Path(folder) / f"verified-{_slug(results['title'])}-{results['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tell(f"written: {path}")
    return path


def _attempt(step: Callable[..., None], *arguments: Any) -> Figures:
    """The figures of a step. Where it fails, why, with what was measured before."""
    found: Figures = {}
    try:
        step(*arguments, found)
    except Exception as error:  # whatever it is, it belongs in the report
        found["failure"] = " ".join(f"{type(error).__name__}: {error}".split())
    return found


def _measure(model: str, precision: str, device: str | None, found: Figures) -> None:
    """Loads, and speaks twice: the first take on a GPU pays for what is prepared once."""
    speech.unload()
    report = speech.load(model, precision=precision, device=device)
    found |= {
        "device": report.plan.device,
        "kernel": report.plan.kernel,
        "why": report.plan.reason,
        "weights": report.weights,
        "bytes": report.bytes,
        "expected_bytes": report.plan.expected_bytes,
        "shipped_bytes": report.shipped_bytes,
        "ratios": dict(report.ratios),
        "load_seconds": sum(report.seconds.values()),
        "load_seconds_by_phase": dict(report.seconds),
        "process_growth_bytes": report.process_growth_bytes,
        "process_peak_bytes": report.process_peak_bytes,
        "takes": [],
    }
    for _ in range(2):
        found["takes"].append(_of_take(speech.speak(TEXT, seed=SEED)))
    found["memory"] = asdict(speech.memory())
    if report.plan.device.startswith("cuda"):
        shared = manager.get()
        found |= shared.submit("measuring", lambda job: _on_gpu(shared.loaded())).wait()


def _on_gpu(model: Model) -> Figures:
    """Tokens by position, takes alone and side by side, the first sound: what docs/gpu.md shows of another machine."""
    import torch

    from chatterbox_nb import gpu_figures

    with torch.inference_mode():
        return {"steps": gpu_figures.steps(model), "gpu_takes": gpu_figures.takes(model)}


def _kernels(device: str, found: Figures) -> None:
    import torch

    from chatterbox_nb import gpu_figures
    from chatterbox_nb.checkpoint.catalog import ENGLISH

    speech.unload()
    place = torch.device(device)
    found["copy_bytes_per_second"] = gpu_figures.copy_bandwidth(place)
    found["kernels"] = gpu_figures.kernels(ENGLISH.t3, place)


def _of_take(take: Take) -> Figures:
    work = sum(take.seconds.values())
    return {
        "audio_seconds": take.duration,
        "work_seconds": work,
        "seconds": dict(take.seconds),
        "real_time_factor": work / take.duration if take.duration else None,
        "tokens": take.tokens,
        "peak_bytes": take.peak_bytes,
        "finish": take.finish,
        "warnings": list(take.warnings),
    }


def _against_the_package(found: Figures) -> None:
    """Holds the loaded model against the package, on the model thread."""
    shared = manager.get()
    found |= shared.submit("verifying", lambda job: compare(shared.loaded())).wait()


def compare(model: Model) -> Figures:
    """Tokens, the mel of the package's tokens and the wave of the package's mel, from the package's noise."""
    import torch

    from chatterbox_nb.engine import decode, flow, vocoder
    from chatterbox_nb.engine.noise import PackageNoise
    from chatterbox_nb.engine.oracle import Package
    from chatterbox_nb.engine.sampling import Sampling

    package, voice, ids = Package(model.spec, model.files), model.builtin_voice(), model.text_ids(TEXT)
    place, sampling = model.device, Sampling.of(model.spec)
    with torch.inference_mode():
        prefix = decode.prefill(model.t3, voice.speaker.to(place), voice.t3_prompt.to(place), 0.5)
        decoded = decode.decode(model.t3, prefix, ids, sampling, PackageNoise(SEED), _ORACLE_TOKENS, _ORACLE_TOKENS)
        theirs = package.tokens(ids.cpu(), SEED, sampling.cfg_weight, 0.5, _ORACLE_TOKENS)
        same = next(
            (index for index, pair in enumerate(zip(decoded.tokens, theirs, strict=False)) if pair[0] != pair[1]),
            min(len(decoded.tokens), len(theirs)),
        )
        heard = list(decode.audible(tuple(theirs), model.spec.s3gen.codes))
        noise, steps = PackageNoise(SEED), model.spec.s3gen.cfm_steps
        our_mel = flow.tokens_to_mel(model.flow, torch.tensor([heard], device=place), voice, noise, steps).cpu()
        mel = package.mel(heard, SEED)
        our_wave = vocoder.mel_to_wave(model.vocoder, mel.to(place), PackageNoise(SEED)).cpu()
        wave = package.wave(mel, SEED)
    figures = {
        "tokens": len(theirs),
        "equal_tokens": same,
        "mel_distance": float((our_mel - mel).abs().max()),
        "wave_distance": float((our_wave - wave).abs().max()),
    }
    figures["held"] = (
        list(decoded.tokens) == theirs
        and figures["mel_distance"] <= MEL_TOLERANCE
        and figures["wave_distance"] <= WAVE_TOLERANCE
    )
    return figures


def told(figures: Figures) -> str:
    """A precision's figures in a line."""
    if "failure" in figures:
        return f"failed: {figures['failure']}"
    take, memory = figures["takes"][-1], figures["memory"]
    peak = f", peak {memory['peak'] / 1e9:.2f} GB" if memory["peak"] else ""
    factor = f"{take['real_time_factor']:.2f}" if take["audio_seconds"] else "none"
    part = 100 * figures["bytes"] / figures["shipped_bytes"]
    return (
        f"{figures['bytes'] / 1e9:.3g} GB ({part:.1f} % of what the package loads), "
        f"loaded in {figures['load_seconds']:.1f} s on {figures['device']}; {take['audio_seconds']:.1f} s of audio in "
        f"{take['work_seconds']:.1f} s, real-time factor {factor}{peak}"
    )


def told_of_oracle(oracle: Figures) -> str:
    """The comparison in a line."""
    if "failure" in oracle:
        return f"not compared: {oracle['failure']}"
    return (
        f"{oracle['equal_tokens']} of {oracle['tokens']} tokens equal, mel within {oracle['mel_distance']:.1e}, "
        f"wave within {oracle['wave_distance']:.1e}"
    )


def device_title(device: str) -> str:
    """What people call the device: the GPU's name, or the processor's and its cores."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    from chatterbox_nb.precision.device import processor

    return f"{processor()}, MPS" if device == "mps" else processor()


def versions() -> dict[str, str]:
    """Of Python, the system and the packages that decide about numbers."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", title.split(",")[0]).lower()).strip("-")
