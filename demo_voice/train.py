"""One loop for every training: a learning rate that warms up and falls to nothing, averaged weights, a log, resuming.

What a step sees depends on the seed and on its number alone, so a run that was broken goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from demo_voice import store
from demo_voice.recipe import SEED, Fit

_WARM_UP, _CLIP = 150, 1.0
_LOGGED, _KEPT = 100, 500  # steps
Losses = Mapping[str, Tensor]  # "loss" is what is minimized; the others are told


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before they are subtracted (Jordan et al., 2024, KellerJordan/Muon).

    A small transformer learns in about half of the steps that AdamW takes, and so does a stack of convolutions, of
    which all axes but the first are one. For matrices inside of layers only.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1)
                moved = self.state[parameter].setdefault("momentum", torch.zeros_like(gradient))
                moved.lerp_(gradient, 1 - group["momentum"])
                update = orthogonal(gradient.lerp(moved, group["momentum"])).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1, gradient.shape[0] / gradient.shape[1]) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest matrix with singular values of 1, by Newton and Schulz; bfloat16 is exact enough for it."""
    x = (matrix / (matrix.norm() + 1e-7)).bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).to(matrix)


def adamw(
    module: nn.Module, rate: float, betas: tuple[float, float] = (0.9, 0.98), decay: float = 1e-3
) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(module.parameters(), rate, betas, weight_decay=decay)]


def muon(
    module: nn.Module, rate: float, slow: float, inside: Callable[[str, nn.Parameter], bool],
    betas: tuple[float, float] = (0.9, 0.98), decay: float = 1e-3,
) -> list[torch.optim.Optimizer]:  # fmt: skip
    """Muon for the parameters inside, and AdamW at a part of the learning rate for all others that are trained."""
    matrices = {name: one for name, one in module.named_parameters() if inside(name, one)}
    others = [one for name, one in module.named_parameters() if name not in matrices and one.requires_grad]
    return [Muon(matrices.values(), rate), torch.optim.AdamW(others, rate * slow, betas, weight_decay=decay)]


def seeded(name: str, step: int) -> np.random.Generator:
    """The random numbers of a step; torch's own are seeded with them."""
    random = np.random.default_rng([SEED, zlib.crc32(name.encode()), step])
    torch.manual_seed(int(random.integers(2**31)))
    return random


def fit(
    name: str,
    module: nn.Module,
    losses: Callable[[int, np.random.Generator], Losses],
    plan: Fit,
    folder: Path,
    optimizers: list[torch.optim.Optimizer],
    averaged: float = 0.98,
    clip: float = _CLIP,
) -> dict[str, float]:
    """Trains a module in place, and leaves it with its averaged weights.

    Returns:
        The means of its losses over the last `_LOGGED` steps, and the seconds it took.
    """
    kept, log = folder / f"{name}.kept.pt", folder / f"{name}.log"
    average = {key: value.clone() for key, value in module.state_dict().items()}
    begun, spent, recent = 0, 0.0, []
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if kept.exists():
        begun, spent, average = _resumed(kept, module, optimizers)
    started = time.perf_counter() - spent
    for step in range(begun, plan.steps):
        _set_rates(optimizers, rates, min(1, (step + 1) / min(_WARM_UP, plan.steps // 3)) * _falling(step, plan.steps))
        module.train()
        found = losses(step, seeded(name, step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        found["loss"].backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip, error_if_nonfinite=True)
        for optimizer in optimizers:
            optimizer.step()
        if step % 5 == 0:
            _average(average, module, min(averaged, step / (step + 50)))
        recent = [*recent[-_LOGGED + 1 :], {key: value.detach().item() for key, value in found.items()}]
        last = step == plan.steps - 1
        if step % _LOGGED == 0 or last:
            with log.open("a") as file:
                row = {key: round(sum(one[key] for one in recent) / len(recent), 5) for key in recent[0]}
                file.write(json.dumps({"step": step, "seconds": round(time.perf_counter() - started), **row}) + "\n")
        if step % _KEPT == _KEPT - 1 and not last:
            states = [optimizer.state_dict() for optimizer in optimizers]
            spent = time.perf_counter() - started
            store.save_tensors(kept, [step + 1, spent, module.state_dict(), average, states])
    module.load_state_dict(average)
    module.eval()
    kept.unlink(missing_ok=True)
    return {**row, "seconds": round(time.perf_counter() - started)}


def _resumed(
    kept: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> tuple[int, float, dict[str, Tensor]]:
    begun, spent, weights, average, states = store.load_tensors(kept)
    module.load_state_dict(weights)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    return begun, spent, average


def _falling(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.005


def _set_rates(optimizers: list[torch.optim.Optimizer], rates: list[list[float]], share: float) -> None:
    for optimizer, own in zip(optimizers, rates, strict=True):
        for group, rate in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = rate * share


def _average(average: dict[str, Tensor], module: nn.Module, kept: float) -> None:
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value, 1 - kept)
            else:
                average[key].copy_(value)
