"""float32 that is float32, and the same again: for a block on a GPU.

No TF32, whose ten bits would move a waveform's phase, and none of cuDNN's ways of adding up in whatever order comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """For the block; the host's own settings are as they were after it."""
    before = [] if device.type != "cuda" else [(place, name, getattr(place, name)) for place, name in _switches()]
    before = [entry for entry in before if entry[2] not in (False, "ieee")]
    if device.type == "cuda" and not torch.backends.cudnn.deterministic:
        before.append((torch.backends.cudnn, "deterministic", False))
    try:
        for place, name, value in before:
            setattr(place, name, name == "deterministic" if isinstance(value, bool) else "ieee")
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _switches() -> list[tuple[Any, str]]:
    """Where torch is told. Its older names, which every version has, are refused where the host used the newer ones."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn  # of which torch 2.6 knows less
    newer: Any = cudnn
    try:
        return [(place, "allow_tf32") for place in (cuda.matmul, cudnn) if place.allow_tf32 in (True, False)]
    except RuntimeError:
        return [(place, "fp32_precision") for place in (cuda.matmul, newer.conv)]
