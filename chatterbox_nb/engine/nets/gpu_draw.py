"""A speech token from logits, on a GPU: `sampling.draw` in one kernel, and the embedding of what was drawn.

Its options are a tensor, so that a graph that was captured with one temperature serves every other. Nothing is sorted:
what top-k and top-p keep is everything from a threshold on, which is searched for a bit at a time. So of tokens that
are equally likely, to the bit, top-p keeps all or none, where torch's order cuts among them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.sampling import COLDEST, Sampling

RING = 32  # tokens of a line that are kept on the device until they are read
# Columns of a line's state. A line runs while ENDED is 0; it is 1 after the stop token, 2 after as many as wanted.
START, WANTED, COUNT, ENDED, BROKEN, TOKENS = 0, 1, 2, 3, 4, 5
_STATE = TOKENS + RING
_OPTIONS = tuple(field.name for field in fields(Sampling))


@triton.jit
def _embedded(table, scale, entry, i, inside, D, INT8: tl.constexpr):
    found = tl.load(table + entry.to(tl.int64) * D + i, mask=inside, other=0).to(tl.float32)
    if INT8:
        found = found * tl.load(scale + entry)
    return found


@triton.jit
def _nucleus(p, top_p):
    """The smallest probability that stays: those below it sum up to 1 - top_p at the most. Bisected over its bits."""
    high = tl.max(p, axis=0).to(tl.int32, bitcast=True)
    low = high * 0
    for _ in range(31):
        middle = low + (high - low) // 2
        below = tl.sum(tl.where(p <= middle.to(tl.float32, bitcast=True), p, 0.0), axis=0)
        enough = below > 1.0 - top_p
        high = tl.where(enough, middle, high)
        low = tl.where(enough, low, tl.minimum(middle + 1, high))
    return high.to(tl.float32, bitcast=True)


@triton.jit
def _kth(given, k):
    """The k-th largest number, found bit by bit of its place in the order of all float32."""
    bits = given.to(tl.int32, bitcast=True)
    place = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # the bits of a negative number count down
    found = tl.where(tl.sum((place >= 0).to(tl.int32), axis=0) >= k, 0, -2147483648)
    for step in range(31):
        more = found + (1073741824 >> step)
        found = tl.where(tl.sum((place >= more).to(tl.int32), axis=0) >= k, more, found)
    return (found ^ ((found >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _penalized(given, repeated, penalty):
    return tl.where(repeated, tl.where(given < 0, given * penalty, given / penalty), given)


@triton.jit
def _guided(row, seen, v, inside, V, cfg, penalty, LINE: tl.constexpr):
    """Logits after guidance and penalty, and how many are not finite."""
    given = tl.load(row + v, mask=inside, other=0.0)
    broken = (given != given) | (tl.abs(given) == float("inf"))
    if LINE == 2:
        unguided = tl.load(row + V + v, mask=inside, other=0.0)
        broken = broken | (unguided != unguided) | (tl.abs(unguided) == float("inf"))
        given = given + cfg * (given - unguided)
    repeated = tl.load(seen + v, mask=inside, other=0) != 0
    given = tl.where(inside, _penalized(given, repeated, penalty), float("-inf"))
    return given, tl.sum(broken.to(tl.int32), axis=0)


@triton.jit
def _draw(
    logits, noise, seen, sampling, state, positions, x, tokens, token_scale, places, place_scale, V, D, last, STOP,
    BEGIN, COLDEST: tl.constexpr, LINE: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
    STATE: tl.constexpr, FIRST: tl.constexpr, RING: tl.constexpr, INT8_TOKEN: tl.constexpr, INT8_PLACE: tl.constexpr,
    PLACES_OF_ALL: tl.constexpr,
):  # fmt: skip
    """One line."""
    line = tl.program_id(0)
    own = state + line * STATE
    start, wanted, count, ended = tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 3)
    cfg, temperature, min_p = tl.load(sampling), tl.load(sampling + 1), tl.load(sampling + 2)
    top_p, penalty = tl.load(sampling + 3), tl.load(sampling + 4)
    top_k, penalty_last = tl.load(sampling + 5), tl.load(sampling + 6) != 0.0

    v = tl.arange(0, BLOCK_V)
    inside = v < V
    from_logits, known = logits + line * LINE * V, seen + line * V
    first_penalty = tl.where(penalty_last & (temperature != 0.0), 1.0, penalty)
    given, broken = _guided(from_logits, known, v, inside, V, cfg, first_penalty, LINE)
    if temperature == 0.0:
        token = tl.argmax(given, axis=0)
    else:
        # What is dropped is marked by less than nothing. Where logits are needed once more they are read again: to keep
        # them in registers would cost those draws that need them but once.
        temperature = tl.maximum(temperature, COLDEST)
        given = given / temperature
        p = tl.exp(given - tl.max(given, axis=0))  # of the likeliest; what they sum up to does not matter for the draw
        p = tl.where(p < min_p, -1.0, p)
        if (top_k > 0) & (top_k < V):
            again, _ = _guided(from_logits, known, v, inside, V, cfg, first_penalty, LINE)
            again = tl.div_rn(again, temperature)  # rounded as torch does: what is equal there is equal here
            p = tl.where(again < _kth(again, top_k), -1.0, p)
        if top_p < 1.0:
            p = p / tl.sum(tl.maximum(p, 0.0), axis=0)
            p = tl.where(p < _nucleus(tl.maximum(p, 0.0), top_p), -1.0, p)
        if penalty_last:
            left, _ = _guided(from_logits, known, v, inside, V, cfg, first_penalty, LINE)
            repeated = tl.load(known + v, mask=inside, other=0) != 0
            left = _penalized(left / temperature, repeated, penalty)
            left = tl.where(p < 0.0, float("-inf"), left)
            p = tl.exp(left - tl.max(left, axis=0))
        token = tl.argmax(tl.where(inside, p / tl.load(noise + line * V + v, mask=inside, other=1.0), -1.0), axis=0)

    if ended == 0:
        tl.store(own + FIRST + count % RING, token)
        if penalty_last:
            tl.store(known + BEGIN, 0)  # which is a token seen before for the first draw alone
        tl.store(known + token, 1)
        if (broken > 0) & (tl.load(own + 4) == 0):
            tl.store(own + 4, count + 1)
        count += 1
        tl.store(own + 2, count)
        tl.store(own + 3, tl.where(token == STOP, 1, tl.where(count >= wanted, 2, 0)))
        tl.store(positions + line, start + count - 1)
        i = tl.arange(0, BLOCK_D)
        within = i < D
        place = start + count - 1 if PLACES_OF_ALL else count
        place = tl.minimum(place, last)  # past the last, the line has ended
        found = _embedded(tokens, token_scale, token, i, within, D, INT8_TOKEN)
        found += _embedded(places, place_scale, place, i, within, D, INT8_PLACE)
        for row in tl.static_range(LINE):
            tl.store(x + (line * LINE + row) * D + i, found, mask=within)


@dataclass(frozen=True)
class Table:
    """An embedding as the kernel reads it: `[entries, D]`, with float32 scales `[entries]` of int8."""

    weight: Tensor
    scale: Tensor | None = None

    @classmethod
    def of(cls, layer: Any) -> Table:
        """nn.Embedding or Int8Embedding."""
        if hasattr(layer, "weight_int8"):
            return cls(layer.weight_int8, layer.weight_scale)
        return cls(layer.weight)


@dataclass(frozen=True)
class Lines:
    """What is drawn for, and what is known of it, for L lines on a device.

    Args:
        noise: exponential, float32 `[L, V]`.
        seen: int8 `[L, V]`.
        state: int32 `[L, ...]`: start, wanted, count, ended, the first token whose logits were not finite, tokens.
        positions: int32 `[L]`, of each line's newest token in its cache.
        options: float32, `options_of`.
    """

    noise: Tensor
    seen: Tensor
    state: Tensor
    positions: Tensor
    options: Tensor

    @classmethod
    def empty(cls, lines: int, vocabulary: int, device: torch.device) -> Lines:
        """Lines that have ended."""
        state = torch.zeros(lines, _STATE, dtype=torch.int32, device=device)
        state[:, ENDED] = 1
        return cls(
            torch.ones(lines, vocabulary, device=device),
            torch.zeros(lines, vocabulary, dtype=torch.int8, device=device),
            state,
            torch.zeros(lines, dtype=torch.int32, device=device),
            options_of(Sampling()).to(device),
        )

    def first(self, count: int) -> Lines:
        """The first lines, in the same memory."""
        return Lines(self.noise[:count], self.seen[:count], self.state[:count], self.positions[:count], self.options)


def options_of(sampling: Sampling) -> Tensor:
    """As the kernel reads them, float32."""
    return torch.tensor([float(getattr(sampling, name)) for name in _OPTIONS])


def draw(logits: Tensor, lines: Lines, x: Tensor, tokens: Table, places: Table, dims: T3Dims) -> None:
    """A token of each line that has not ended, into its state, and its embedding.

    Args:
        logits: float32 `[M, V]`; a line has one row of them, or two with guidance, the guided one first.
        x: embeddings, float32 `[M, D]`: written.
        tokens, places: the embeddings of speech tokens and of their positions.
        dims: of T3, for the tokens that begin and end a line, and for what its places count (`T3.place`).
    """
    count, vocabulary = lines.noise.shape
    width = x.shape[1]
    _draw[(count,)](
        logits, lines.noise, lines.seen, lines.options, lines.state, lines.positions, x,
        tokens.weight, x if tokens.scale is None else tokens.scale,
        places.weight, x if places.scale is None else places.scale,
        vocabulary, width, len(places.weight) - 1, dims.stop_speech, dims.start_speech,
        COLDEST=COLDEST, LINE=len(logits) // count, BLOCK_V=triton.next_power_of_2(vocabulary),
        BLOCK_D=triton.next_power_of_2(width), STATE=_STATE, FIRST=TOKENS, RING=RING,
        INT8_TOKEN=tokens.scale is not None, INT8_PLACE=places.scale is not None, PLACES_OF_ALL=dims.gpt2,
        num_warps=16,
    )  # fmt: skip
