"""Weights come in one tensor at a time, each checked before the first is read, and to the right place to the bit."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SENTENCE
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chatterbox_nb.checkpoint import loader, reference, source, tensorfile
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.loader import Fill, check_file, plain_fills
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.checkpoint.tensorfile import ROWS, TensorFile, read_all
from chatterbox_nb.engine import flow
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.oracle import Package
from chatterbox_nb.engine.pipeline import Speaker, SpokenChunk
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.errors import Cancelled, CheckpointError, SourceError, TensorError
from chatterbox_nb.events import CancelToken, Progress
from chatterbox_nb.precision import device
from chatterbox_nb.precision.kernels import dequantize, get
from chatterbox_nb.precision.layers import convert, quantize, tensors_of
from chatterbox_nb.precision.plan import TensorInfo

pytestmark = pytest.mark.xdist_group("loader")

CPU = torch.device("cpu")


# Small modules, filled from small files


class Pair(nn.Module):
    """Two layers, a parameter of its own, a scalar and a BatchNorm, whose counter inference does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.table = nn.Parameter(torch.zeros(2, 3))
        self.register_buffer("scalar", torch.tensor(0.0))


def on_meta(kind: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return kind().eval()


def random_like(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + name: torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in module.state_dict().items()
    }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[[dict[str, Tensor]], TensorFile]]:
    """Writes tensors to a file and opens it."""
    opened: list[TensorFile] = []

    def write(tensors: dict[str, Tensor]) -> TensorFile:
        path = tmp_path / f"{len(opened)}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        opened.append(TensorFile(path).__enter__())
        return opened[-1]

    yield write
    for file in opened:
        file.__exit__(None, None, None)


Store = Callable[[dict[str, Tensor]], TensorFile]


def test_every_parameter_gets_the_tensor_of_its_name(store: Store) -> None:
    module, tensors = on_meta(Pair), random_like(Pair(), "pair.")
    loader.load(module, store(tensors), plain_fills(module, "pair."), CPU)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, tensors["pair." + name]), name


def test_loaded_parameters_want_no_gradients(store: Store) -> None:
    module = on_meta(Pair)
    loader.load(module, store(random_like(Pair())), plain_fills(module, ""), CPU)
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_in_another_float_type_is_brought_to_the_modules(store: Store, dtype: torch.dtype) -> None:
    module = on_meta(Pair)
    tensors = {name: tensor.to(dtype) for name, tensor in random_like(Pair()).items()}
    loader.load(module, store(tensors), plain_fills(module, ""), CPU)
    weight = module.get_parameter("first.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, tensors["first.weight"].float())


def test_rows_are_filled_from_several_tensors(store: Store) -> None:
    module = on_meta(lambda: nn.Linear(3, 6, bias=False))
    parts = {name: torch.randn(2, 3) for name in "abc"}
    fills = [Fill("weight", (name,), (2 * i, 2 * i + 2)) for i, name in enumerate("cab")]
    loader.load(module, store(parts), fills, CPU)
    assert torch.equal(module.get_parameter("weight"), torch.cat([parts["c"], parts["a"], parts["b"]]))


def test_quantized_rows_are_filled_from_several_tensors(store: Store) -> None:
    """A scale is a row's own, so that fusing and quantizing can be done in either order."""
    module = on_meta(lambda: nn.Sequential(nn.Linear(3, 6, bias=False)))
    convert(module, {"0": "int8"}, lambda name: get("plain"))
    parts = {name: torch.randn(2, 3) for name in "abc"}
    fills = [Fill("0.weight", (name,), (2 * i, 2 * i + 2)) for i, name in enumerate("abc")]
    loader.load(module, store(parts), fills, CPU)
    layer: Any = module[0]  # type: ignore[index]
    weight, scale = quantize(torch.cat([parts[name] for name in "abc"]))
    assert torch.equal(layer.plain()[0], weight)
    assert torch.equal(layer.plain()[1], scale)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (lambda: nn.Linear(5, 4), 0),
        (lambda: nn.Embedding(7, 4), 0),
        (lambda: nn.Conv1d(3, 4, 5), 0),
        (lambda: nn.Conv2d(3, 4, 5), 0),
        (lambda: nn.ConvTranspose1d(3, 4, 5), 1),
    ],
    ids=["linear", "embedding", "conv1d", "conv2d", "transposed"],
)
def test_a_quantized_layer_holds_the_quantized_tensor(store: Store, layer: Callable[[], nn.Module], axis: int) -> None:
    tensors = random_like(nn.Sequential(layer()))
    module = on_meta(lambda: nn.Sequential(layer()))
    convert(module, {"0": "int8"}, lambda name: get("plain"))
    loader.load(module, store(tensors), plain_fills(module, ""), CPU)
    weight, scale = quantize(tensors["0.weight"], axis)
    loaded = module.state_dict()
    assert torch.equal(loaded["0.weight_int8"], weight)
    assert torch.equal(loaded["0.weight_scale"], scale)
    assert len(scale) == tensors["0.weight"].shape[axis]
    if "0.bias" in tensors:
        assert torch.equal(loaded["0.bias"], tensors["0.bias"])


