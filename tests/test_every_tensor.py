"""Every tensor of a checkpoint matters: change one, by its published name, and its stage says something else.

Names that are dropped on the way, mapped to the wrong place or overwritten by another would pass most tests of sound;
here they cannot. What the spec lists as unused is poisoned instead, and must make no difference at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chatterbox_nb.audio import Clip, read_clip, resample
from chatterbox_nb.checkpoint import reference, source
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.inventory import S3GEN_COMPONENTS, inventory
from chatterbox_nb.checkpoint.loader import Fill, plain_fills
from chatterbox_nb.engine import conditioning, decode, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import Encoders
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets import t3 as t3_net
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.precision import device

pytestmark = [pytest.mark.xdist_group("every tensor"), pytest.mark.more]  # the oracle would see most of it
COMPONENTS = ["t3", "flow", "vocoder", "tokenizer", "speaker_encoder", "voice_encoder"]
# A key's bias adds the same to every score of a query, which the softmax takes out again: there is nothing to hear.
NO_EFFECT = ("self_attn.linear_k.bias", "perceiver.attn.to_k.bias")
# The least that counts as a change, as a part of the output: rounding makes up to 3e-7, the smallest true change 1e-4.
LEAST = 1e-5


@dataclass(frozen=True)
class Stage:
    """A component as it is loaded: its module, how it is filled, and what it makes of a fixed input."""

    module: nn.Module
    fills: list[Fill]
    run: Callable[[], Tensor]


@pytest.fixture(scope="module")
def stored(tiny: Model) -> dict[str, Tensor]:
    """Every tensor of the three files, by published name."""
    found: dict[str, Tensor] = {}
    for role in ("t3", "s3gen", "voice_encoder"):
        tensors = load_file(tiny.files.path(role))
        assert not found.keys() & tensors.keys()
        found |= tensors
    return found


@pytest.fixture(scope="module")
def component_of(tiny: Model) -> dict[str, str]:
    """Published name → component, by the file it stands in and the first part of its name."""
    found = dict.fromkeys(load_file(tiny.files.path("t3")), "t3")
    found |= {name: S3GEN_COMPONENTS[name.split(".")[0]] for name in load_file(tiny.files.path("s3gen"))}
    return found | dict.fromkeys(load_file(tiny.files.path("voice_encoder")), "voice_encoder")


@pytest.fixture(scope="module")
def mine(tiny_folder: Path) -> Model:
    """A model of this file's own: its weights are changed and put back."""
    spec, files = source.find(source=tiny_folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="module")
