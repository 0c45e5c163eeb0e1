"""NaN and infinity stop a take, with the stage and the cure; they are never turned into sound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chatterbox_nb.errors import EngineError


def check(x: Tensor, what: str, computed_in: torch.dtype) -> None:
    """Stops the take when a stage's result holds NaN or infinity.

    Args:
        x: the result.
        what: the stage's words for it: "T3's logits at token 12".
        computed_in: the dtype of the stage's networks.

    Raises:
        EngineError: it is not finite.
    """
    # A sum is finite only if all of it is, and quicker; one that is not may have grown too large.
    if math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all()):
        return
    raise failure(what, computed_in)


def failure(what: str, computed_in: torch.dtype) -> EngineError:
    """The error that tells it, for those that found it themselves."""
    dtype = str(computed_in).removeprefix("torch.")
    cure = (
        "Try another seed or voice; if it stays, delete the checkpoint's files and load again."
        if computed_in == torch.float32
        else "Try --precision fp32."
    )
    return EngineError(f"Not finite, computed in {dtype}: {what}. {cure}")
