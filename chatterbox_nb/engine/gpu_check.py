"""The GPU's kernels, checked at load: one layer, the head and a draw of the model itself, against torch on the CPU.

It compiles what a take will use, and tells what does not work on this machine before anyone speaks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from chatterbox_nb.engine.nets.gpu_draw import ENDED, TOKENS, options_of
from chatterbox_nb.engine.nets.gpu_step import GpuStep, Room
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling, draw, guide
from chatterbox_nb.errors import summary
from chatterbox_nb.precision.layers import Int8Linear

# A wrong kernel is off by the numbers themselves. Half precision in the cache moves them by some thousandths.
_TOLERANCE = 0.01
_POSITION = 140  # two parts of attention
_OPTIONS = Sampling(top_p=0.9)
_OPTIONS_OF_A_GPT2 = Sampling(cfg_weight=0.0, min_p=0.0, top_p=0.95, top_k=1000, penalty_last=True)


def problem(t3: T3, step: GpuStep, lines: int = 1, rows_a_line: int | None = None) -> str:
    """What is wrong with a step on this machine; empty when it works.

    Args:
        t3: loaded.
        step: of it.
        lines, rows_a_line: that it is done for; a GPT-2's line is a row, others' two, unless it is said.
    """
    try:
        with torch.inference_mode():
            return _compared(t3, step, lines, rows_a_line or (1 if t3.dims.gpt2 else 2))
    except Exception as error:  # whatever a compiler, a driver or a launch may meet
        return summary(error)


def _compared(t3: T3, step: GpuStep, lines: int, rows_a_line: int) -> str:
    dims, generator = replace(t3.dims, layers=1), torch.Generator().manual_seed(0)
    rows, position = lines * rows_a_line, min(_POSITION, (dims.positions or dims.speech_positions) - 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    room = Room.empty(dims, lines, rows_a_line, position + 1, t3)
    known = [normal(rows, dims.heads, position, dims.head_width) for _ in range(2)]
    for cached, values in zip((room.cache.keys, room.cache.values), known, strict=True):
        cached[0, :, :, :position] = values
    logits, options = 4 * normal(rows, dims.speech_vocab), _OPTIONS_OF_A_GPT2 if dims.gpt2 else _OPTIONS
    noise = [StageNoise(0, line).token(dims.speech_vocab) for line in range(lines)]
    room.logits.copy_(logits)
    room.lines.noise.copy_(torch.stack(noise))
    room.lines.options.copy_(options_of(options))
    room.lines.state[:, : ENDED + 1] = torch.tensor([position, 2, 0, 0], dtype=torch.int32)

    seen = torch.zeros(dims.speech_vocab, dtype=torch.bool)
    tokens = torch.cat(
        [
            draw(guide(given, options.cfg_weight), seen, options, StageNoise(0, line))
            for line, given in enumerate(logits.split(rows_a_line))
        ]
    )
    step.draw(room, lines)
    drawn = room.lines.state[:, TOKENS].cpu()
    if not torch.equal(drawn.long(), tokens):
        return f"tokens {tokens.tolist()} were to be drawn, and {drawn.tolist()} were"

    places = torch.full_like(tokens, t3.place(position, 1))
    embedded = t3.speech(tokens.to(room.x.device), places.to(room.x.device)).float().cpu()
    if apart := _apart("an embedding", room.x, embedded.repeat_interleave(rows_a_line, 0)):
        return apart
    layer, x = _on_cpu(t3.backbone.layers[0]), normal(rows, dims.width) + dims.gpt2  # its norms subtract a mean
    room.x.copy_(x)
    cache = Cache.empty(dims, rows, position + 1, torch.device("cpu"), torch.float32)
    for cached, values in zip((cache.keys, cache.values), known, strict=True):
        cached[0, :, :, :position] = values.to(room.cache.keys.dtype)
    wanted = layer(x[:, None], cache, 0, position, None)[:, 0]
    step.layers(room, lines, count=1)
    if apart := _apart("a layer", room.x, wanted):
        return apart
    wanted = _on_cpu(t3.head)(_on_cpu(t3.backbone.norm)(room.x.cpu()))
    step.head(room, lines)
    return _apart("the head", room.logits, wanted)


def _on_cpu(module: nn.Module) -> Any:
    """A copy there, in float32."""
    copied = copy.deepcopy(module).cpu().float()
    for part in copied.modules():
        if isinstance(part, Int8Linear):
            part.packed = None
    return copied


def _apart(what: str, found: Tensor, wanted: Tensor) -> str:
    distance = float((found.float().cpu() - wanted).norm() / wanted.norm())
    return "" if distance < _TOLERANCE else f"{what} is off by {distance:.2g} of its size"
