"""What of the GPU's figures can be seen without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from chatterbox_nb import gpu_figures
from chatterbox_nb.engine import model as engine
from chatterbox_nb.precision.layers import quantize

ROOT = Path(__file__).parent.parent


def test_the_text_of_a_take_is_one_that_the_model_reads_at_once(
    demo: Callable[..., engine.Model], tiny: engine.Model
) -> None:
    for model in (demo(), tiny):
        text = gpu_figures._text(model)
        assert len(model.text_ids(text)) <= model.spec.t3.text_positions
        assert len(text.split()) > 5


def test_products_are_held_against_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, gain = (
        torch.randn(2, 6, generator=generator),
        torch.randn(8, 6, generator=generator),
        torch.rand(6) + 0.5,
    )
    found = gpu_figures._product(x, (weight, None), gain, 1e-5, add=True)
    assert found.dtype == torch.float64
    assert torch.allclose(found, x.double() @ weight.double().T)
    normed = torch.nn.functional.rms_norm(x.double(), (6,), gain.double(), 1e-5)
    gate, up = (normed @ weight.double().T).chunk(2, dim=1)
    found = gpu_figures._product(x, (weight, None), gain, 1e-5, norm=True, gated=True)
    assert torch.allclose(found, torch.nn.functional.silu(gate) * up)
    offset, bias = torch.randn(6, generator=generator), torch.randn(8, generator=generator)
    found = gpu_figures._product(x, (weight, None), gain, 1e-5, norm=True, gelu=True, offset=offset, bias=bias)
    normed = torch.nn.functional.layer_norm(x.double(), (6,), gain.double(), offset.double(), 1e-5)
    wanted = torch.nn.functional.gelu(normed @ weight.double().T + bias.double(), approximate="tanh")
    assert torch.allclose(found, wanted), "of a GPT-2"
    quantized, scale = quantize(weight)
    found = gpu_figures._product(x, (quantized, scale), gain, 1e-5, add=True)
    assert torch.allclose(found, x.double() @ (quantized.double() * scale.double()[:, None]).T)


def test_without_a_gpu_the_report_says_so_in_a_line() -> None:
    if torch.cuda.is_available():
        return
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "This machine has no CUDA device that torch can use: there is nothing to measure."
