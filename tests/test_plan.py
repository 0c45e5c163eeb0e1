"""The plan is pure data, and what it predicts is what a load leaves in memory, to the byte."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chatterbox_nb.checkpoint import reference, source
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.precision import device, layers
from chatterbox_nb.precision.kernels.plain import Plain
from chatterbox_nb.precision.kernels.x86 import Dynamic, Int8Pack
from chatterbox_nb.precision.plan import (
    ENCODERS,
    PRECISIONS,
    STORAGE,
    DeviceFacts,
    TensorInfo,
    choose_kernel,
    plan,
    storage_of,
)

AVX512 = DeviceFacts("cpu", "x86_64", "AVX512", vnni=True)
AVX2 = DeviceFacts("cpu", "x86_64", "AVX2")
PLAIN_X86 = DeviceFacts("cpu", "x86_64", "DEFAULT")
WINDOWS = DeviceFacts("cpu", "AMD64", "AVX2")
ARM = DeviceFacts("cpu", "aarch64", "DEFAULT")
CUDA = DeviceFacts("cuda:0", "x86_64", "8.0")
MPS = DeviceFacts("mps", "arm64")


@pytest.fixture(scope="module")
def english_tensors() -> tuple[TensorInfo, ...]:
    """Every tensor of the published English model; built on the meta device, no weights."""
    return inventory(ENGLISH, reference.build(ENGLISH))


@pytest.fixture(scope="module")
def tiny_tensors() -> tuple[TensorInfo, ...]:
    return inventory(TINY, reference.build(TINY))


# Pure data


def test_it_imports_no_torch() -> None:
    code = "import sys, chatterbox_nb.precision.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_input_gives_the_same_plan(tiny_tensors: tuple[TensorInfo, ...], precision: str) -> None:
    assert plan(tiny_tensors, precision, AVX512) == plan(list(tiny_tensors), precision, AVX512)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_tensor_is_in_one_row(tiny_tensors: tuple[TensorInfo, ...], precision: str) -> None:
    planned = plan(tiny_tensors, precision, AVX512)
    wanted = Counter((tensor.component, tensor.kind) for tensor in tiny_tensors)
    found: Counter[tuple[str, str]] = Counter()
    for row in planned.rows:
        found[row.component, row.kind] += row.tensors
    assert found == wanted
    assert planned.shipped_bytes == sum(tensor.shipped_bytes for tensor in tiny_tensors)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_row_says_where_its_tensors_are(tiny_tensors: tuple[TensorInfo, ...], precision: str) -> None:
    for row in plan(tiny_tensors, precision, AVX512).rows:
        if row.storage in ("folded", "unused"):
            assert (row.placement, row.bytes, row.compute) == ("dropped", 0, "")
        else:
            assert row.placement == ("on demand" if row.component in ENCODERS else "resident")
            assert row.bytes > 0


def test_a_kind_that_is_not_named_keeps_float32() -> None:
    assert storage_of("t3", "norm", "int8") == storage_of("vocoder", "bias", "int8") == "float32"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_encoders_keep_float32(precision: str) -> None:
    """They run once a voice; the package's own numbers come from float32."""
    assert not set(ENCODERS) & set(STORAGE[precision])


# Bytes