def test_tensors_are_read_in_the_files_order(store: Store) -> None:
    module = on_meta(Pair)
    file = store(random_like(Pair()))
    filled: list[Fill] = []
    loader.load(module, file, reversed(plain_fills(module, "")), CPU, filled.append)
    offsets = [file.entries[fill.sources[-1]].offset for fill in filled]
    assert offsets == sorted(offsets)
    assert len(filled) == len(plain_fills(module, ""))


def test_a_counter_is_neither_read_nor_wanted(store: Store) -> None:
    module = on_meta(Pair)
    assert not [fill for fill in plain_fills(module, "") if "num_batches" in fill.target]
    tensors = random_like(Pair())
    del tensors["norm.num_batches_tracked"]
    loader.load(module, store(tensors), plain_fills(module, ""), CPU)


# Fills that do not fit the module. Said before a tensor is read.


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([(0, 2), (2, 4)], "is left without values"),
        ([(2, 4), (4, 6)], "is left without values"),
        ([(0, 2), (4, 6)], "is left without values"),
        ([(0, 2), (0, 2), (4, 6)], "is filled twice"),
        ([(0, 4), (2, 6)], "is filled twice"),
        ([None, (0, 2)], "is filled twice"),
        ([None, None], "is filled twice"),
        ([], "is left without values"),
    ],
)
def test_every_row_is_filled_once(store: Store, rows: Sequence[tuple[int, int] | None], what: str) -> None:
    module = on_meta(lambda: nn.Linear(3, 6, bias=False))
    file = store({"a": torch.randn(2, 3)})
    with pytest.raises(TensorError, match=f"'weight' of Linear {what}"):
        loader.load(module, file, [Fill("weight", ("a",), stretch) for stretch in rows], CPU)
    assert module.get_parameter("weight").is_meta, "nothing was made"


@pytest.mark.parametrize("name", ["first.weight", "first.bias", "table", "scalar", "norm.running_mean"])
def test_a_parameter_that_no_fill_names_is_told(store: Store, name: str) -> None:
    module = on_meta(Pair)
    fills = [fill for fill in plain_fills(module, "") if fill.target != name]
    with pytest.raises(TensorError, match=f"'{name}' of Pair is left without values"):
        loader.load(module, store(random_like(Pair())), fills, CPU)


def test_a_quantized_parameter_that_no_fill_names_is_told(store: Store) -> None:
    module = on_meta(Pair)
    fills = [fill for fill in plain_fills(module, "") if fill.target != "first.weight"]
    convert(module, {"first": "int8", "second": "int8"}, lambda name: get("plain"))
    with pytest.raises(TensorError, match=r"'first\.weight_int8' of Pair is left without values"):
        loader.load(module, store(random_like(Pair())), fills, CPU)


# The file against the inventory

