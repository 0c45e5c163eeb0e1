"""What a GPU does with a loaded model, measured: kernels, tokens, stages, takes, memory.

Used by `verification` on a machine of yours, and by `benchmarks/gpu.py`. Work is timed with the device's own events,
or with the clock after the device is done; what is compiled or recorded once is done before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.spec import T3Dims
    from chatterbox_nb.engine.model import Model

Figures = dict[str, Any]
POSITIONS = (100, 500, 1000)
SECONDS = 10.0  # of the takes
BATCH = 8  # chunks side by side
_MANY = 1 << 28  # bytes that are read before the first is read again: more than any cache holds
_TEXT = (
    "A benchmark should say what it measured, on which machine, and how often, before it says who was faster. "
    "This one speaks for ten seconds, with each of them in turn, and then once more with all of them together."
)


def seconds_of(work: Callable[[], Any], repeats: int = 10) -> float:
    """Of one call, on the device."""
    work()
    torch.cuda.synchronize()
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    for _ in range(repeats):
        work()
    ended.record()
    torch.cuda.synchronize()
    return float(begun.elapsed_time(ended)) / repeats / 1000


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by torch's copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def kernels(dims: T3Dims, device: torch.device, rows: Sequence[int] = (2, 8)) -> list[Figures]:
    """T3's products: how far from float64, and bytes of weights a second, one after another in a graph.

    Args:
        dims: of T3.
        rows: of activations.
    """
    D, F, V = dims.width, dims.ffn, dims.speech_vocab
    shapes: dict[str, tuple[int, int, dict[str, bool]]] = {
        "qkv": (3 * D, D, {"norm": True}),
        "out": (D, D, {"add": True}),
        **(
            {"up": (F, D, {"norm": True, "gelu": True})}
            if dims.gpt2
            else {"gate_up": (2 * F, D, {"norm": True, "gated": True})}
        ),
        "down": (D, F, {"add": True}),
        "head": (V, D, {"norm": True}),
    }
    half = "float16" if torch.cuda.get_device_capability(device) < (8, 0) else "bfloat16"
    return [
        {"matrix": name, "rows": N, "columns": K, "storage": storage, **figures}
        for name, (N, K, options) in shapes.items()
        for storage in ("int8", half)
        for figures in _kernel(N, K, storage, options, rows, dims, device)
    ]


def _kernel(
    N: int, K: int, storage: str, options: dict[str, bool], rows: Sequence[int], dims: T3Dims, device: torch.device
) -> Iterator[Figures]:
    """One matrix, with each number of rows."""
    from chatterbox_nb.engine.graphs import Recorder
    from chatterbox_nb.engine.nets.gpu_step import has_tensor_cores
    from chatterbox_nb.precision.kernels.rows import Matrix, Norm, multiply
    from chatterbox_nb.precision.layers import quantize

    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(N, K, generator=generator) / K**0.5
    stored = quantize(drawn) if storage == "int8" else (drawn.to(getattr(torch, storage)), None)
    weight, scale = (None if part is None else part.to(device) for part in stored)
    assert weight is not None
    copies = [weight, *(weight.clone() for _ in range(_MANY // weight.nbytes))]

    def seconds_each(work: Callable[[Tensor], Any]) -> float:
        def all_of_them() -> None:
            for each in copies:
                work(each)

        all_of_them()
        return seconds_of(Recorder(device).recorded(all_of_them)) / len(copies)

    target = torch.empty_like(weight)
    copied = seconds_each(target.copy_)
    for M in rows:
        x, gain = torch.randn(M, K, generator=generator), torch.rand(K, generator=generator) + 0.5
        # A GPT-2's norms have an offset, and its layers a bias.
        offset, bias = (torch.randn(size, generator=generator) if dims.gpt2 else None for size in (K, N))
        wanted = _product(x, stored, gain, dims.norm_eps, **options, offset=offset, bias=bias)
        more: Figures = {**options, "tiled": has_tensor_cores(device)}
        if more.pop("norm", False):
            more["norm"] = Norm(gain.to(device), dims.norm_eps, None if offset is None else offset.to(device))
        there, y = x.to(device), torch.zeros(M, wanted.shape[1], device=device)
        added = None if bias is None else bias.to(device)

        def multiplied(
            each: Tensor, x: Tensor = there, y: Tensor = y, bias: Tensor | None = added, more: Figures = more
        ) -> None:
            multiply(x, Matrix(each, scale, bias), y, **more)

        multiplied(weight)
        apart = float((y.cpu().double() - wanted).norm() / wanted.norm())
        seconds = seconds_each(multiplied)
        yield {
            "activations": M,
            "error_against_fp64": apart,
            "microseconds": 1e6 * seconds,
            "weight_bytes_per_second": weight.nbytes / seconds,
            "copy_of_the_same_microseconds": 1e6 * copied,
        }


def _product(
    x: Tensor, weight: tuple[Tensor, Tensor | None], gain: Tensor, eps: float, norm: bool = False, gated: bool = False,
    gelu: bool = False, add: bool = False, offset: Tensor | None = None, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """In float64."""
    stored, scale = weight
    full, x = stored.double() if scale is None else stored.double() * scale.double()[:, None], x.double()
    if norm and offset is not None:
        x = torch.nn.functional.layer_norm(x, x.shape[1:], gain.double(), offset.double(), eps)
    elif norm:
        x = x / torch.sqrt((x * x).mean(1, keepdim=True) + eps) * gain.double()
    y = x @ full.T if bias is None else x @ full.T + bias.double()
    if gated:
        gate, up = y.chunk(2, dim=1)
        return torch.nn.functional.silu(gate) * up
    assert add or norm
    return torch.nn.functional.gelu(y, approximate="tanh") if gelu else y


def steps(model: Model, positions: Sequence[int] = POSITIONS) -> list[Figures]:
    """Milliseconds a token: by position with guidance, without, and for many chunks side by side.

    A GPT-2 has no guidance.
    """
    from chatterbox_nb.engine.nets.gpu_draw import options_of
    from chatterbox_nb.engine.sampling import Sampling

    runner = model.t3.runner
    if runner is None:
        return []
    found = []
    dims, options = model.spec.t3, Sampling.of(model.spec)
    longest, most = (dims.positions or dims.speech_positions) - 64, 1 if dims.gpt2 else 2
    for lines, rows, at in (
        *((1, most, position) for position in positions if position < longest),
        *((1, rows, min(500, longest)) for rows in range(1, most)),
        (BATCH, most, min(500, longest)),
    ):
        room = runner.make_room(lines, rows, at + 64)
        room.lines.options.copy_(options_of(options))
        state = room.lines.state

        def again(state: Tensor = state, at: int = at) -> None:
            state[:, :4] = torch.tensor([at, 1 << 30, 0, 0], dtype=torch.int32)

        again()
        runner(lines)
        again()
        seconds = seconds_of(lambda lines=lines: runner(lines), 24)  # type: ignore[misc]
        found.append({"lines": lines, "rows": rows * lines, "position": at, "milliseconds": 1000 * seconds})
        runner.clear()
    return found


def takes(model: Model) -> Figures:
    """A take of some ten seconds: alone, many side by side, and when its first segment sounds."""
    text = _text(model)
    found: Figures = {}
    for name, texts in (("single", [text]), ("batched", [text] * 2 * BATCH)):
        _take(model, texts)
        found[name] = _take(model, texts)
    first: list[float] = []
    _take(model, [text], first)
    first.clear()
    _take(model, [text], first)
    found["first_sound_seconds"] = first[0]
    return found


def _text(model: Model) -> str:
    """As many words as are spoken in ten seconds, about, or as the model reads at once."""
    words, wanted = _TEXT.split(), 25 * SECONDS / model.spec.text.tokens_per_text_token
    dims = model.spec.t3
    wanted = min(wanted, 0.9 * (dims.text_positions or dims.positions // 2 - dims.prefix_length))
    count = next((n for n in range(1, len(words)) if len(model.text_ids(" ".join(words[:n]))) >= wanted), len(words))
    return " ".join(words[:count])


def _take(model: Model, texts: list[str], first: list[float] | None = None) -> Figures:
    from chatterbox_nb.engine.noise import StageNoise
    from chatterbox_nb.engine.pipeline import Speaker
    from chatterbox_nb.engine.sampling import Sampling

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    on_segment = None if first is None else lambda index, chunk: first.append(time.perf_counter() - begun)
    speaker = Speaker(
        model, model.builtin_voice(), Sampling.of(model.spec), 0.5, StageNoise(0), texts,
        at_once=BATCH, on_segment=on_segment,
    )  # fmt: skip
    chunks = list(speaker)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    audio = sum(len(chunk.samples) for chunk in chunks) / model.spec.sample_rate
    stages: dict[str, float] = {}
    for chunk in chunks:
        for stage, spent in chunk.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    return {
        "chunks": len(texts),
        "tokens": sum(len(chunk.tokens) for chunk in chunks),
        "audio_seconds": audio,
        "seconds": seconds,
        "real_time_factor": seconds / audio,
        "seconds_by_stage": stages,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
    }
