"""The decode loop: text tokens in, speech tokens out.

The conditionals are prefilled once a take (`Prefix`), the text once a chunk, then one token at a time into a
preallocated cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine import finite
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.engine.sampling import Sampling, draw, guide
from chatterbox_nb.errors import TextError
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision import huge
from chatterbox_nb.precision.exact import exact

if TYPE_CHECKING:
    from chatterbox_nb.engine.gpu_decode import GpuDecoding
    from chatterbox_nb.engine.nets.stepper import Stepper

# What decodes chunks: on a CPU, or on a GPU.
Decoder: TypeAlias = "Decoding | GpuDecoding"
# Tokens that a chunk's cache has room for at first: 10 s. It grows by half.
_ROOM = 256

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
    with exact(speaker.device):
        embedded = t3.conditioning(speaker, prompt, exaggeration)
        cache = Cache.empty(t3.dims, 1, embedded.shape[1], embedded.device, embedded.dtype)
        t3.backbone(embedded, cache, 0)
    return Prefix(cache.keys, cache.values)


class KeptPrefix:
    """The prefix of the voice that spoke last, kept for the next take where it is long.

    A GPT-2's has as many positions as the clip has speech tokens: on two cores reading turbo's takes a second, which is
    most of what a listener waits for, and it weighs 74 MB. A Llama's 34 are read again. On a GPU both take no time.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor, float, Prefix] | None = None

    def of(self, t3: T3, speaker: Tensor, prompt: Tensor, exaggeration: float) -> Prefix:
        """As `prefill`, whose arguments these are."""
        if self._kept is not None:
            *voice, emotion, prefix = self._kept
            if emotion == exaggeration and all(map(torch.equal, voice, (speaker, prompt))):
                return prefix
        self.drop()
        prefix = prefill(t3, speaker, prompt, exaggeration)
        if t3.dims.gpt2 and speaker.device.type != "cuda":
            self._kept = (speaker.clone(), prompt.clone(), exaggeration, prefix)
        return prefix

    def drop(self) -> None:
        """Gives its memory back."""
        self._kept = None


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
    with begun(t3, prefix, options, cancel) as decoding:
        line = decoding.begin(text, noise, budget, limit)
        while line.finish is None:
            decoding.advance()
            on_token(len(line.tokens))
    return line.decoded


def begun(t3: T3, prefix: Prefix, options: Sampling, cancel: CancelToken | None = None, at_once: int = 1) -> Decoder:
    """What decodes chunks with this T3, where it is.

    Args:
        at_once: chunks side by side, at the most.
    """
    if t3.runner is None:
        return Decoding(t3, prefix, options, cancel)
    from chatterbox_nb.engine.gpu_decode import GpuDecoding

    return GpuDecoding(t3.runner, prefix, options, cancel, at_once)


def extent(prefix: Prefix, text: Tensor, budget: int, limit: int, dims: T3Dims) -> tuple[int, int, Finish]:
    """Positions before a chunk's first token, the tokens after which it ends, and how it ends then.

    Args and errors: as of `decode`.
    """
    start = prefix.length + len(text) + dims.begins
    # A GPT-2 has one table of positions for all, and some of it is for speech.
    positions = dims.positions // 2 - prefix.length if dims.gpt2 else dims.text_positions
    if len(text) > positions:
        raise TextError(
            f"This chunk has {len(text)} text tokens and the model has {positions} positions. "
            "Split it, or lower MAX_CHUNK_LENGTH."
        )
    limit = min(limit, dims.positions - start if dims.gpt2 else dims.speech_positions)
    wanted = min(budget, limit)
    return start, wanted, "limit" if wanted == limit else "budget"


@dataclass(eq=False, kw_only=True)
class Line:
    """A chunk while it is decoded.

    Args:
        start: positions before its first token.
        wanted: tokens after which it ends.
        ends: how it ends then.
    """

    noise: Noise
    start: int
    wanted: int
    ends: Finish
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def decoded(self) -> Decoded:
        assert self.finish is not None, "it has not ended"
        return Decoded(tuple(self.tokens), self.finish)


@dataclass(eq=False, kw_only=True)
class CpuLine(Line):
    """A line, with what its next token comes from.

    Args:
        cache: keys and values of its rows.
        seen: bool `[V]`, the tokens so far, begin-of-speech included.
        logits: of the next token, `[rows, V]`.
    """

    cache: Cache
    seen: Tensor
    logits: Tensor


