"""fp16, bf16, and int8 that computes in half: what is cast, what is not, and what stops a take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import SENTENCE
from torch import Tensor, nn

import chatterbox_nb as tts
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import decode, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.estimator import Estimator, Velocity
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.errors import EngineError, TensorError
from chatterbox_nb.precision import device

HERE = device.facts("cpu")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def computing_in(dtype: str) -> Model:
    spec, files = source.find("demo")
    return engine.load(spec, files, "int8", HERE, compute=dtype)


def take(model: Model, seed: int = 7) -> tuple[tuple[int, ...], Tensor]:
    with torch.inference_mode():
        speaker = Speaker(model, model.builtin_voice(), Sampling(), 0.5, StageNoise(seed), [SENTENCE])
        (spoken,) = speaker
    return spoken.tokens, torch.from_numpy(spoken.samples)


@contextmanager
def dtypes_seen(*modules: nn.Module) -> Iterator[set[torch.dtype]]:
    """The dtypes of every float tensor that goes into a layer or comes out of one."""
    seen: set[torch.dtype] = set()

    def look(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        for value in (*inputs, output):
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                seen.add(value.dtype)

    handles = [layer.register_forward_hook(look) for module in modules for layer in module.modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_precision_speaks(demo: Callable[..., Model], precision: str) -> None:
    tokens, samples = take(demo(precision))
    fp32, _ = take(demo("fp32"))
    assert 0.7 < len(tokens) / len(fp32) < 1.4
    assert float(samples.abs().max()) > 0.05
    assert bool(torch.isfinite(samples).all())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_int8_speaks_computing_in_half(dtype: str) -> None:
    model = computing_in(dtype)
    assert model.report.bytes == model.plan.expected_bytes
    tokens, samples = take(model)
    assert len(tokens) > 30
    assert float(samples.abs().max()) > 0.05


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_t3_computes_in_its_precision(demo: Callable[..., Model], precision: str) -> None:
    model = demo(precision)
    voice = model.builtin_voice()
    with torch.inference_mode(), dtypes_seen(model.t3.backbone) as seen:
        prefix = decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5)
        decode.decode(model.t3, prefix, model.text_ids(SENTENCE), Sampling(), StageNoise(0), 5, 5)
    assert seen == {DTYPES[precision]}
    assert prefix.keys.dtype == DTYPES[precision]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_flow_computes_in_its_precision_and_the_vocoder_in_float32(
    demo: Callable[..., Model], precision: str
) -> None:
    model = demo(precision)
    tokens = torch.arange(10)[None]
    with torch.inference_mode():
        with dtypes_seen(model.flow.encoder, model.flow.decoder.estimator.groups) as seen:
            mel = flow.tokens_to_mel(model.flow, tokens, model.builtin_voice(), StageNoise(0), 2)
        assert seen == {DTYPES[precision]}
        assert mel.dtype == torch.float32
        with dtypes_seen(model.vocoder) as seen:
            wave = vocoder.mel_to_wave(model.vocoder, mel, StageNoise(0))
    assert seen == {torch.float32}
    assert wave.dtype == torch.float32
    assert {tensor.dtype for tensor in model.vocoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_conditioning_computes_in_float32_from_the_stored_weights(
    demo: Callable[..., Model], precision: str
) -> None:
    """So it is as near to fp32's as its weights are: bf16's attention would be further off."""
    model, fp32 = demo(precision), demo("fp32")
    voice = model.builtin_voice()
    before = {name: tensor.clone() for name, tensor in model.t3.conditioning_encoder.state_dict().items()}
    with torch.inference_mode():
        found = model.t3.conditioning(voice.speaker, voice.t3_prompt, 0.5)
        true = fp32.t3.conditioning(voice.speaker, voice.t3_prompt, 0.5)
    assert found.dtype == DTYPES[precision]
    assert float((found.float() - true).norm() / true.norm()) < {"fp16": 0.001, "bf16": 0.01}[precision]
    for name, tensor in model.t3.conditioning_encoder.state_dict().items():
        assert tensor.dtype == DTYPES[precision]
        assert torch.equal(tensor, before[name])


def test_times_of_the_flow_are_told_apart_in_bf16(demo: Callable[..., Model]) -> None:
    """bf16 has 8 bits: at 1000 it counts in fours. What times become is float32's, but for the weights' rounding."""
    times = torch.tensor([0.9010, 0.9030, 1.0])
    given = torch.zeros(2, 3, 80), torch.zeros(2, 80), torch.zeros(2, 3, 80)

    def heard(precision: str) -> Tensor:
        net = demo(precision).flow.decoder.estimator
        mu, speaker, condition = (part.to(net.last.bias.dtype) for part in given)
        return Velocity(net, mu, speaker, condition, times).times.float()

    with torch.inference_mode():
        exact, rounded = heard("fp32"), heard("bf16")
    apart = exact[1] - exact[0]
    assert float((rounded - exact).norm() / exact.norm()) < 0.01
    assert float(((rounded[1] - rounded[0]) - apart).norm() / apart.norm()) < 0.5


def test_steps_of_the_flow_add_up_in_float32(demo: Callable[..., Model]) -> None:
    """Given the networks' velocities, the mel is their sum to float32's rounding."""
    model = demo("bf16")
    estimator: Estimator = model.flow.decoder.estimator
    velocities: list[Tensor] = []
    handle = estimator.register_forward_hook(lambda module, inputs, output: velocities.append(output.float()))
    voice = model.builtin_voice()
    with torch.inference_mode():
        mel = flow.tokens_to_mel(model.flow, torch.arange(10)[None], voice, StageNoise(0), 4)
    handle.remove()
    prompt = voice.prompt_mel.shape[1]
    x = StageNoise(0).flow(80, velocities[0].shape[1]).double()
    times = flow.time_steps(4, meanflow=False)
    for step, both in enumerate(velocities):
        guided, unguided = both.double().transpose(1, 2)[:, None]
        x = x + float(times[step + 1] - times[step]) * (1.7 * guided - 0.7 * unguided)
    assert torch.allclose(mel.double(), x[:, :, prompt:], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_speech_token_ids_stay_integers(demo: Callable[..., Model], precision: str) -> None:
    """The package casts ids to the flow's dtype, where 6560 becomes 6560 or 6592: other speech, and no error."""
    model = demo(precision)
    given: list[Tensor] = []
    handle = model.flow.input_embedding.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    tokens = torch.tensor([[6557, 6558, 6559, 6560, 2049, 257]])
    with torch.inference_mode():
        flow.tokens_to_mel(model.flow, tokens, model.builtin_voice(), StageNoise(0), 1)
    handle.remove()
    assert not given[0].is_floating_point()
    assert torch.equal(given[0][:, -6:], tokens)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_voice_is_the_same_after_a_take(demo: Callable[..., Model], precision: str) -> None:
    model = demo(precision)
    voice = model.builtin_voice()
    before = {name: tensor.clone() for name, tensor in voice.tensors().items()}
    take(model)
    for name, tensor in voice.tensors().items():
        assert tensor.dtype == before[name].dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, before[name])


