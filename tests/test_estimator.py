"""Our estimator is the package's `ConditionalDecoder`, layer by layer, without what a call can do without."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint import reference, source
from chatterbox_nb.checkpoint.spec import ModelSpec, S3GenDims
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine import flow
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets import estimator
from chatterbox_nb.engine.nets.estimator import INPUTS, MELS, Estimator, Velocity, time_embedding
from chatterbox_nb.engine.nets.ready import Matrix, Ready, attention
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.precision import device, layers
from chatterbox_nb.precision.kernels.plain import Plain
from chatterbox_nb.precision.layers import quantize

SPECS = {
    "tiny": TINY,
    "demo": source.find("demo")[0],
    "two of each": replace(TINY, s3gen=replace(TINY.s3gen, estimator_blocks=2, estimator_middle=2)),
    "mean flow": replace(TINY, s3gen=replace(TINY.s3gen, meanflow=True)),
}
LENGTHS = [1, 2, 3, 7, 50]
TIMES = torch.tensor([0.0, 0.3, 0.9877, 1.0])  # three steps lie between them
HALF = torch.bfloat16


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def package_of(spec: ModelSpec) -> nn.Module:
    """The package's, with random weights."""
    s3gen: Any = reference.build(spec).s3gen
    net: nn.Module = s3gen.flow.decoder.estimator.to_empty(device="cpu").requires_grad_(False)
    for index, parameter in enumerate(net.parameters()):
        spread = 1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.data = spread * random(*parameter.shape, seed=index)
    return net


def ours_of(theirs: nn.Module, dims: S3GenDims, dtype: torch.dtype = torch.float32) -> Estimator:
    """Ours, filled as a load fills it."""
    net = Estimator(dims).eval().to(dtype).requires_grad_(False)
    state = theirs.state_dict()
    for fill in estimator.fills(net, "", ""):
        layer, _, name = fill.target.rpartition(".")
        getattr(net.get_submodule(layer), name).data[fill.index] = state[fill.sources[0]]
    return net


def given(frames: int, rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """mu, speaker, condition."""
    return random(rows, frames, MELS, seed=1), random(rows, MELS, seed=2), random(rows, frames, MELS, seed=3)


def answer_of(theirs: nn.Module, x: Tensor, inputs: tuple[Tensor, Tensor, Tensor], step: int) -> Tensor:
    """What the package answers, `[B, T, 80]`."""
    mu, speaker, condition = inputs
    rows, frames, _ = mu.shape
    time, end = (TIMES[at].expand(rows) for at in (step, step + 1))
    found: Tensor = theirs(
        x=x.t().expand(rows, -1, -1), mask=torch.ones(rows, 1, frames), mu=mu.transpose(1, 2),
        t=time, spks=speaker, cond=condition.transpose(1, 2), r=end if theirs.meanflow else None,
    )  # fmt: skip
    return found.transpose(1, 2)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other).norm() / other.norm())


@pytest.fixture(scope="module", params=SPECS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, S3GenDims]:
    spec = SPECS[request.param]
    return package_of(spec), spec.s3gen


@pytest.mark.parametrize("frames", LENGTHS)
def test_it_is_the_packages_at_every_length_and_time(pair: tuple[nn.Module, S3GenDims], frames: int) -> None:
    theirs, dims = pair
    x, inputs = random(frames, MELS), given(frames)
    with torch.inference_mode():
        velocity = Velocity(ours_of(theirs, dims), *inputs, TIMES)
        for step in range(3):
            wanted = answer_of(theirs, x, inputs, step)
            assert (velocity(x, step) - wanted).abs().max() <= 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("frames", LENGTHS)
def test_in_bf16_it_is_as_close_as_bf16_is(pair: tuple[nn.Module, S3GenDims], frames: int) -> None:
    theirs, dims = pair
    x, inputs = random(frames, MELS), given(frames)
    with torch.inference_mode():
        velocity = Velocity(ours_of(theirs, dims, HALF), *(part.to(HALF) for part in inputs), TIMES)
        found = velocity(x, 1)
        assert found.dtype == HALF
        assert 0 < apart(found, answer_of(theirs, x, inputs, 1)) < 0.05


@pytest.mark.parametrize("frames", [639, 640, 767, 768])
def test_queries_that_are_added_for_speed_change_nothing(frames: int) -> None:
    query, key, value = random(3, 1, 2, frames, 8)
    wanted = torch.softmax(query @ key.transpose(2, 3) / 8**0.5, dim=-1) @ value
    assert attention(query, key, value).shape == wanted.shape
    assert torch.allclose(attention(query, key, value), wanted, atol=1e-6)


