"""Where random numbers come from. The global generators are never touched.

*Stage noise*, the default, is independent for each stage and chunk and drawn in float32 on the CPU, so that a seed
means the same at every precision, and a chunk sounds the same whatever its neighbours are. *Package noise* draws
from one generator in the package's own order; given it, our numbers are the package's, and the oracle can compare.
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

LARGEST_SEED = 2**63 - 1
_SMALLEST_EXPONENTIAL = np.finfo(np.float32).eps / 2  # what torch puts there too


class Noise(Protocol):
    """Noise for one chunk. Each method draws float32 on the CPU.

    `in_order` tells that all stages draw from one stream: nothing may be drawn that is not used.
    """

    in_order: bool

    def token(self, vocabulary: int) -> Tensor:
        """Exponential noise `[V]`, above 0: `argmax(probabilities / noise)` is a draw from them."""

    def flow(self, channels: int, frames: int) -> Tensor:
        """Normal noise `[1, channels, frames]` that the flow starts from."""

    def phase(self, harmonics: int) -> Tensor:
        """Uniform phases in [-pi, pi), `[1, harmonics, 1]`."""

    def source(self, harmonics: int, samples: int) -> Tensor:
        """Normal noise of the vocoder's source, `[1, harmonics, samples]`."""

    def end(self, samples: int) -> None:
        """The chunk is done."""


class StageNoise:
    """Independent streams from (seed, stage, chunk): numpy's Philox, which is the same on every platform."""

    in_order = False

    def __init__(self, seed: int, chunk: int = 0) -> None:
        self.seed, self.chunk = seed, chunk
        self._tokens = self._stream("token")
        self._ahead: Future[Tensor] | None = None

    def for_chunk(self, chunk: int) -> StageNoise:
        return StageNoise(self.seed, chunk)

    def _stream(self, stage: str) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self.seed}/{stage}/{self.chunk}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

    def token(self, vocabulary: int) -> Tensor:
        drawn = self._tokens.standard_exponential(vocabulary, dtype=np.float32)
        # One in 17 million comes out as 0, and 0 / 0 would win the argmax for a token that was ruled out.
        return torch.from_numpy(np.maximum(drawn, _SMALLEST_EXPONENTIAL))

    def flow(self, channels: int, frames: int) -> Tensor:
        # A channel at a time would change with the length; frame by frame, a longer mel begins with the same noise.
        drawn = self._stream("flow").standard_normal((frames, channels), dtype=np.float32)
        return torch.from_numpy(drawn).t()[None].contiguous()

    def phase(self, harmonics: int) -> Tensor:
        drawn = self._stream("phase").uniform(-math.pi, math.pi, (1, harmonics, 1)).astype(np.float32)
        return torch.from_numpy(drawn)

    def ahead(self, harmonics: int, samples: int) -> None:
        """Begins to draw what `source` will be asked for, on a thread of its own: two million numbers for 10 s."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="chatterbox-nb noise")
        self._ahead = pool.submit(self._source, harmonics, samples)
        pool.shutdown(wait=False)

    def source(self, harmonics: int, samples: int) -> Tensor:
        drawn, self._ahead = (self._ahead.result() if self._ahead else None), None
        if drawn is not None and drawn.shape == (1, harmonics, samples):
            return drawn
        return self._source(harmonics, samples)

    def _source(self, harmonics: int, samples: int) -> Tensor:
        drawn = self._stream("source").standard_normal((samples, harmonics), dtype=np.float32)
        return torch.from_numpy(drawn).t()[None].contiguous()

    def end(self, samples: int) -> None:
        pass


class PackageNoise:
    """One torch generator, drawn from in the package's order: what `torch.manual_seed(seed)` gives its `generate`."""

    in_order = True

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def for_chunk(self, _chunk: int) -> PackageNoise:
        return self

    def token(self, vocabulary: int) -> Tensor:
        # torch.multinomial draws one token so: probabilities / exponential noise, then argmax.
        return torch.empty(1, vocabulary).exponential_(1, generator=self._generator)[0]

    def flow(self, channels: int, frames: int) -> Tensor:
        return torch.randn(1, channels, frames, generator=self._generator)

    def phase(self, harmonics: int) -> Tensor:
        uniform = torch.rand(1, harmonics, 1, generator=self._generator)
        return -math.pi + uniform * (math.pi - -math.pi)

    def source(self, harmonics: int, samples: int) -> Tensor:
        return torch.randn(1, harmonics, samples, generator=self._generator)

    def end(self, samples: int) -> None:
        torch.randn(1, samples, 1, generator=self._generator)  # drawn by the package and thrown away


def new_seed() -> int:
    """A seed from the operating system, small enough to be read out and typed."""
    import secrets

    return secrets.randbelow(2**31)
