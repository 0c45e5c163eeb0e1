"""The vocoder's activation, `x + sin²(a x) / a`, a few channels at a time.

Written as a formula it goes through memory five times; in blocks that stay in the processor's cache it takes a third
of the time, a tenth of the vocoder's. Source: https://arxiv.org/abs/2006.08195.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BLOCK_BYTES = 2_000_000
_NO_DIVISION_BY_ZERO = 1e-9  # the package's


class Snake(nn.Module):
    """The package's `Snake` of linear scale: the same numbers but for rounding."""

    alpha: Tensor  # [C]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` to the same."""
        found = torch.empty_like(x)
        whole = x.shape[1] if x.device.type != "cpu" else max(1, _BLOCK_BYTES // (x.element_size() * x.shape[2]))
        for given, into, alpha in zip(x.split(whole, 1), found.split(whole, 1), self.alpha.split(whole), strict=True):
            scale = alpha[:, None]
            sine = torch.mul(given, scale).sin_()
            torch.addcmul(given, sine, sine / (scale + _NO_DIVISION_BY_ZERO), out=into)
        return found
