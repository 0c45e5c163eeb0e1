"""The list of a model's tensors agrees with the package and with the published files, to the name and to the byte."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from chatterbox_nb.checkpoint import catalog, reference
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.checkpoint.tensorfile import TensorFile, make_header
from chatterbox_nb.precision.plan import TensorInfo

pytestmark = pytest.mark.xdist_group("inventory")

COMPONENTS = {"t3", "tokenizer", "speaker_encoder", "flow", "vocoder", "voice_encoder"}
KINDS = {
    "linear",
    "conditioning",
    "head",
    "embedding",
    "position",
    "conv",
    "gain",
    "lstm",
    "norm",
    "bias",
    "other",
    "counter",
    "table",
}


@pytest.fixture(scope="module")
def english() -> tuple[TensorInfo, ...]:
    return inventory(ENGLISH, reference.build(ENGLISH))


@pytest.fixture(scope="module")
def package() -> dict[str, dict[str, torch.Tensor]]:
    """File → state dict of the package's own classes, as their own constructors make them, without any size of ours."""
    reference.import_package()
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.voice_encoder import VoiceEncoder

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers calls its own layer deprecated
        modules: dict[str, nn.Module] = {
            "t3_cfg.safetensors": T3(),
            "s3gen.safetensors": S3Gen(),
            "ve.safetensors": VoiceEncoder(),
        }
    return {file: module.state_dict() for file, module in modules.items()}


def of_file(tensors: tuple[TensorInfo, ...], name: str) -> dict[str, TensorInfo]:
    return {tensor.name: tensor for tensor in tensors if tensor.file == name}


# The published architecture


@pytest.mark.parametrize("file", ["t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors"])
def test_names_and_shapes_are_those_of_the_packages_own_constructors(
    english: tuple[TensorInfo, ...], package: dict[str, Any], file: str
) -> None:
    """The proof that what we assemble from a spec's sizes is the architecture that was published."""
    ours = {name: tensor.shape for name, tensor in of_file(english, file).items()}
    assert ours == {name: tuple(tensor.shape) for name, tensor in package[file].items()}


@pytest.mark.parametrize("file", ["t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors"])
def test_tensors_are_listed_in_the_packages_order_each_once(
    english: tuple[TensorInfo, ...], package: dict[str, Any], file: str
) -> None:
    assert [tensor.name for tensor in english if tensor.file == file] == list(package[file])


@pytest.mark.parametrize("file", ["t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors"])
def test_only_counters_are_whole_numbers(english: tuple[TensorInfo, ...], package: dict[str, Any], file: str) -> None:
    counters = {name for name, tensor in of_file(english, file).items() if tensor.kind == "counter"}
    assert counters == {name for name, tensor in package[file].items() if not tensor.dtype.is_floating_point}
    assert {package[file][name].dtype for name in counters} <= {torch.int64}


@pytest.mark.parametrize(
    ("role", "size"), [("t3", 2_129_653_744), ("s3gen", 1_056_484_620), ("voice_encoder", 5_695_784)]
)
def test_the_files_have_their_published_sizes_to_the_byte(
    english: tuple[TensorInfo, ...], role: str, size: int
) -> None:
    """Header and data; the published s3gen lacks the window, which is computed."""
    tensors = [
        tensor for tensor in of_file(english, ENGLISH.file(role).name).values() if tensor.name != "tokenizer.window"
    ]
    header, _ = make_header(
        [(tensor.name, "I64" if tensor.kind == "counter" else "F32", tensor.shape) for tensor in tensors]
    )
    assert len(header) + sum(tensor.shipped_bytes for tensor in tensors) == size == ENGLISH.file(role).bytes


def test_english_has_797_9_million_parameters(english: tuple[TensorInfo, ...]) -> None:
    parameters = sum(tensor.numel for tensor in english if tensor.kind not in ("counter", "table"))
    assert round(parameters / 1e6, 1) == 797.9