class Decoding:
    """Chunks that are decoded side by side, a token of each at a time. A context: leave it, or `rest`, when it pauses.

    Side by side pays where T3's step is compiled: the weights are read once for all. A chunk's tokens are those it has
    alone.

    Args:
        t3, prefix: the model, and the voice.
        cancel: checked before each token.
    """

    def __init__(self, t3: T3, prefix: Prefix, options: Sampling, cancel: CancelToken | None = None) -> None:
        self.t3, self.prefix, self.options, self.cancel = t3, prefix, options, cancel
        self.lines: list[CpuLine] = []
        self._rows = 2 if options.cfg_weight > 0 else 1
        self._stepper: Stepper | None = None

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def end(self) -> None:
        """Nothing will be begun any more."""
        self.rest()

    def rest(self) -> None:
        """Lets the helping threads go, until the next token."""
        if self._stepper is not None:
            self._stepper.rest()

    def begin(self, text: Tensor, noise: Noise, budget: int, limit: int) -> CpuLine:
        """Reads a chunk's text; `advance` decodes it from now on. Args and errors: as of `decode`."""
        dims = self.t3.dims
        start, wanted, ends = extent(self.prefix, text, budget, limit, dims)
        cache = self.prefix.cache(dims, self._rows, start if self.t3.compiled else start + wanted)
        logits = self.t3.logits(self.t3.text(text, self._rows == 2, self.prefix.length), cache, self.prefix.length)
        if self.t3.compiled:
            cache = self.kept(cache, min(wanted, _ROOM))
        seen = torch.zeros(dims.speech_vocab, dtype=torch.bool, device=text.device)
        seen[dims.start_speech] = True
        line = CpuLine(noise=noise, start=start, wanted=wanted, ends=ends, cache=cache, seen=seen, logits=logits)
        self.lines.append(line)
        return line

    def advance(self) -> None:
        """One more token of each line; those that ended are no longer in `lines`."""
        if self.cancel is not None:
            self.cancel.check()
        for line in self.lines:
            self._draw(line)
        self.lines = [line for line in self.lines if line.finish is None]
        if not self.lines:
            return
        last = [line.tokens[-1] for line in self.lines]
        places = [self.t3.place(line.start, len(line.tokens)) for line in self.lines]
        device = self.lines[0].seen.device
        embedded = self.t3.speech(torch.tensor(last, device=device), torch.tensor(places, device=device))
        if self.t3.compiled:
            self._step(embedded)
            return
        for line, x in zip(self.lines, embedded, strict=True):
            rows = x.expand(self._rows, 1, -1)
            line.logits = self.t3.logits(rows, line.cache, line.start + len(line.tokens) - 1)

    def _draw(self, line: CpuLine) -> None:
        count = len(line.tokens) + 1
        finite.check(line.logits, f"T3's logits at token {count}", self.prefix.keys.dtype)
        token = draw(guide(line.logits, self.options.cfg_weight), line.seen, self.options, line.noise)
        line.tokens.append(int(token))
        if self.options.penalty_last:
            line.seen[self.t3.dims.start_speech] = False  # which is a token seen before for the first draw alone
        line.seen[token] = True
        if line.tokens[-1] == self.t3.dims.stop_speech:
            line.finish = "stop"
        elif count == line.wanted:
            line.finish = line.ends

    def _step(self, embedded: Tensor) -> None:
        """A compiled step of every line."""
        places = []
        for line in self.lines:
            position = line.start + len(line.tokens) - 1
            if position >= line.cache.length:
                line.cache = self.kept(line.cache, min(line.cache.length // 2, line.wanted))
            places.append((line.cache, position))
        logits = self.step(embedded, places)
        for index, line in enumerate(self.lines):
            line.logits = logits[index * self._rows : (index + 1) * self._rows]

    def step(self, embedded: Tensor, places: list[tuple[Cache, int]]) -> Tensor:
        """Embeddings `[n, D]`, each of a cache and at a position, to the logits of their rows."""
        from chatterbox_nb.engine.nets.stepper import Place, Stepper

        if self._stepper is None:
            self._stepper = Stepper(self.t3, torch.get_num_threads())
        rows = [Place(cache, row, position) for cache, position in places for row in range(self._rows)]
        return self._stepper(embedded.repeat_interleave(self._rows, 0), rows)

    def kept(self, cache: Cache, more: int) -> Cache:
        """What is cached, as the compiled step keeps it, with room for more positions."""
        from chatterbox_nb.engine.nets.stepper import kept_as

        length, dtype = cache.length, kept_as(self.t3)
        *shape, _, width = cache.keys.shape
        grown = Cache(
            huge.empty([*shape, length + more, width], dtype),
            huge.empty([*shape, length + more, width], dtype),
            cache.cosine,
            cache.sine,
        )
        grown.keys[..., :length, :], grown.values[..., :length, :] = cache.keys, cache.values
        return grown


def audible(tokens: tuple[int, ...], codes: int) -> tuple[int, ...]:
    """The tokens that stand for sound: begin, stop and what lies beyond the codebook dropped."""
    return tuple(token for token in tokens if token < codes)
