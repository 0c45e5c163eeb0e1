"""The plan is pure data, and what it predicts is what a load leaves in memory, to the byte."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from chatterbox_nb.checkpoint import reference, source
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.synthetic import TINY, TINY_TURBO
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.precision import device, layers
from chatterbox_nb.precision.choice import choose_kernel
from chatterbox_nb.precision.kernels.plain import Plain
from chatterbox_nb.precision.kernels.x86 import Dynamic, Int8Pack
from chatterbox_nb.precision.plan import (
    ENCODERS,
    PRECISIONS,
    DeviceFacts,
    TensorInfo,
    choose_precision,
    emulation,
    int8_rows,
    plan,
    storage_of,
)

AVX512 = DeviceFacts("cpu", "x86_64", "AVX512", vnni=True)
AMX = DeviceFacts("cpu", "x86_64", "AVX512", vnni=True, bf16=True)
AVX2 = DeviceFacts("cpu", "x86_64", "AVX2")
PLAIN_X86 = DeviceFacts("cpu", "x86_64", "DEFAULT")
WINDOWS = DeviceFacts("cpu", "AMD64", "AVX2")
ARM = DeviceFacts("cpu", "aarch64", "DEFAULT")
CUDA = DeviceFacts("cuda:0", "x86_64", "8.0")
T4 = DeviceFacts("cuda:0", "x86_64", "7.5")
MPS = DeviceFacts("mps", "arm64")


@pytest.fixture(scope="module")
def english_tensors() -> tuple[TensorInfo, ...]:
    """Every tensor of the published English model; built on the meta device, no weights."""
    return inventory(ENGLISH, reference.build(ENGLISH))


@pytest.fixture(scope="module")
def tiny_tensors() -> tuple[TensorInfo, ...]:
    return inventory(TINY, reference.build(TINY))


# Pure data


@pytest.mark.parametrize(
    ("precision", "facts", "better"),
    [
        ("fp16", AMX, "bf16"),
        ("fp16", AVX2, "int8"),
        ("bf16", AVX2, "int8"),
        ("fp16", replace(AMX, fp16=True), None),
        ("bf16", AMX, None),
        ("int8", AMX, None),
        ("int8", AVX2, None),
        ("fp32", AVX2, None),
        ("fp16", CUDA, None),
        ("fp16", ARM, None),
    ],
)
def test_a_half_precision_that_a_cpu_emulates_is_said_and_what_is_better(
    tiny_tensors: tuple[TensorInfo, ...], precision: str, facts: DeviceFacts, better: str | None
) -> None:
    said = emulation(plan(tiny_tensors, precision, facts), facts)
    assert (f"Try --precision {better}" in said) if better else said == ""


def test_a_load_says_what_its_cpu_emulates() -> None:
    here = device.facts("cpu")
    loaded = engine.load(*source.find("demo"), "fp16", replace(here, fp16=False))
    assert any("does not multiply float16" in warning for warning in loaded.report.warnings)


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
    planned = plan((), "int8", AVX512)
    assert storage_of("t3", "norm", planned) == storage_of("vocoder", "bias", planned) == "float32"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_encoders_keep_float32_but_for_the_lstm(tiny_tensors: tuple[TensorInfo, ...], precision: str) -> None:
    """They run once a voice; the package's own numbers come from float32."""
    rows = [
        row for row in plan(tiny_tensors, precision, CUDA).rows if row.component in (*ENCODERS, "vocoder") and row.bytes
    ]
    assert {row.compute for row in rows} == {"float32"}
    stored = {row.name: row.storage for row in rows if row.storage != "float32"}
    assert stored == ({"voice_encoder.lstm": "int8", "vocoder.conv": "int8"} if precision == "int8" else {})


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")])
def test_t3_and_flow_are_wholly_of_their_precision(
    tiny_tensors: tuple[TensorInfo, ...], precision: str, dtype: str
) -> None:
    rows = [row for row in plan(tiny_tensors, precision, CUDA).rows if row.component in ("t3", "flow") and row.bytes]
    assert {(row.storage, row.compute) for row in rows} == {(dtype, dtype)}


@pytest.mark.parametrize(
    ("facts", "t3", "flow"),
    [
        (AVX512, "float32", "float32"),
        (AMX, "float32", "bfloat16"),
        (CUDA, "bfloat16", "bfloat16"),
        (T4, "float16", "float16"),
        (MPS, "float16", "float16"),
    ],
)
def test_int8_computes_in_the_half_that_a_device_has(
    tiny_tensors: tuple[TensorInfo, ...], facts: DeviceFacts, t3: str, flow: str
) -> None:
    """On a CPU only the flow: T3 multiplies a few rows, where half is no faster."""
    planned = plan(tiny_tensors, "int8", facts)
    assert (planned.compute, planned.flow_compute) == (t3, flow)
    assert planned.row("t3", "norm").storage == planned.row("t3", "norm").compute == t3
    assert planned.row("flow", "bias").storage == planned.row("flow", "linear").compute == flow
    assert planned.row("vocoder", "bias").storage == "float32"