@pytest.mark.parametrize(
    ("component", "millions"),
    [
        ("t3", 532.4),
        ("tokenizer", 123.7),
        ("speaker_encoder", 6.9),
        ("flow", 112.5),
        ("vocoder", 20.8),
        ("voice_encoder", 1.4),
    ],
)
def test_the_parameters_of_each_component(english: tuple[TensorInfo, ...], component: str, millions: float) -> None:
    count = sum(t.numel for t in english if t.component == component and t.kind not in ("counter", "table"))
    assert round(count / 1e6, 1) == millions


# Components, kinds, rows


def test_every_tensor_has_a_component_and_a_kind_that_are_known(english: tuple[TensorInfo, ...]) -> None:
    assert {tensor.component for tensor in english} == COMPONENTS
    assert {tensor.kind for tensor in english} == KINDS


@pytest.mark.parametrize(
    ("name", "component", "kind", "rows"),
    [
        ("tfmr.layers.0.self_attn.q_proj.weight", "t3", "linear", 1024),
        ("tfmr.layers.29.mlp.down_proj.weight", "t3", "linear", 1024),
        ("tfmr.layers.0.input_layernorm.weight", "t3", "norm", 1024),
        ("tfmr.norm.weight", "t3", "norm", 1024),
        ("text_emb.weight", "t3", "embedding", 704),
        ("speech_emb.weight", "t3", "embedding", 8194),
        ("text_pos_emb.emb.weight", "t3", "position", 2050),
        ("speech_pos_emb.emb.weight", "t3", "position", 4100),
        ("speech_head.weight", "t3", "head", 8194),
        ("cond_enc.spkr_enc.weight", "t3", "conditioning", 1024),
        ("cond_enc.spkr_enc.bias", "t3", "bias", 1024),
        ("cond_enc.perceiver.pre_attention_query", "t3", "other", 1),
        ("cond_enc.perceiver.attn.norm.weight", "t3", "norm", 1024),
        ("flow.input_embedding.weight", "flow", "embedding", 6561),
        ("flow.encoder.encoders.0.self_attn.linear_q.weight", "flow", "linear", 512),
        ("flow.encoder.encoders.0.self_attn.pos_bias_u", "flow", "other", 8),
        ("flow.encoder.encoders.0.norm_mha.weight", "flow", "norm", 512),
        ("flow.decoder.estimator.mid_blocks.0.1.0.attn1.to_q.weight", "flow", "linear", 512),
        ("flow.decoder.estimator.final_proj.weight", "flow", "conv", 80),
        ("mel2wav.conv_pre.parametrizations.weight.original0", "vocoder", "gain", 512),
        ("mel2wav.conv_pre.parametrizations.weight.original1", "vocoder", "conv", 512),
        ("mel2wav.ups.0.parametrizations.weight.original1", "vocoder", "conv", 256),  # transposed: outputs come second
        ("mel2wav.f0_predictor.classifier.weight", "vocoder", "linear", 1),
        ("mel2wav.m_source.l_linear.weight", "vocoder", "linear", 1),
        ("mel2wav.resblocks.0.activations1.0.alpha", "vocoder", "other", 256),
        ("tokenizer.encoder.conv1.weight", "tokenizer", "conv", 1280),
        ("tokenizer.encoder.blocks.0.attn.query.weight", "tokenizer", "linear", 1280),
        ("tokenizer.encoder.blocks.0.attn_ln.weight", "tokenizer", "norm", 1280),
        ("tokenizer._mel_filters", "tokenizer", "other", 128),
        ("speaker_encoder.head.bn1.num_batches_tracked", "speaker_encoder", "counter", 1),
        ("speaker_encoder.head.bn1.running_mean", "speaker_encoder", "norm", 32),
        ("speaker_encoder.head.conv1.weight", "speaker_encoder", "conv", 32),
        ("lstm.weight_ih_l0", "voice_encoder", "lstm", 1024),
        ("lstm.bias_hh_l2", "voice_encoder", "bias", 1024),
        ("proj.weight", "voice_encoder", "linear", 256),
    ],
)
def test_the_kind_of_a_tensor_is_that_of_its_layer(
    english: tuple[TensorInfo, ...], name: str, component: str, kind: str, rows: int
) -> None:
    (tensor,) = [tensor for tensor in english if tensor.name == name]
    assert (tensor.component, tensor.kind, tensor.rows) == (component, kind, rows)