def stages(mine: Model) -> dict[str, Stage]:
    encoders, clip = mine.read_encoders(), read_clip(DEMO_FOLDER / "builtin_voice.wav")
    heard = torch.from_numpy(resample(clip.samples, clip.sample_rate, 16_000)[4000:16_000])
    mel = torch.randn(1, 80, 8, generator=torch.Generator().manual_seed(0)) * 1.5 - 3.0
    tokens = torch.tensor([[17, 4000, 6560]])
    for name, layer in encoders.speaker_encoder.named_modules():
        if name.endswith("cam_layer.linear1"):
            layer.bias.data += 2.0  # so small, some have all their ReLUs asleep, and nothing behind one can be heard

    def t3() -> Tensor:
        """Logits after the text and after one token more, with guidance."""
        voice, text, net = mine.builtin_voice(), mine.text_ids("hello there"), mine.t3
        prefix = decode.prefill(net, voice.speaker, voice.t3_prompt, 0.5)
        start = prefix.length + len(text) + 2
        cache = prefix.cache(net.dims, 2, start + 1)
        first = net.logits(net.text(text, guided=True), cache, prefix.length)
        token = net.speech(torch.tensor([100]), torch.tensor([1])).expand(2, 1, -1)
        return torch.cat([first, net.logits(token, cache, start)])

    def tokenizer() -> Tensor:
        """What is rounded to tokens, before it is rounded."""
        found: list[Tensor] = []
        handle = encoders.tokenizer.quantizer._codebook.project_down.register_forward_hook(
            lambda module, inputs, output: found.append(output.clone())
        )
        encoders.tokenizer(heard[None])
        handle.remove()
        return found[0]

    def voice_encoder() -> Tensor:
        """Of a clip longer than the 1.6 s it reads at a time: a shorter one is padded, and such an LSTM forgets."""
        return torch.from_numpy(encoders.voice_encoder.embeds_from_wavs([heard.repeat(4).numpy()], sample_rate=16_000))

    runs: dict[str, Callable[[], Tensor]] = {
        "t3": t3,
        "flow": lambda: flow.tokens_to_mel(mine.flow, tokens, mine.builtin_voice(), StageNoise(0), 2),
        "vocoder": lambda: vocoder.mel_to_wave(mine.vocoder, mel, StageNoise(0))[960:],
        "tokenizer": tokenizer,
        "speaker_encoder": lambda: encoders.speaker_encoder.inference(heard[None]),
        "voice_encoder": voice_encoder,
    }
    with torch.inference_mode():
        f0 = mine.vocoder.f0_predictor(mel)
    assert 0 < int((f0 > 10).sum()) < f0.numel(), "there must be voiced and unvoiced frames"
    return {name: Stage(*parts, runs[name]) for name, parts in _filled(mine, encoders).items()}


def _filled(model: Model, encoders: Encoders) -> dict[str, tuple[nn.Module, list[Fill]]]:
    """Each component's module and the map that fills it, as `engine.model` has them."""
    net: Any = model.t3
    return {
        "t3": (net, t3_net.fills(model.spec.t3, net.conditioning_encoder)),
        "flow": (model.flow, flow.fills(model.flow)),
        "vocoder": (model.vocoder, plain_fills(model.vocoder, "mel2wav.")),
        "tokenizer": (encoders.tokenizer, plain_fills(encoders.tokenizer, "tokenizer.")),
        "speaker_encoder": (encoders.speaker_encoder, plain_fills(encoders.speaker_encoder, "speaker_encoder.")),
        "voice_encoder": (encoders.voice_encoder, plain_fills(encoders.voice_encoder, "")),
    }


def value_of(fill: Fill, tensors: Mapping[str, Tensor]) -> Tensor:
    """What a parameter is made of: a tensor, or a weight norm's gain and direction."""
    if len(fill.sources) == 1:
        return tensors[fill.sources[0]]
    gain, direction = (tensors[name] for name in fill.sources)
    return direction * (gain / direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1)))


def parameter_of(module: nn.Module, fill: Fill) -> Tensor:
    parent, _, last = fill.target.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(parent), last).data
    return tensor[fill.index] if tensor.ndim else tensor