def tensors_in(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object, each once, wherever it hides. Kernels' constants are shared."""
    if id(thing) in seen or isinstance(thing, (Plain, Int8Pack, Dynamic)):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in list(thing.values()):
            yield from tensors_in(value, seen)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from tensors_in(value, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from tensors_in(vars(thing), seen)


def bytes_found(model: Model) -> int:
    found = {id(tensor): tensor for module in model.modules().values() for tensor in tensors_in(module, set())}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def loaded(model_name: str, precision: str, kernel: str, request: pytest.FixtureRequest) -> Model:
    if model_name == "demo":
        demo: Callable[..., Model] = request.getfixturevalue("demo")
        return demo(precision, kernel)
    spec, files = source.find(source=request.getfixturevalue("tiny_folder"))
    return engine.load(spec, files, precision, device.facts("cpu"), kernel)


@pytest.mark.parametrize("model_name", ["demo", "tiny"])
@pytest.mark.parametrize(
    ("precision", "kernel"),
    [("fp32", "auto"), ("int8", "auto"), ("int8", "plain"), ("int8", "int8pack"), ("int8", "dynamic")],
)
def test_predicted_bytes_are_the_bytes_in_memory(
    model_name: str, precision: str, kernel: str, request: pytest.FixtureRequest
) -> None:
    """Of the plan, of the report, of the modules' own lists, and of every tensor that can be reached from them."""
    if kernel in ("int8pack", "dynamic") and kernel not in _kernels_here():
        pytest.skip(f"this machine has no {kernel}")
    model = loaded(model_name, precision, kernel, request)
    assert model.plan.expected_bytes == model.report.bytes
    assert model.plan.expected_bytes == sum(layers.bytes_of(module) for module in model.modules().values())
    assert model.plan.expected_bytes == bytes_found(model)


def _kernels_here() -> set[str]:
    here = device.facts("cpu")
    found = {"plain"}
    for name in ("int8pack", "dynamic"):
        try:
            choose_kernel("int8", here, name)
        except PrecisionError:
            continue
        found.add(name)
    return found


@pytest.mark.parametrize(("precision", "kernel"), [("fp32", "auto"), ("int8", "auto")])
def test_each_row_is_measured_and_as_planned(demo: Callable[..., Model], precision: str, kernel: str) -> None:
    model = demo(precision, kernel)
    assert model.report.rows == model.plan.rows


def test_bytes_are_the_same_after_a_forward_pass(demo: Callable[..., Model]) -> None:
    """Nothing is made on first use that was not counted."""
    model = demo("int8")
    before = bytes_found(model)
    voice = model.builtin_voice()
    with torch.inference_mode():
        from chatterbox_nb.engine import decode, flow, vocoder
        from chatterbox_nb.engine.noise import StageNoise

        decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5)
        mel = flow.tokens_to_mel(model.flow, torch.tensor([[1, 2, 3]]), voice, StageNoise(0), 1)
        vocoder.mel_to_wave(model.vocoder, mel, StageNoise(0))
    assert bytes_found(model) == before


def test_int8_adds_a_scale_a_row() -> None:
    tensor = TensorInfo("f", "w", (10, 30), "t3", "linear", rows=10)
    assert tensor.bytes_as("int8") == 10 * 30 + 4 * 10
    assert tensor.bytes_as("float16") == 2 * 10 * 30


# The three ratios


def test_english_is_as_large_as_published(english_tensors: tuple[TensorInfo, ...]) -> None:
    assert sum(tensor.numel for tensor in english_tensors if tensor.kind != "table") == pytest.approx(797.9e6, rel=1e-3)
    assert plan(english_tensors, "fp32", AVX512).shipped_bytes == pytest.approx(3.19e9, rel=2e-3)


@pytest.mark.parametrize(("denominator", "most"), [("shipped", 0.21), ("own fp32", 0.255), ("own fp16", 0.495)])
def test_int8_halves_the_memory_twice(english_tensors: tuple[TensorInfo, ...], denominator: str, most: float) -> None:
    of = {
        "shipped": plan(english_tensors, "int8", AVX512).shipped_bytes,
        "own fp32": plan(english_tensors, "fp32", AVX512).expected_bytes,
        "own fp16": plan(english_tensors, "fp16", AVX512).expected_bytes,
    }[denominator]
    assert plan(english_tensors, "int8", AVX512).expected_bytes / of <= most


def test_nothing_of_english_is_counted_that_inference_never_reads(english_tensors: tuple[TensorInfo, ...]) -> None:
    dropped = {tensor.name for tensor in english_tensors if not tensor.used and tensor.kind != "counter"}
    assert dropped == set(ENGLISH.unused)


def test_a_reports_ratios_are_its_measured_bytes_over_three_denominators(demo: Callable[..., Model]) -> None:
    model = demo("int8")
    tensors = inventory(model.spec, reference.build(model.spec))
    measured = bytes_found(model)
    assert model.report.ratios == {
        "of what the package loads in fp32": measured / sum(tensor.shipped_bytes for tensor in tensors),
        "of our own fp32": measured / bytes_found(demo("fp32")),
        "of our own fp16": measured / plan(tensors, "fp16", AVX512).expected_bytes,
    }


# The kernel


@pytest.mark.parametrize(
    ("facts", "kernel", "reason"),
    [
        (AVX512, "int8pack", "multiplied by int8pack (AVX512)"),
        (AVX2, "int8pack", "multiplied by int8pack (AVX2)"),
        (WINDOWS, "int8pack", "multiplied by int8pack (AVX2)"),
        (PLAIN_X86, "plain", "no faster int8 kernel for cpu x86_64 DEFAULT"),
        (ARM, "plain", "no faster int8 kernel for cpu aarch64"),
        (CUDA, "plain", "no faster int8 kernel for cuda x86_64 8.0"),
        (MPS, "plain", "no faster int8 kernel for mps arm64"),
    ],
)
def test_auto_takes_the_devices_kernel_and_says_why(facts: DeviceFacts, kernel: str, reason: str) -> None:
    chosen, because = choose_kernel("int8", facts)
    assert chosen == kernel
    assert reason in because


@pytest.mark.parametrize("facts", [AVX512, AVX2, PLAIN_X86, ARM, CUDA, MPS])
def test_plain_runs_everywhere(facts: DeviceFacts) -> None:
    assert choose_kernel("int8", facts, "plain") == ("plain", "kernel plain was asked for")


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        (AVX2, "dynamic"),
        (PLAIN_X86, "int8pack"),
        (ARM, "int8pack"),
        (ARM, "dynamic"),
        (CUDA, "int8pack"),
        (MPS, "dynamic"),
    ],
)
def test_a_kernel_the_device_lacks_is_an_error_that_lists_those_it_has(facts: DeviceFacts, asked: str) -> None:
    with pytest.raises(PrecisionError, match=f"'{asked}' does not run on this {facts.kind}.*Here: .*plain") as caught:
        choose_kernel("int8", facts, asked)
    assert asked not in str(caught.value).partition("Here:")[2]