def test_every_large_tensor_is_of_a_kind_that_can_be_stored_small(english: tuple[TensorInfo, ...]) -> None:
    """What a plan does not know how to store stays in float32: that must never be many bytes."""
    rest = [tensor for tensor in english if tensor.kind in ("norm", "bias", "other", "table", "counter")]
    resident = [tensor for tensor in rest if tensor.component in ("t3", "flow", "vocoder")]
    assert max(tensor.numel for tensor in resident) <= 32 * 1024
    total = sum(tensor.numel for tensor in english if tensor.component in ("t3", "flow", "vocoder"))
    assert sum(tensor.numel for tensor in resident) < 0.001 * total


def test_every_gain_has_its_direction(english: tuple[TensorInfo, ...]) -> None:
    names = {tensor.name: tensor for tensor in english}
    gains = [tensor for tensor in english if tensor.kind == "gain"]
    assert len(gains) == 82
    for gain in gains:
        direction = names[gain.name.removesuffix("original0") + "original1"]
        assert direction.kind == "conv"
        assert gain.shape == (direction.shape[0], *[1] * (len(direction.shape) - 1))


def test_what_inference_never_reads_is_marked_unused(english: tuple[TensorInfo, ...]) -> None:
    unused = {tensor.name for tensor in english if not tensor.used and tensor.kind != "counter"}
    assert unused == {"text_head.weight", "tfmr.embed_tokens.weight", "similarity_weight", "similarity_bias"}
    assert all(not tensor.used for tensor in english if tensor.kind == "counter")


def test_tables_are_in_no_file_and_ship_no_bytes(english: tuple[TensorInfo, ...]) -> None:
    tables = [tensor for tensor in english if tensor.kind == "table"]
    assert [(tensor.name, tensor.shape) for tensor in tables] == [("stft_window", (16,)), ("trim_fade", (960,))]
    assert all(tensor.file == "" and tensor.shipped_bytes == 0 for tensor in tables)
    assert all(tensor.file for tensor in english if tensor.kind != "table")


def test_names_are_unique_within_a_file(english: tuple[TensorInfo, ...]) -> None:
    places = [(tensor.file, tensor.name) for tensor in english]
    assert len(places) == len(set(places))


# Other models


@pytest.mark.parametrize("spec", [catalog.spec("demo"), TINY], ids=lambda spec: spec.name)
def test_small_models_differ_from_english_in_their_sizes_alone(
    english: tuple[TensorInfo, ...], spec: ModelSpec
) -> None:
    """A kind or a component that came out otherwise there would hide from the tests that run on them."""
    known = {(tensor.file, tensor.name): tensor for tensor in english}
    for tensor in inventory(spec, reference.build(spec)):
        full = known[tensor.file, tensor.name]
        assert (tensor.component, tensor.kind, tensor.used) == (full.component, full.kind, full.used)
        assert len(tensor.shape) == len(full.shape)


def test_the_demos_files_hold_what_its_inventory_lists() -> None:
    spec = catalog.spec("demo")
    tensors = inventory(spec, reference.build(spec))
    for role in ("t3", "s3gen", "voice_encoder"):
        name = spec.file(role).name
        wanted = {tensor.name: tensor.shape for tensor in tensors if tensor.file == name}
        with TensorFile(catalog.DEMO_FOLDER / name) as file:
            held = {name: entry.shape for name, entry in file.entries.items()}
        assert held == {name: wanted[name] for name in held}
        assert wanted.keys() - held.keys() <= set(spec.optional)
