"""Full-size random weights under teacher forcing: how far each precision's numbers are from our fp32. No gate.

Random weights say nothing, so that there is no quality to lose; what adds up over thirty layers of the true width does.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import pages, teacher
from chatterbox_nb.checkpoint import source, synthetic
from chatterbox_nb.engine import model as engine
from chatterbox_nb.precision import device

SIDES = (
    ("fp32", "auto"), ("fp16", "auto"), ("bf16", "auto"), ("int8", "plain"), ("int8", "int8pack"), ("int8", "dynamic"),
)  # fmt: skip
TEXT, SPEECH = 40, 200  # tokens of the utterance


def utterance(text_vocab: int, codes: int) -> tuple[Tensor, Tensor]:
    """Random text and speech tokens."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(3, text_vocab, (TEXT,), generator=generator),
        torch.randint(codes, (SPEECH,), generator=generator),
    )


def _states(folder: Path, precision: str, kernel: str) -> tuple[Tensor, Tensor]:
    """Hidden states and logits `[n + 1, ...]` in float32. The model is gone when this returns."""
    spec, files = source.find("english", folder)
    model = engine.load(spec, files, precision, device.facts("cpu"), kernel)
    teacher.every_row_through_the_kernel(model)
    states = teacher.states_of(model, *utterance(spec.t3.text_vocab, spec.s3gen.codes))
    with torch.inference_mode():
        return states.float(), model.t3.head(states).float()


def measure(folder: Path) -> dict[str, Any]:
    """Figures of each side, one model in memory at a time."""
    synthetic.kept_full(folder)
    true_states, true_logits = _states(folder, *SIDES[0])
    figures = {}
    for precision, kernel in SIDES[1:]:
        gc.collect()
        started = time.perf_counter()
        states, logits = _states(folder, precision, kernel)
        name = precision if kernel == "auto" else f"{precision}, {kernel}"
        true, found = true_logits.log_softmax(1), logits.log_softmax(1)
        figures[name] = {
            "hidden": float((states - true_states).norm() / true_states.norm()),
            "divergence": float((true.exp() * (true - found)).sum(1).mean()),
            "agreement": float((logits.argmax(1) == true_logits.argmax(1)).float().mean()),
        }
        print(f"{name}: {figures[name]} in {time.perf_counter() - started:.0f} s", flush=True)
    return {
        **pages.here(),
        "positions": SPEECH + 1,
        "sides": figures,
    }