def test_an_unknown_kernel_is_an_error_with_the_nearest() -> None:
    with pytest.raises(PrecisionError, match=r"'dynamik' is not a kernel.*Did you mean dynamic\?"):
        choose_kernel("int8", AVX512, "dynamik")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_kernel_for_int8_is_an_error_at_another_precision(precision: str) -> None:
    with pytest.raises(PrecisionError, match=f"int8, not {precision}. Try --precision int8"):
        choose_kernel(precision, AVX512, "int8pack")
    assert choose_kernel(precision, AVX512) == ("", "")


def test_an_unknown_precision_is_an_error_with_the_nearest(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    with pytest.raises(PrecisionError, match=r"'in8' is not a precision.*Did you mean int8\?"):
        plan(tiny_tensors, "in8", AVX512)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_is_only_planned_is_not_loaded_as_another(tiny_folder: Path, precision: str) -> None:
    spec, files = source.find(source=tiny_folder)
    with pytest.raises(PrecisionError, match=f"{precision} is planned and not built yet; choose fp32 or int8"):
        engine.load(spec, files, precision, device.facts("cpu"))


def test_the_reason_names_precision_device_why_and_kernel(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    planned = plan(tiny_tensors, "int8", AVX512, why="asked for")
    assert planned.reason == "int8 on cpu: asked for; weights in int8 are multiplied by int8pack (AVX512)"
    assert planned.kernel == "int8pack"


def test_only_what_runs_once_a_token_is_given_the_kernel(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    rows = [row for row in plan(tiny_tensors, "int8", AVX512).rows if row.storage == "int8"]
    assert {(row.component, row.kind) for row in rows if row.kernel == "int8pack"} == {("t3", "linear"), ("t3", "head")}
    assert {row.kernel for row in rows} == {"int8pack", "plain"}