def test_time_embeddings_are_the_packages() -> None:
    reference.import_package()
    from chatterbox.models.s3gen.matcha.decoder import SinusoidalPosEmb

    assert torch.equal(time_embedding(TIMES), SinusoidalPosEmb(INPUTS)(TIMES))


def test_rows_do_not_touch_each_other(pair: tuple[nn.Module, S3GenDims]) -> None:
    theirs, dims = pair
    net, x, inputs = ours_of(theirs, dims), random(7, MELS), given(7)
    with torch.inference_mode():
        both = Velocity(net, *inputs, TIMES)(x, 0)
        alone = [Velocity(net, *(part[row : row + 1] for part in inputs), TIMES)(x, 0) for row in range(2)]
    assert torch.allclose(both, torch.cat(alone), atol=1e-5)


# Matrices of one call


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_convolution_is_causal_and_the_packages(frames: int, dtype: torch.dtype) -> None:
    layer = nn.Conv1d(5, 6, 3).requires_grad_(False)
    x = random(2, frames, 5)
    wanted = layer(nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
    assert torch.allclose(Matrix(layer, dtype)(x.to(dtype)).float(), wanted, atol=1e-6 if dtype != HALF else 0.03)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("bias", [True, False])
def test_what_follows_a_product_is_the_same_as_one_after_the_other(dtype: torch.dtype, bias: bool) -> None:
    layer = nn.Linear(32, 48, bias).requires_grad_(False)
    matrix, x, total = Matrix(layer, dtype), random(2, 9, 32).to(dtype), random(2, 9, 48, seed=1).to(dtype)
    wanted = nn.functional.linear(x.float(), layer.weight, layer.bias)
    near = 1e-6 if dtype == torch.float32 else 0.03
    assert torch.allclose(matrix.gelu(x).float(), nn.functional.gelu(wanted), atol=near)
    assert torch.allclose(matrix.added(x, total.clone()).float(), wanted + total.float(), atol=near)


def test_a_layer_that_is_not_of_the_module_is_no_matrix_of_it() -> None:
    with pytest.raises(KeyError):
        Ready(nn.Linear(2, 2), torch.float32)(nn.Linear(2, 2), random(1, 1, 2))


# int8


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_int8_is_the_network_with_its_weights_rounded(pair: tuple[nn.Module, S3GenDims], dtype: torch.dtype) -> None:
    theirs, dims = pair
    exact = ours_of(theirs, dims)
    stored = {name: "int8" for name, layer in exact.named_modules() if isinstance(layer, (nn.Linear, nn.Conv1d))}
    rounded, x, inputs = ours_of(theirs, dims), random(50, MELS), given(50)
    quantized = ours_of(theirs, dims).to(dtype)
    layers.convert(quantized, stored, lambda name: Plain(), dtype)
    for name in stored:
        layer, target = rounded.get_submodule(name), quantized.get_submodule(name)
        numbers, scale = quantize(layer.weight.data)
        target.weight_int8.copy_(numbers)
        target.weight_scale.copy_(scale)
        if layer.bias is not None:
            target.bias.data.copy_(layer.bias)
        layer.weight.data = numbers * scale.view(-1, *[1] * (numbers.ndim - 1))
    layers.finish(quantized)
    with torch.inference_mode():
        found = Velocity(quantized, *(part.to(dtype) for part in inputs), TIMES)(x, 1)
        assert apart(found, Velocity(rounded, *inputs, TIMES)(x, 1)) < (1e-5 if dtype != HALF else 0.05)


def test_int8_computes_the_flow_in_what_the_plan_says(demo: Callable[..., Model]) -> None:
    model = demo("int8")
    wanted = torch.bfloat16 if device.multiplies_bf16() else torch.float32
    assert model.plan.flow_compute == str(wanted).removeprefix("torch.")
    assert model.plan.compute == "float32"
    assert {parameter.dtype for parameter in model.flow.parameters()} == {wanted}
    assert {parameter.dtype for parameter in model.t3.parameters()} == {torch.float32}


# What a call leaves behind


def alive() -> set[int]:
    """What was made for a call and is still there."""
    gc.collect()
    return {id(found) for found in gc.get_objects() if type(found) in (Matrix, Ready, Velocity)}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_call_leaves_nothing_behind(demo: Callable[..., Model], precision: str) -> None:
    model = demo(precision)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in layers.tensors_of(model.flow).items()}
    kept = alive()
    with torch.inference_mode():
        flow.tokens_to_mel(model.flow, torch.arange(6)[None], model.builtin_voice(), StageNoise(0), 2)
    assert alive() == kept
    after = layers.tensors_of(model.flow)
    assert after.keys() == before.keys()
    for name, (place, values) in before.items():
        assert after[name].data_ptr() == place
        assert torch.equal(after[name], values), name
