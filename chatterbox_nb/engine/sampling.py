"""From logits to a speech token, in the package's order: guidance, penalty, temperature, min-p, top-p, draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine.noise import Noise

COLDEST = 1e-6  # below this, logits divided by the temperature would not be finite


@dataclass(frozen=True)
class Sampling:
    """Options of a draw, with the package's defaults.

    Args:
        cfg_weight: guidance towards the text; at 0 the unguided row is not computed at all.
        temperature: 0 takes the likeliest token.
        min_p: drops tokens less likely than this part of the likeliest.
        top_p: keeps the likeliest tokens whose probabilities reach this sum.
        repetition_penalty: divides positive and multiplies negative logits of tokens seen before.
        top_k: keeps so many of the likeliest tokens; 0 keeps all.
        penalty_last: tokens seen before are penalized after the others were dropped, and not first: as a GPT-2 is used.
    """

    cfg_weight: float = 0.5
    temperature: float = 0.8
    min_p: float = 0.05
    top_p: float = 1.0
    repetition_penalty: float = 1.2
    top_k: int = 0
    penalty_last: bool = False

    @classmethod
    def of(cls, spec: ModelSpec, **options: float) -> Sampling:
        """A model's own options, and these over them."""
        own: dict[str, Any] = {name: value for name, value in spec.defaults.items() if hasattr(cls, name)}
        return cls(**{**own, **options}, penalty_last=spec.t3.gpt2)


def guide(logits: Tensor, cfg_weight: float) -> Tensor:
    """Logits `[1, V]`, or `[2, V]` with the unguided row second, to `[V]`."""
    if len(logits) == 1:
        return logits[0]
    guided, unguided = logits
    return guided + cfg_weight * (guided - unguided)


def draw(logits: Tensor, seen: Tensor, options: Sampling, noise: Noise) -> Tensor:
    """A token `[1]` from logits `[V]`.

    Args:
        logits: after guidance, float32.
        seen: bool `[V]`, the tokens so far, begin-of-speech included.
    """
    if not options.penalty_last:
        logits = _penalized(logits, seen, options)
    if options.temperature == 0.0:
        last = _penalized(logits, seen, options) if options.penalty_last else logits
        return last.argmax(-1, keepdim=True)
    if options.temperature != 1.0:
        logits = logits / max(options.temperature, COLDEST)
    if options.min_p > 0.0:
        probabilities = torch.softmax(logits, -1)
        logits = logits.masked_fill(probabilities < options.min_p * probabilities.max(), float("-inf"))
    if 0 < options.top_k < len(logits):
        logits = logits.masked_fill(logits < torch.topk(logits, options.top_k).values[-1], float("-inf"))
    if options.top_p < 1.0:
        ascending, order = torch.sort(logits)
        dropped = torch.softmax(ascending, -1).cumsum(-1) <= 1 - options.top_p
        dropped[-1] = False
        logits = logits.masked_fill(dropped.scatter(0, order, dropped), float("-inf"))
    if options.penalty_last:
        logits = _penalized(logits, seen, options)
    probabilities = torch.softmax(logits, -1)
    return (probabilities / noise.token(len(logits)).to(logits.device)).argmax(-1, keepdim=True)


def _penalized(logits: Tensor, seen: Tensor, options: Sampling) -> Tensor:
    penalty = options.repetition_penalty
    if penalty == 1.0:
        return logits
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