@contextmanager
def with_changed(stage: Stage, name: str, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """The component as it would be if the file held other numbers under this name."""
    generator = torch.Generator().manual_seed(len(name))
    before = tensors[name].float()
    spread = max(0.1, float(before.std())) if before.numel() > 1 else 0.5
    after = before + 10 * spread * torch.rand(before.shape, generator=generator)  # variances stay positive
    filled = [(parameter_of(stage.module, fill), fill) for fill in stage.fills if name in fill.sources]
    kept = [parameter.clone() for parameter, _ in filled]
    for parameter, fill in filled:
        parameter.copy_(value_of(fill, {**{source: tensors[source] for source in fill.sources}, name: after}))
    try:
        yield
    finally:
        for (parameter, _), values in zip(filled, kept, strict=True):
            parameter.copy_(values)


def difference(one: Tensor, other: Tensor) -> float:
    """How far apart, as a part of the first."""
    if not bool(torch.isfinite(other).all()):
        return math.inf
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_tensor_that_is_used_changes_what_its_stage_makes(
    component: str, stages: dict[str, Stage], stored: dict[str, Tensor], component_of: dict[str, str], tiny: Model
) -> None:
    stage = stages[component]
    names = [name for name, owner in component_of.items() if owner == component]
    unused = {name for name in names if name in tiny.spec.unused or not stored[name].is_floating_point()}
    with torch.inference_mode():
        before = stage.run()
        assert torch.equal(stage.run(), before), "the stage must be deterministic for this to show anything"
        silent = set()
        for name in names:
            with with_changed(stage, name, stored):
                change = difference(before, stage.run())
            if change < (LEAST if not name.endswith(NO_EFFECT) else 0):
                silent.add(name)
        assert torch.equal(stage.run(), before), "every change must have been put back"
    filled = {source for fill in stage.fills for source in fill.sources}
    assert silent == unused
    assert filled & unused == set()
    assert filled - set(names) <= set(tiny.spec.optional)


def test_every_published_name_was_changed_in_one_of_the_stages(
    stored: dict[str, Tensor], component_of: dict[str, str], tiny: Model
) -> None:
    """The names above are those of the files, and those of the package's own classes."""
    listed = {tensor.name for tensor in inventory(tiny.spec, reference.build(tiny.spec)) if tensor.file}
    assert component_of.keys() == stored.keys()
    assert stored.keys() | set(tiny.spec.optional) == listed
    assert set(component_of.values()) == set(COMPONENTS)


@pytest.mark.parametrize("name", NO_EFFECT)
def test_what_has_no_effect_is_a_keys_bias_and_does_cancel(
    name: str, stages: dict[str, Stage], stored: dict[str, Tensor], component_of: dict[str, str]
) -> None:
    """The exceptions above are exceptions: changing these moves the output by rounding alone."""
    full_names = [stored_name for stored_name in stored if stored_name.endswith(name)]
    assert full_names
    with torch.inference_mode():
        for full_name in full_names:
            stage = stages[component_of[full_name]]
            before = stage.run()
            with with_changed(stage, full_name, stored):
                assert difference(before, stage.run()) < LEAST


@pytest.fixture(scope="module")
def poisoned(tiny_folder: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same checkpoint with NaN in everything that inference never reads, and -1 in the counters."""
    folder = tmp_path_factory.mktemp("poisoned")
    for file in tiny_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    changed = 0
    for role in ("t3", "s3gen", "voice_encoder"):
        tensors = load_file(folder / tiny.spec.file(role).name)
        for name, tensor in tensors.items():
            if name in tiny.spec.unused or not tensor.is_floating_point():
                tensor.fill_(math.nan if tensor.is_floating_point() else -1)
                changed += 1
        save_file(tensors, folder / tiny.spec.file(role).name)
    assert changed == 126
    spec, files = source.find(source=folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


def test_what_is_unused_is_never_read(poisoned: Model, tiny: Model) -> None:
    """The hash is of every byte that a load read."""
    assert poisoned.report.weights == tiny.report.weights
    for component, module in poisoned.modules().items():
        state = tiny.modules()[component].state_dict()
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_what_is_unused_makes_no_other_voice(poisoned: Model, tiny: Model) -> None:
    clip: Clip = read_clip(DEMO_FOLDER / "builtin_voice.wav")
    with torch.inference_mode():
        one = conditioning.prepare(clip, tiny.read_encoders(), tiny.spec, "clip").tensors()
        other = conditioning.prepare(clip, poisoned.read_encoders(), poisoned.spec, "clip").tensors()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_the_hash_changes_with_a_single_bit_that_is_read(tiny_folder: Path, tiny: Model, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / tiny.spec.file("s3gen").name
    tensors = load_file(path)
    tensors["mel2wav.conv_post.bias"].view(torch.int32)[0] ^= 1
    save_file(tensors, path)
    spec, files = source.find(source=tmp_path)
    assert engine.load(spec, files, "fp32", device.facts("cpu")).report.weights != tiny.report.weights