def test_one_voice_serves_every_precision(demo: Callable[..., Model]) -> None:
    """Prepared once, cast a take."""
    voice = demo("fp32").builtin_voice()
    for precision in ("fp16", "bf16", "int8", "fp32"):
        with torch.inference_mode():
            (spoken,) = Speaker(demo(precision), voice, Sampling(), 0.9, StageNoise(1), [SENTENCE])
        assert len(spoken.tokens) > 30


@pytest.mark.parametrize(
    ("module", "parameter", "says"),
    [
        ("t3", "backbone.norm.weight", r"computed in float16: T3's logits at token 1\. Try --precision fp32"),
        ("flow", "encoder_proj.bias", r"computed in float16: the mel spectrogram\. Try --precision fp32"),
        ("vocoder", "conv_post.bias", r"computed in float32: the waveform\."),
    ],
)
def test_numbers_that_are_none_stop_a_take_with_stage_and_cure(module: str, parameter: str, says: str) -> None:
    tts.load("demo", precision="fp16")
    broken = tts.manager.get().loaded().modules()[module].get_parameter(parameter)  # type: ignore[attr-defined]
    before = broken.clone()
    try:
        broken.data.fill_(float("nan"))
        with pytest.raises(EngineError, match=says):
            tts.speak(SENTENCE, seed=1)
    finally:
        broken.data.copy_(before)
    assert len(tts.speak(SENTENCE, seed=1)) > 0


def test_a_weight_that_float16_cannot_hold_stops_the_load(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "large"))
    spec, files = source.find(source=folder)
    tensors = load_file(files.path("t3"))
    tensors["tfmr.norm.weight"][3] = 1e6
    save_file(tensors, files.path("t3"))
    with pytest.raises(TensorError, match=r"tfmr.norm.weight.*65504.*bf16"):
        engine.load(spec, files, "fp16", HERE)
    assert engine.load(spec, files, "bf16", HERE).report.bytes > 0
