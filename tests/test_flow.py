"""Speech tokens to mel: our stand-ins for the package's tables, the steps, and what the driver leaves alone.

That the mel is the package's, given its noise, is in `test_oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chatterbox_nb.audio import Clip, read_clip
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.engine import conditioning, flow
from chatterbox_nb.engine.flow import RelativePositions, time_steps
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.errors import Cancelled
from chatterbox_nb.events import CancelToken

TOKENS = torch.tensor([[17, 4000, 6560, 0, 250, 1]])


def mel_of(model: Model, tokens: Tensor = TOKENS, noise: StageNoise | None = None, steps: int = 2) -> Tensor:
    with torch.inference_mode():
        return flow.tokens_to_mel(model.flow, tokens, model.builtin_voice(), noise or StageNoise(0), steps)


# Relative positions


@pytest.mark.parametrize("width", [48, 96, 512])
@pytest.mark.parametrize("length", [1, 2, 3, 50, 777, 5001])
def test_relative_positions_are_the_packages_bit_for_bit(length: int, width: int) -> None:
    """Beyond 5,000 positions too, where the package extends its table."""
    import_package()
    from chatterbox.models.s3gen.transformer.embedding import EspnetRelPositionalEncoding

    x = torch.randn(2, length, width, generator=torch.Generator().manual_seed(length))
    theirs_x, theirs = EspnetRelPositionalEncoding(width, 0.1).eval()(x)
    ours_x, ours = RelativePositions(width)(x)
    assert ours.shape == (1, 2 * length - 1, width)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours_x, theirs_x)


def test_relative_positions_hold_no_table(demo: Callable[..., Model]) -> None:
    encoder = demo().flow.encoder
    for embed in (encoder.embed, encoder.up_embed):
        assert isinstance(embed.pos_enc, RelativePositions)
        assert not list(embed.pos_enc.buffers())


# Steps


@pytest.mark.parametrize("steps", [1, 6, 10])
def test_times_go_from_0_to_1_on_a_cosine_slow_at_first(steps: int) -> None:
    times = time_steps(steps, meanflow=False)
    assert times.shape == (steps + 1,)
    assert float(times[0]) == 0.0
    assert float(times[-1]) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(times, 1 - torch.cos(torch.linspace(0, 1, steps + 1) * 0.5 * torch.pi))
    widths = times.diff()
    assert bool((widths > 0).all())
    assert bool((widths.diff() > 0).all())


def test_times_of_a_mean_flow_are_even() -> None:
    assert torch.equal(time_steps(2, meanflow=True), torch.tensor([0.0, 0.5, 1.0]))


def test_it_tells_of_every_step(demo: Callable[..., Model]) -> None:
    model = demo()
    told: list[int] = []
    with torch.inference_mode():
        flow.tokens_to_mel(model.flow, TOKENS, model.builtin_voice(), StageNoise(0), 4, told.append)
    assert told == [1, 2, 3, 4]


def test_a_cancel_is_honoured_before_the_next_step(demo: Callable[..., Model]) -> None:
    model, cancel = demo(), CancelToken()
    told: list[int] = []

    def on_step(step: int) -> None:
        told.append(step)
        cancel.cancel()

    with torch.inference_mode(), pytest.raises(Cancelled):
        flow.tokens_to_mel(model.flow, TOKENS, model.builtin_voice(), StageNoise(0), 4, on_step, cancel)
    assert told == [1]


def test_more_steps_are_another_and_a_finer_path(demo: Callable[..., Model]) -> None:
    finest = mel_of(demo(), steps=40)
    errors = [float((mel_of(demo(), steps=steps) - finest).abs().mean()) for steps in (1, 4, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


# The mel


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_token_is_two_frames_of_80_mels(demo: Callable[..., Model], precision: str, count: int) -> None:
    mel = mel_of(demo(precision), TOKENS[:, :count])
    assert mel.shape == (1, 80, 2 * count)
    assert mel.dtype == torch.float32
    assert bool(torch.isfinite(mel).all())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_same_noise_gives_the_same_bits(demo: Callable[..., Model], precision: str) -> None:
    model = demo(precision)
    assert torch.equal(mel_of(model), mel_of(model))
    assert not torch.equal(mel_of(model), mel_of(model, noise=StageNoise(1)))


def test_tokens_voice_and_its_speaker_each_matter(demo: Callable[..., Model]) -> None:
    model = demo()
    mel = mel_of(model)
    assert not torch.equal(mel_of(model, TOKENS.flip(1)), mel)
    for name in ("prompt_tokens", "prompt_mel", "speaker_vector"):
        voice = model.builtin_voice().copy()
        tensor = voice.tensors()[name]
        tensor.copy_(tensor.flip(1))
        with torch.inference_mode():
            assert not torch.equal(flow.tokens_to_mel(model.flow, TOKENS, voice, StageNoise(0), 2), mel), name


def test_a_louder_speaker_vector_is_the_same_speaker(demo: Callable[..., Model]) -> None:
    model = demo()
    voice = model.builtin_voice().copy()
    voice.speaker_vector.mul_(4.0)
    with torch.inference_mode():
        assert torch.equal(flow.tokens_to_mel(model.flow, TOKENS, voice, StageNoise(0), 2), mel_of(model))


def test_the_voice_and_the_tokens_are_left_as_they_were(demo: Callable[..., Model]) -> None:
    model = demo()
    voice = model.builtin_voice()
    kept, tokens = voice.copy(), TOKENS.clone()
    mel_of(model)
    assert torch.equal(tokens, TOKENS)
    for name, tensor in voice.tensors().items():
        assert torch.equal(tensor, kept.tensors()[name])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("token", [6561, 7000, -1])
def test_a_token_that_stands_for_no_sound_is_an_error(demo: Callable[..., Model], token: int, precision: str) -> None:
    with pytest.raises(IndexError):
        mel_of(demo(precision), torch.tensor([[token]]))


def test_nothing_is_printed(demo: Callable[..., Model], capfd: pytest.CaptureFixture[str]) -> None:
    mel_of(demo())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("samples", "frames"), [(24_480, 51), (24_960, 52)])
def test_a_clip_of_an_odd_number_of_frames_is_spoken_on_as_in_the_package(
    demo: Callable[..., Model], samples: int, frames: int
) -> None:
    """Its mel is one frame longer than its tokens; the package cuts that frame off what follows."""
    model = demo()
    clip = read_clip(Path(DEMO_FOLDER / "builtin_voice.wav"))
    with torch.inference_mode():
        voice = conditioning.prepare(
            Clip(clip.samples[:samples], clip.sample_rate), model.read_encoders(), model.spec, "short"
        )
        assert voice.prompt_mel.shape[1] == frames
        assert voice.prompt_tokens.shape[1] == frames // 2
        mel = flow.tokens_to_mel(model.flow, TOKENS, voice, StageNoise(0), 2)
    assert mel.shape[2] == 2 * TOKENS.shape[1] - frames % 2
