"""The decode loop: text tokens in, speech tokens out.

The conditionals are prefilled once a take (`Prefix`), the text once a chunk, then one token at a time into a
preallocated cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from chatterbox_nb.checkpoint.catalog import T3Dims
from chatterbox_nb.engine import finite
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.engine.sampling import Sampling, draw, guide
from chatterbox_nb.errors import TextError
from chatterbox_nb.events import CancelToken

# How a chunk ended: the model said so; the budget its text allows; the model's own limit; stopped on request.
Finish = Literal["stop", "budget", "limit", "cancelled"]


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the conditionals, `[layers, 1, H, C, W]`: the same for every chunk and for both rows."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[3]

    def cache(self, dims: T3Dims, rows: int, length: int) -> Cache:
        """A cache of `length` positions that begins with this prefix, in each of its rows."""
        cache = Cache.empty(dims, rows, length, self.keys.device, self.keys.dtype)
        cache.keys[:, :, :, : self.length] = self.keys
        cache.values[:, :, :, : self.length] = self.values
        return cache


@dataclass(frozen=True)
class Decoded:
    """Speech tokens as drawn, the stop token included where there is one, and why they end."""

    tokens: tuple[int, ...]
    finish: Finish


def prefill(t3: T3, speaker: Tensor, prompt: Tensor, exaggeration: float) -> Prefix:
    """The voice, once a take."""
    embedded = t3.conditioning(speaker, prompt, exaggeration)
    cache = Cache.empty(t3.dims, 1, embedded.shape[1], embedded.device, embedded.dtype)
    t3.backbone(embedded, cache, 0)
    return Prefix(cache.keys, cache.values)


def decode(
    t3: T3,
    prefix: Prefix,
    text: Tensor,
    options: Sampling,
    noise: Noise,
    budget: int,
    limit: int,
    on_token: Callable[[int], None] = lambda count: None,
    cancel: CancelToken | None = None,
) -> Decoded:
    """Speaks one chunk.

    Args:
        text: text ids `[S]`, start and stop included.
        budget: tokens that this text may take before it counts as run away.
        limit: tokens after which a chunk ends in any case.
        on_token: told how many tokens there are, after each.
        cancel: checked before each token.

    Raises:
        TextError: more text tokens than the model has positions for.
        EngineError: the logits are not finite.
    """
    dims = t3.dims
    if len(text) > dims.text_positions:
        raise TextError(
            f"This chunk has {len(text)} text tokens and the model has {dims.text_positions} positions. "
            "Split it, or lower MAX_CHUNK_LENGTH."
        )
    limit = min(limit, dims.speech_positions)
    wanted = min(budget, limit)
    rows = 2 if options.cfg_weight > 0 else 1
    start = prefix.length + len(text) + 2
    cache = prefix.cache(dims, rows, start + wanted)
    seen = torch.zeros(dims.speech_vocab, dtype=torch.bool, device=text.device)
    seen[dims.start_speech] = True

    tokens: list[int] = []
    logits = t3.logits(t3.text(text, guided=rows == 2), cache, prefix.length)
    for count in range(1, wanted + 1):
        if cancel is not None:
            cancel.check()
        finite.check(logits, f"T3's logits at token {count}", cache.keys.dtype)
        token = draw(guide(logits, options.cfg_weight), seen, options, noise)
        tokens.append(int(token))
        on_token(count)
        if tokens[-1] == dims.stop_speech:
            return Decoded(tuple(tokens), "stop")
        if count == wanted:
            break
        seen[token] = True
        embedded = t3.speech(token, count).expand(rows, -1, -1)
        logits = t3.logits(embedded, cache, start + count - 1)
    return Decoded(tuple(tokens), "limit" if wanted == limit else "budget")


def audible(tokens: tuple[int, ...], codes: int) -> tuple[int, ...]:
    """The tokens that stand for sound: begin, stop and what lies beyond the codebook dropped."""
    return tuple(token for token in tokens if token < codes)