def test_a_flow_in_bf16_halves_what_int8_leaves_of_it(english_tensors: tuple[TensorInfo, ...]) -> None:
    """Biases, norms and the encoder's position biases: 516,064 bytes."""
    sizes = [plan(english_tensors, "int8", facts, "plain").expected_bytes for facts in (AVX512, AMX)]
    assert sizes == [668_968_232, 668_452_168]


def test_what_int8_computes_in_can_be_asked_for(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    """Of T3 and flow both."""
    for dtype in ("float32", "float16"):
        planned = plan(tiny_tensors, "int8", AMX, compute=dtype)
        assert planned.row("t3", "norm").storage == planned.row("flow", "norm").storage == dtype
    with pytest.raises(PrecisionError, match="fp16 computes in float16, not float32"):
        plan(tiny_tensors, "fp16", AVX512, compute="float32")
    with pytest.raises(PrecisionError, match="'int4' is no dtype"):
        plan(tiny_tensors, "int8", AVX512, compute="int4")


@pytest.fixture(scope="module")
def turbo_tensors() -> tuple[TensorInfo, ...]:
    return inventory(TINY_TURBO, reference.build(TINY_TURBO))


@pytest.mark.parametrize("name", int8_rows())
def test_each_row_of_int8_can_be_switched_off(
    tiny_tensors: tuple[TensorInfo, ...], turbo_tensors: tuple[TensorInfo, ...], name: str
) -> None:
    tensors = turbo_tensors if name == "t3.text" else tiny_tensors
    planned = plan(tensors, "int8", AVX512, off=[name])
    assert "int8" not in {row.storage for row in planned.rows if row.name == name}
    there = {f"{tensor.component}.{tensor.kind}" for tensor in tensors}
    assert {row.name for row in planned.rows if row.storage == "int8"} == set(int8_rows()) & there - {name}
    assert f"not in int8: {name}" in planned.reason


def test_every_row_of_int8_is_some_models(
    tiny_tensors: tuple[TensorInfo, ...], turbo_tensors: tuple[TensorInfo, ...]
) -> None:
    there = {f"{tensor.component}.{tensor.kind}" for tensor in (*tiny_tensors, *turbo_tensors)}
    assert set(int8_rows()) <= there


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_large_table_of_text_stays_on_the_cpu_beside_a_gpu(
    turbo_tensors: tuple[TensorInfo, ...], precision: str
) -> None:
    """It is read once a text; on a CPU there is nowhere else to put it."""
    here, there = (plan(turbo_tensors, precision, facts) for facts in (AVX512, DeviceFacts("cuda:0", "x86_64", "8.0")))
    assert here.row("t3", "text").placement == "resident"
    assert there.row("t3", "text").placement == "on the CPU"
    on_gpu = replace(
        there, rows=tuple(replace(row, placement="resident") if row.kind == "text" else row for row in there.rows)
    )
    assert on_gpu.expected_bytes - there.expected_bytes == there.row("t3", "text").bytes > 0


def test_the_heads_of_training_are_dropped(turbo_tensors: tuple[TensorInfo, ...]) -> None:
    unused = {tensor.name for tensor in turbo_tensors if not tensor.used and tensor.kind != "counter"}
    assert {"text_head.weight", "tfmr.wte.weight"} <= unused


def test_a_row_that_is_none_is_an_error_with_the_nearest(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    with pytest.raises(PrecisionError, match=r"int8 has no row 'flow.lineer'.*Did you mean flow.linear"):
        plan(tiny_tensors, "int8", AVX512, off=["flow.lineer"])


def test_rows_are_switched_off_of_int8_alone(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    assert plan(tiny_tensors, "fp16", AVX512, off=["flow.linear"]) == plan(tiny_tensors, "fp16", AVX512)


def test_kept_encoders_are_resident_and_counted(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    kept, parked = (plan(tiny_tensors, "int8", AVX512, keep_encoders=keep) for keep in (True, False))
    on_demand = sum(row.bytes for row in parked.rows if row.placement == "on demand")
    assert kept.expected_bytes == parked.expected_bytes + on_demand
    assert on_demand > 0


def test_mps_pads_what_its_kernel_multiplies(english_tensors: tuple[TensorInfo, ...]) -> None:
    """8194 rows of the head become 8224."""
    planned, plain = (plan(english_tensors, "int8", MPS, kernel) for kernel in ("int8pack", "plain"))
    assert planned.row("t3", "linear").bytes == plain.row("t3", "linear").bytes
    heads = [next(row.bytes for row in found.rows if row.name == "t3.head" and row.bytes) for found in (planned, plain)]
    assert heads[0] - heads[1] == 30 * 1024


# Auto


@pytest.mark.parametrize(
    ("facts", "precision", "reason"),
    [
        (AVX512, "int8", "on a CPU int8 is the smallest, and faster than fp32"),
        (CUDA, "bf16", "computes bf16 natively (capability 8.0)"),
        (T4, "fp16", "only emulates bf16 (capability 7.5, native from 8.0)"),
        (MPS, "fp16", "untested until someone runs it"),
    ],
)
def test_auto_is_the_fastest_that_fits_and_says_why(
    english_tensors: tuple[TensorInfo, ...], facts: DeviceFacts, precision: str, reason: str
) -> None:
    for free in (None, 80 * 10**9):
        chosen, why = choose_precision(english_tensors, replace(facts, free_bytes=free))
        assert chosen == precision
        assert reason in why


@pytest.mark.parametrize(("facts", "half"), [(CUDA, "bf16"), (T4, "fp16"), (MPS, "fp16")])
def test_auto_is_int8_where_half_does_not_fit(
    english_tensors: tuple[TensorInfo, ...], facts: DeviceFacts, half: str
) -> None:
    chosen, why = choose_precision(english_tensors, replace(facts, free_bytes=1_500_000_000))
    assert chosen == "int8"
    assert why == f"{half} would need 1.71 GB and 1.50 GB is free; the smallest"


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
    [
        ("fp32", "auto"),
        ("fp16", "auto"),
        ("bf16", "auto"),
        ("int8", "auto"),
        ("int8", "plain"),
        ("int8", "int8pack"),
        ("int8", "dynamic"),
    ],
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


@pytest.mark.parametrize(("precision", "kernel"), [("fp32", "auto"), ("fp16", "auto"), ("int8", "auto")])
def test_each_row_is_measured_and_as_planned(demo: Callable[..., Model], precision: str, kernel: str) -> None:
    model = demo(precision, kernel)
    assert tuple(replace(row, layers=0, converted=0) for row in model.report.rows) == model.plan.rows


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
        (ARM, "int8pack", "multiplied by int8pack (aarch64)"),
        (CUDA, "plain", "no faster int8 kernel for cuda x86_64 8.0"),
        (MPS, "int8pack", "multiplied by int8pack (mps)"),
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


def test_the_reason_names_precision_device_why_and_kernel(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    planned = plan(tiny_tensors, "int8", replace(AVX512, unfused="numba is not installed"), why="asked for")
    assert planned.reason == (
        "int8 on cpu: asked for; weights in int8 are multiplied by int8pack (AVX512), "
        "not by one compiled step (numba is not installed)"
    )
    assert planned.kernel == "int8pack"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_where_a_step_can_be_compiled_it_is_at_every_precision(
    tiny_tensors: tuple[TensorInfo, ...], precision: str
) -> None:
    planned = plan(tiny_tensors, precision, replace(AVX512, unfused=""))
    assert planned.kernel == "fused"
    assert planned.reason == f"{precision} on cpu; T3's layers are one compiled step"
    fused = {(row.component, row.kind) for row in planned.rows if row.kernel == "fused"}
    assert fused == {("t3", "linear"), ("t3", "head")}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_gpu_has_a_fused_step_at_every_precision_or_says_why_not(
    tiny_tensors: tuple[TensorInfo, ...], precision: str
) -> None:
    gpu = DeviceFacts("cuda:0", "x86_64", "9.0", unfused="")
    planned = plan(tiny_tensors, precision, gpu)
    assert planned.kernel == "fused"
    assert planned.reason == f"{precision} on cuda:0; T3's step is five kernels a layer"
    without = plan(tiny_tensors, precision, replace(gpu, unfused="Triton is not installed"))
    assert without.kernel == ("plain" if precision == "int8" else "")
    assert without.reason.endswith("not by one compiled step (Triton is not installed)")
    with pytest.raises(PrecisionError, match=r"'fused' does not run .*\(Triton is not installed\)"):
        plan(tiny_tensors, precision, replace(gpu, unfused="Triton is not installed"), "fused")


def test_a_step_that_turns_out_not_to_work_leaves_a_plan_that_says_so(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    from chatterbox_nb.engine.assembly import without_fused

    for precision, kernel in (("int8", "plain"), ("bf16", "")):
        planned = plan(tiny_tensors, precision, DeviceFacts("cuda:0", "x86_64", "9.0", unfused=""))
        left = without_fused(planned, "a layer is off by 1 of its size")
        assert left.kernel == kernel
        assert "fused" not in {row.kernel for row in left.rows}
        assert left.expected_bytes == planned.expected_bytes
        assert left.reason.endswith("(a layer is off by 1 of its size)")


def test_plain_is_torch_at_every_precision(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    here = replace(AVX512, unfused="")
    assert plan(tiny_tensors, "fp32", here, "plain").kernel == ""
    assert plan(tiny_tensors, "int8", here, "plain").kernel == "plain"


def test_a_compiled_step_that_cannot_be_says_why(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    with pytest.raises(PrecisionError, match=r"'fused' does not run .*\(numba is not installed\)"):
        plan(tiny_tensors, "fp32", replace(AVX512, unfused="numba is not installed"), "fused")


def test_only_what_runs_once_a_token_is_given_the_kernel(tiny_tensors: tuple[TensorInfo, ...]) -> None:
    rows = [row for row in plan(tiny_tensors, "int8", AVX512).rows if row.storage == "int8"]
    assert {(row.component, row.kind) for row in rows if row.kernel == "int8pack"} == {("t3", "linear"), ("t3", "head")}
    assert {row.kernel for row in rows} == {"int8pack", "plain"}