LISTED = (
    TensorInfo("f", "a.weight", (4, 3), "t3", "linear", 4),
    TensorInfo("f", "a.bias", (4,), "t3", "bias", 4),
    TensorInfo("f", "n.num_batches_tracked", (), "t3", "counter", 1),
    TensorInfo("f", "computed", (5,), "t3", "other", 5),
)


def whole() -> dict[str, Tensor]:
    return {
        "a.weight": torch.zeros(4, 3),
        "a.bias": torch.zeros(4),
        "n.num_batches_tracked": torch.tensor(0),
        "computed": torch.zeros(5),
    }


def refusal(file: TensorFile, optional: Sequence[str] = ()) -> str:
    """The one line that a check fails with: the file, what is wrong, the cure."""
    with pytest.raises(TensorError) as caught:
        check_file(file, LISTED, optional)
    message = str(caught.value)
    assert message.startswith(f"{file.path} is not the checkpoint this model expects: ")
    assert message.endswith("Name the right model or folder, or delete the file and load again.")
    assert "\n" not in message
    return message


def test_a_file_that_holds_what_is_listed_passes(store: Store) -> None:
    check_file(store(whole()), LISTED, ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_passes(store: Store, dtype: torch.dtype) -> None:
    check_file(store({**whole(), "a.weight": torch.zeros(4, 3, dtype=dtype)}), LISTED, ())


def test_an_optional_tensor_may_be_absent_or_there(store: Store) -> None:
    without = whole()
    del without["computed"]
    check_file(store(without), LISTED, ("computed",))
    check_file(store(whole()), LISTED, ("computed",))


def test_an_unknown_tensor_is_named_with_the_nearest_missing(store: Store) -> None:
    tensors = whole()
    tensors["a.weigth"] = tensors.pop("a.weight")
    message = refusal(store(tensors))
    assert "1 tensors nobody knows: 'a.weigth' Did you mean a.weight?" in message


def test_a_missing_tensor_is_named(store: Store) -> None:
    tensors = whole()
    del tensors["a.bias"]
    assert "1 missing tensors: 'a.bias'." in refusal(store(tensors))


def test_a_misshapen_tensor_is_named_with_both_shapes(store: Store) -> None:
    message = refusal(store({**whole(), "a.weight": torch.zeros(5, 3)}))
    assert "1 tensors of another shape: 'a.weight' is [5, 3], not [4, 3]." in message


def test_a_transposed_tensor_is_called_so(store: Store) -> None:
    message = refusal(store({**whole(), "a.weight": torch.zeros(3, 4)}))
    assert "'a.weight' is [3, 4], not [4, 3] (transposed)." in message


def test_a_misshapen_optional_tensor_is_told_all_the_same(store: Store) -> None:
    message = refusal(store({**whole(), "computed": torch.zeros(6)}), ["computed"])
    assert "'computed' is [6], not [5]." in message


@pytest.mark.parametrize(
    ("name", "tensor", "holds"),
    [
        ("a.weight", torch.zeros(4, 3, dtype=torch.int8), "'a.weight' holds int8"),
        ("a.bias", torch.zeros(4, dtype=torch.bool), "'a.bias' holds bool"),
        ("n.num_batches_tracked", torch.tensor(0.0), "'n.num_batches_tracked' holds float32"),
    ],
)
def test_a_tensor_of_the_wrong_kind_is_named(store: Store, name: str, tensor: Tensor, holds: str) -> None:
    assert f"1 tensors of another type: {holds}." in refusal(store({**whole(), name: tensor}))


def test_three_are_named_and_the_rest_counted(store: Store) -> None:
    extra = {f"extra.{index}": torch.zeros(1) for index in range(5)}
    message = refusal(store({**whole(), **extra}))
    assert "5 tensors nobody knows: 'extra.0', 'extra.1', 'extra.2' and 2 more." in message


def test_a_file_in_which_every_name_is_another_is_refused_soon(tiny_folder: Path) -> None:
    """2,489 unknown names, 2,490 missing ones: to look for the nearest of each would take minutes."""
    tensors = [tensor for tensor in inventory(TINY, reference.build(TINY)) if tensor.file == "s3gen.safetensors"]
    listed = [replace(tensor, name=f"s3gen.{tensor.name}") for tensor in tensors]
    with TensorFile(tiny_folder / "s3gen.safetensors") as file:
        started = time.process_time()
        with pytest.raises(TensorError) as caught:
            check_file(file, listed, ())
    assert time.process_time() - started < 5
    assert f"{len(file.entries)} tensors nobody knows: " in str(caught.value)
    first = min(file.entries)
    assert f"'{first}' Did you mean s3gen.{first}?" in str(caught.value)


# Whole models


@pytest.fixture(scope="module")
def stored(tiny: Model) -> dict[str, dict[str, Tensor]]:
    """File → its tensors, read by `safetensors`."""
    return {role: load_file(tiny.files.path(role)) for role in ("t3", "s3gen", "voice_encoder")}


def test_q_k_and_v_are_one_matrix(tiny: Model, stored: dict[str, dict[str, Tensor]]) -> None:
    for index, layer in enumerate(tiny.t3.backbone.layers):
        parts = [stored["t3"][f"tfmr.layers.{index}.self_attn.{part}_proj.weight"] for part in "qkv"]
        assert torch.equal(layer.get_parameter("attention.qkv.weight"), torch.cat(parts))


def test_gate_and_up_are_one_matrix(tiny: Model, stored: dict[str, dict[str, Tensor]]) -> None:
    for index, layer in enumerate(tiny.t3.backbone.layers):
        parts = [stored["t3"][f"tfmr.layers.{index}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        assert torch.equal(layer.get_parameter("ffn.gate_up.weight"), torch.cat(parts))


@pytest.mark.parametrize("kernel", ["plain", "auto"])
def test_a_fused_matrix_in_int8_is_the_quantized_fused_matrix(demo: Callable[..., Model], kernel: str) -> None:
    model = demo("int8", kernel)
    tensors = read_all(model.files.path("t3"))
    parts = [tensors[f"tfmr.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    weight, scale = quantize(torch.cat(parts))
    layer: Any = model.t3.backbone.layers[0].attention.qkv  # type: ignore[union-attr]
    assert torch.equal(layer.plain()[0], weight)
    assert torch.equal(layer.plain()[1], scale)


@pytest.fixture(scope="module")
def package_vocoder(tiny: Model, stored: dict[str, dict[str, Tensor]]) -> nn.Module:
    """The package's vocoder with its own weight norms, loaded by torch itself."""
    s3gen: Any = reference.build(tiny.spec, device="cpu").s3gen
    s3gen.load_state_dict(stored["s3gen"], strict=False)
    vocoder: nn.Module = s3gen.mel2wav
    return vocoder


def weight_normed(vocoder: nn.Module) -> dict[str, Any]:
    from torch.nn.utils import parametrize

    return {name: layer for name, layer in vocoder.named_modules() if parametrize.is_parametrized(layer, "weight")}


def test_a_folded_weight_is_the_packages_computed_one_bit_for_bit(tiny: Model, package_vocoder: nn.Module) -> None:
    layers = weight_normed(package_vocoder)
    assert {type(layer).__mro__[1] for layer in layers.values()} >= {nn.Conv1d, nn.ConvTranspose1d}
    for name, layer in layers.items():
        assert torch.equal(tiny.vocoder.get_submodule(name).weight, layer.weight), name


def test_no_weight_norm_is_left_in_a_loaded_vocoder(tiny: Model) -> None:
    assert weight_normed(tiny.vocoder) == {}
    assert not [name for name, _ in tiny.vocoder.named_parameters() if "parametrizations" in name]


def test_a_folded_weight_in_int8_is_the_quantized_computed_one(tiny: Model, package_vocoder: nn.Module) -> None:
    model = engine.load(tiny.spec, tiny.files, "int8", device.facts("cpu"), "plain")
    for name, layer in weight_normed(package_vocoder).items():
        axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
        wanted = dequantize(*quantize(layer.weight.detach(), axis), torch.float32, axis)
        assert torch.equal(model.vocoder.get_submodule(name).weight, wanted), name


def test_everything_else_is_the_files_to_the_bit(tiny: Model, stored: dict[str, dict[str, Tensor]]) -> None:
    filled = ((tiny.flow, flow.fills(tiny.flow)), (tiny.vocoder, plain_fills(tiny.vocoder, "mel2wav.")))
    for module, fills in filled:
        state, compared = module.state_dict(), 0
        for fill in fills:
            if len(fill.sources) == 1:
                assert torch.equal(state[fill.target][fill.index], stored["s3gen"][fill.sources[0]]), fill
                compared += 1
        assert compared > 100


KERNELS = ["plain", "auto"] + (["dynamic"] if device.facts("cpu").vnni else [])
LOADS = [("fp32", "auto"), *(("int8", kernel) for kernel in KERNELS)]


def every_tensor(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers, tensors that are plain attributes, and those in a tuple, a list or a dict."""
    for name, child in module.named_modules():
        for held in (child._parameters, child._buffers, vars(child)):
            for key, value in held.items():
                many = (
                    value.values()
                    if isinstance(value, dict)
                    else value
                    if isinstance(value, (tuple, list))
                    else [value]
                )
                for tensor in many:
                    if isinstance(tensor, Tensor):
                        yield f"{name}.{key}", tensor


@pytest.mark.parametrize(("precision", "kernel"), LOADS)
def test_nothing_stays_on_meta(demo: Callable[..., Model], precision: str, kernel: str) -> None:
    for name, module in demo(precision, kernel).modules().items():
        tensors = list(every_tensor(module))
        assert [place for place, tensor in tensors if tensor.is_meta] == [], name
        assert {tensor.device for _, tensor in tensors} == {CPU}


def test_nothing_of_the_encoders_stays_on_meta(demo: Callable[..., Model]) -> None:
    encoders = demo().read_encoders()
    for module in encoders.modules().values():
        tensors = list(every_tensor(module))
        assert len(tensors) > 10
        assert [place for place, tensor in tensors if tensor.is_meta] == []
    assert encoders.tokenizer.encoder.freqs_cis.device == CPU


@pytest.mark.parametrize(("precision", "kernel"), LOADS)
def test_buffers_that_no_file_fills_are_those_that_were_computed(
    demo: Callable[..., Model], precision: str, kernel: str
) -> None:
    """Any other would hold whatever was in memory."""
    model = demo(precision, kernel)
    computed = {
        (component, name.rpartition(".")[2])
        for component, module in model.modules().items()
        for name, _ in module.named_buffers()
        if name not in module.state_dict() and not name.endswith("weight_int8")
    }
    assert computed == {("vocoder", "stft_window"), ("vocoder", "trim_fade")}
    assert torch.equal(model.vocoder.trim_fade, reference.trim_fade(24_000))


@pytest.mark.parametrize(("precision", "kernel"), LOADS)
def test_every_number_of_a_loaded_model_is_finite(demo: Callable[..., Model], precision: str, kernel: str) -> None:
    for module in demo(precision, kernel).modules().values():
        for name, tensor in module.state_dict().items():
            assert bool(torch.isfinite(tensor.float()).all()), name


def test_two_loads_are_equal_and_share_nothing(tiny: Model) -> None:
    again = engine.load(tiny.spec, tiny.files, "fp32", device.facts("cpu"))
    assert again.report.weights == tiny.report.weights
    for name, module in tiny.modules().items():
        theirs = again.modules()[name].state_dict()
        for place, tensor in module.state_dict().items():
            assert torch.equal(tensor, theirs[place])
            assert not tensor.numel() or tensor.data_ptr() != theirs[place].data_ptr()


# A checkpoint whose equal rows are stored once

SHARED = {"t3": ("speech_emb.weight", "speech_head.weight"), "s3gen": ("flow.input_embedding.weight",)}


@pytest.fixture(scope="module")
def both_forms(demo: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Files]]:
    """The demo voice with one row for all codes that a sentence does not need: plain, and with shared rows."""
    model = demo()
    voice = model.builtin_voice()
    used = {*spoken(model).tokens, *voice.t3_prompt.flatten().tolist(), *voice.prompt_tokens.flatten().tolist()}
    unused = [code for code in range(model.spec.s3gen.codes) if code not in used]
    folders = {form: tmp_path_factory.mktemp(form) for form in ("plain", "shared")}
    for folder in folders.values():
        for path in model.files.paths.values():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "config.json").write_text(model.spec.to_json())
    for role, names in SHARED.items():
        tensors = read_all(model.files.path(role))
        for name in names:
            tensors[name][unused] = tensors[name][unused].mean(0)
        tensorfile.save(folders["plain"] / model.files.path(role).name, tensors)
        tensorfile.save(folders["shared"] / model.files.path(role).name, tensors, shared=names)
    return {form: source.find(source=folder) for form, folder in folders.items()}


def spoken(model: Model) -> SpokenChunk:
    with torch.inference_mode():
        (chunk,) = Speaker(model, model.builtin_voice(), Sampling(), 0.5, StageNoise(7), [SENTENCE])
    return chunk


def test_shared_rows_take_less_of_the_disk(both_forms: dict[str, tuple[Any, Files]]) -> None:
    (_, plain), (_, shared) = both_forms["plain"], both_forms["shared"]
    for role, names in SHARED.items():
        saved = plain.path(role).stat().st_size - shared.path(role).stat().st_size
        tensors, stored = (read_header(files.path(role)) for files in (plain, shared))
        rows = {name: tensors[name][0] - stored[name][0] for name in names}
        assert min(rows.values()) > 6_000  # of 6,564
        index = sum(2 * tensors[name][0] for name in names)
        assert abs(saved - sum(2 * count * tensors[name][1] for name, count in rows.items()) + index) < 1_000


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes as they lie in the file."""
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_shared_rows_load_to_the_same_model_to_the_bit(
    both_forms: dict[str, tuple[Any, Files]], precision: str
) -> None:
    one, other = (engine.load(*both_forms[form], precision, device.facts("cpu")) for form in ("plain", "shared"))
    for component, module in one.modules().items():
        theirs = tensors_of(other.modules()[component])
        for name, tensor in tensors_of(module).items():
            mine, found = (it.to_dense() if it.is_mkldnn else it for it in (tensor, theirs[name]))
            assert torch.equal(mine, found), name
    assert one.report.weights == other.report.weights, "the hash is of the published tensors"
    assert one.report.bytes == other.report.bytes
    first, second = spoken(one), spoken(other)
    assert first.finish == "stop"
    assert first.tokens == second.tokens
    assert (first.samples == second.samples).all()


def test_the_package_is_filled_from_shared_rows(both_forms: dict[str, tuple[Any, Files]]) -> None:
    one, other = (Package(*both_forms[form]).tts for form in ("plain", "shared"))
    for component in ("t3", "s3gen", "ve"):
        theirs = getattr(other, component).state_dict()
        for name, tensor in getattr(one, component).state_dict().items():
            assert torch.equal(tensor, theirs[name]), name


def test_progress_counts_the_published_bytes(both_forms: dict[str, tuple[Any, Files]]) -> None:
    totals = []
    for spec, files in both_forms.values():
        told: list[Progress] = []
        engine.load(spec, files, "int8", device.facts("cpu"), observer=told.append)
        totals.append([step.total for step in told if step.stage == "weights" and step.done][-1])
    assert totals[0] == totals[1]


def test_quantized_rows_are_filled_from_shared_ones(tmp_path: Path) -> None:
    """Stretches of one fused matrix, from a file with shared rows and one without."""
    parts = {name: torch.randn(2, 3)[[0, 1, 1, 0]] for name in "abc"}
    tensorfile.save(tmp_path / "parts", parts, shared=["a", "c"])
    module = on_meta(lambda: nn.Sequential(nn.Linear(3, 12, bias=False)))
    convert(module, {"0": "int8"}, lambda name: get("plain"))
    fills = [Fill("0.weight", (name,), (4 * i, 4 * i + 4)) for i, name in enumerate("abc")]
    with TensorFile(tmp_path / "parts") as file:
        loader.load(module, file, fills, CPU)
    layer: Any = module[0]  # type: ignore[index]
    weight, scale = quantize(torch.cat([parts[name] for name in "abc"]))
    assert torch.equal(layer.plain()[0], weight)
    assert torch.equal(layer.plain()[1], scale)


def test_a_shared_tensor_of_another_shape_is_told_by_its_published_one(tmp_path: Path) -> None:
    tensorfile.save(tmp_path / "file", {**whole(), "a.weight": torch.zeros(5, 3)}, shared=["a.weight"])
    with TensorFile(tmp_path / "file") as file:
        assert "'a.weight' is [5, 3], not [4, 3]." in refusal(file)


def test_no_published_name_ends_as_a_companions(demo: Callable[..., Model]) -> None:
    for spec in (TINY, demo().spec):
        assert not [tensor for tensor in inventory(spec, reference.build(spec)) if tensor.name.endswith(ROWS)]


# Stopping


def live() -> int:
    """How many of our T3 are in memory."""
    gc.collect()
    return sum(1 for thing in gc.get_objects() if type(thing) is T3)


@pytest.mark.parametrize("after", [1, 40])
def test_a_cancel_between_tensors_stops_and_leaves_no_model(demo: Callable[..., Model], after: int) -> None:
    spec, files = demo().spec, demo().files
    cancel, told = CancelToken(), []

    def stop(step: Progress) -> None:
        if step.stage == "weights" and step.done:
            told.append(step)
            if len(told) == after:
                cancel.cancel()

    before, cancelled = live(), False
    try:
        engine.load(spec, files, "fp32", device.facts("cpu"), observer=stop, cancel=cancel)
    except Cancelled:
        cancelled = True
    assert cancelled
    assert len(told) == after, "no tensor was filled after the cancel"
    assert live() == before


def test_progress_of_a_load_ends_with_the_last_byte(demo: Callable[..., Model]) -> None:
    told: list[Progress] = []
    model = demo()
    engine.load(model.spec, model.files, "int8", device.facts("cpu"), observer=told.append)
    steps = [step for step in told if step.stage == "weights" and step.done]
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert steps[-1].fraction == 1.0


# Damaged checkpoints


def replaced(files: Files, role: str, path: Path) -> Files:
    return replace(files, paths={**files.paths, role: path})


def cut_off(path: Path, copy: Path) -> None:
    copy.write_bytes(path.read_bytes()[:-1])


def empty(path: Path, copy: Path) -> None:
    copy.touch()


def less_a_tensor(path: Path, copy: Path) -> None:
    tensors = load_file(path)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, copy)


def with_one_more(path: Path, copy: Path) -> None:
    save_file({**load_file(path), "surplus": torch.zeros(1)}, copy)


def transposed(path: Path, copy: Path) -> None:
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1])
    save_file({**tensors, name: tensors[name].T.contiguous()}, copy)


def missing(path: Path, copy: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("role", "damage"),
    [
        *(("t3", damage) for damage in (cut_off, empty, less_a_tensor, with_one_more, transposed, missing)),
        *((role, damage) for role in ("s3gen", "voice_encoder") for damage in (cut_off, less_a_tensor)),
    ],
)
def test_a_damaged_file_is_told_before_any_weight_is_read(
    tiny: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    damage: Callable[[Path, Path], None],
) -> None:
    copy = tmp_path / tiny.files.path(role).name
    damage(tiny.files.path(role), copy)

    def never(file: TensorFile, name: str) -> Tensor:
        raise AssertionError(f"'{name}' was read")

    monkeypatch.setattr(TensorFile, "read", never)
    with pytest.raises(CheckpointError) as caught:
        engine.load(tiny.spec, replaced(tiny.files, role, copy), "int8", device.facts("cpu"))
    assert str(copy) in str(caught.value)
    assert "load again" in str(caught.value).lower()


@pytest.mark.parametrize(("role", "content"), [("tokenizer", b"{}"), ("voice", b"PK garbage"), ("voice", b"")])
def test_a_damaged_tokenizer_or_voice_is_told_before_the_weights(
    tiny: Model, tmp_path: Path, role: str, content: bytes
) -> None:
    copy = tmp_path / tiny.files.path(role).name
    copy.write_bytes(content)
    told: list[Progress] = []
    with pytest.raises(SourceError) as caught:
        engine.load(tiny.spec, replaced(tiny.files, role, copy), "int8", device.facts("cpu"), observer=told.append)
    assert str(caught.value).startswith(f"{copy} is not ")
    assert str(caught.value).endswith("Delete it and load again.")
    assert "weights" not in [step.stage for step in told]


def test_another_models_files_are_refused(demo: Callable[..., Model], tiny: Model) -> None:
    with pytest.raises(TensorError, match=r"t3_cfg\.safetensors is not the checkpoint this model expects: 36 missing"):
        engine.load(demo().spec, tiny.files, "fp32", device.facts("cpu"))


# Memory

LOAD_TWICE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from chatterbox_nb import usage
from chatterbox_nb.checkpoint import source, synthetic
from chatterbox_nb.engine import model as engine
from chatterbox_nb.precision import device

folder = Path(sys.argv[1])
dims = replace(synthetic.TINY.t3, width=512, ffn=2048, layers=12, heads=8)
synthetic.write(replace(synthetic.TINY, name="middling", t3=dims), folder)
facts = device.facts("cpu")
for precision in ("int8", "fp32"):  # so that no import, no thread pool and no compiling is counted
    engine.load(*source.find("demo"), precision, facts)

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])

def measured(precision):
    usage.release()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's own high-water mark begins anew
    before = status("VmRSS")
    report = engine.load(*source.find(source=folder), precision, facts).report
    return {
        "peak": status("VmHWM") - before,
        "resident": report.bytes,
        "watermarker": report.watermarker_bytes,
        "shipped": report.shipped_bytes,
        "told": report.process_peak_bytes,
    }

print(json.dumps({precision: measured(precision) for precision in ("int8", "fp32")}))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Loads of a 240 MB checkpoint in a process of their own, by the kernel's high-water mark of resident memory."""
    folder = tmp_path_factory.mktemp("middling")
    done = subprocess.run(
        [sys.executable, "-c", LOAD_TWICE, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    for path in folder.iterdir():
        path.unlink()
    assert done.returncode == 0, done.stderr
    measured: dict[str, dict[str, int]] = json.loads(done.stdout)
    return measured


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_load_peaks_one_large_tensor_above_what_stays(peaks: dict[str, dict[str, int]], precision: str) -> None:
    """The largest tensor has 13 MB; perth's file with its decoder, and the allocator's slack, have some 20."""
    measured = peaks[precision]
    assert measured["shipped"] > 235e6
    assert measured["peak"] < measured["resident"] + measured["watermarker"] + 50e6


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
def test_at_int8_the_whole_is_never_in_memory_in_fp32(peaks: dict[str, dict[str, int]]) -> None:
    measured = peaks["int8"]
    assert measured["resident"] < 0.26 * measured["shipped"]
    assert measured["peak"] < 0.55 * measured["shipped"]


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_report_tells_the_peak_that_the_kernel_saw(peaks: dict[str, dict[str, int]], precision: str) -> None:
    measured = peaks[precision]
    assert measured["resident"] < measured["told"] <= measured["peak"] + 1e6
