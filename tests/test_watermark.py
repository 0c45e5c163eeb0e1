"""Every output carries Resemble AI's mark: it can be read back, and putting it in disturbs nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SENTENCE

from chatterbox_nb.audio import Samples, encode, read_clip, resample
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.engine.watermark import Watermarker, detect

RATE = 24_000
MARKED, UNMARKED = 0.8, 0.3


@pytest.fixture(scope="module")
def watermarker() -> Watermarker:
    return Watermarker()


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Four seconds of espeak, from before any model: both speakers."""
    clips = [read_clip(DEMO_FOLDER / name).samples for name in ("builtin_voice.wav", "second_voice.wav")]
    return np.concatenate(clips)


def is_unmarked(level: float) -> bool:
    return np.isnan(level) or level < UNMARKED


def test_marked_speech_is_detected_and_unmarked_is_not(watermarker: Watermarker, speech: Samples) -> None:
    assert is_unmarked(detect(speech, RATE))
    assert detect(watermarker.apply(speech, RATE), RATE) >= MARKED


def test_a_take_carries_the_mark(demo: Callable[..., Model]) -> None:
    """Through the pipeline, with nothing done to it."""
    model = demo("int8")
    with torch.inference_mode():
        (chunk,) = Speaker(model, model.builtin_voice(), Sampling(temperature=0.5), 0.5, StageNoise(2), [SENTENCE])
    assert detect(chunk.samples, model.spec.sample_rate) >= MARKED


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_the_mark_survives_being_saved(watermarker: Watermarker, speech: Samples, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"take.{kind}"
    path.write_bytes(encode(watermarker.apply(speech, RATE), RATE, kind))
    read = read_clip(path)
    assert detect(read.samples, read.sample_rate) >= MARKED


@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_the_mark_survives_being_quieter(watermarker: Watermarker, speech: Samples, gain: float) -> None:
    assert detect(watermarker.apply(speech, RATE) * np.float32(gain), RATE) >= MARKED


def test_the_mark_cannot_be_heard(watermarker: Watermarker, speech: Samples) -> None:
    """Its energy is 15 dB below the speech's, and more."""
    marked = watermarker.apply(speech, RATE)
    assert np.square(marked - speech).mean() < 10 ** (-15 / 10) * np.square(speech).mean()
    assert not np.array_equal(marked, speech)


@pytest.mark.parametrize("rate", [16_000, 24_000, 32_000, 48_000])
def test_any_sample_rate_can_be_marked(watermarker: Watermarker, speech: Samples, rate: int) -> None:
    assert detect(watermarker.apply(resample(speech, RATE, rate), rate), rate) >= MARKED


# Edges


@pytest.mark.parametrize("length", [1, 2, 99, 100, 480, 770, 960, 1000, 5000, 48_000, 48_001])
def test_the_length_is_kept(watermarker: Watermarker, speech: Samples, length: int) -> None:
    """Also where Perth's own transform has too few samples to begin."""
    voiced = np.tile(speech, 2)[5000 : 5000 + length]
    marked = watermarker.apply(voiced, RATE)
    assert (marked.shape, marked.dtype) == ((length,), np.float32)
    assert bool(np.isfinite(marked).all())


def test_0_2_seconds_are_enough_for_the_mark(watermarker: Watermarker, speech: Samples) -> None:
    assert detect(watermarker.apply(speech[5000:10_000], RATE), RATE) >= MARKED


@pytest.mark.parametrize("length", [0, 1, 100, 5000, 48_000])
def test_silence_stays_silence(watermarker: Watermarker, length: int) -> None:
    silence = np.zeros(length, np.float32)
    marked = watermarker.apply(silence, RATE)
    assert (marked.shape, marked.dtype) == ((length,), np.float32)
    assert not marked.any()


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_silence_and_scraps_are_not_taken_for_marked(speech: Samples, length: int) -> None:
    assert is_unmarked(detect(np.zeros(length, np.float32), RATE))
    assert is_unmarked(detect(speech[5000 : 5000 + length], RATE))


def test_what_is_at_full_scale_stays_within_it(watermarker: Watermarker, speech: Samples) -> None:
    loud = np.clip(speech * 20, -1, 1)
    marked = watermarker.apply(loud, RATE)
    assert float(np.abs(marked).max()) <= 1.0
    assert detect(marked, RATE) >= MARKED


# Its manners


def test_the_same_samples_are_marked_with_the_same_bits(watermarker: Watermarker, speech: Samples) -> None:
    first = watermarker.apply(speech, RATE)
    watermarker.apply(speech[:9000], RATE)
    assert np.array_equal(watermarker.apply(speech, RATE), first)
    assert np.array_equal(Watermarker().apply(speech, RATE), first)


def test_what_is_given_is_left_as_it_was(watermarker: Watermarker, speech: Samples) -> None:
    kept = speech.copy()
    watermarker.apply(speech, RATE)
    assert np.array_equal(speech, kept)


def test_read_only_samples_are_taken(watermarker: Watermarker, speech: Samples) -> None:
    """A Take's are."""
    locked = speech.copy()
    locked.flags.writeable = False
    assert len(watermarker.apply(locked, RATE)) == len(locked)
    detect(locked, RATE)


def test_the_hosts_random_numbers_are_left_alone(speech: Samples) -> None:
    """Perth's own constructor draws from torch's global generator."""
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    detect(Watermarker().apply(speech, RATE), RATE)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]


def test_nothing_is_printed(speech: Samples, capfd: pytest.CaptureFixture[str]) -> None:
    detect(Watermarker().apply(speech, RATE), RATE)
    assert capfd.readouterr() == ("", "")


def test_its_bytes_are_those_of_its_tensors(watermarker: Watermarker) -> None:
    """Without the decoder, which only detection needs."""
    net = watermarker._marker.perth_net
    assert watermarker.bytes == sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values()) > 0
    assert not hasattr(net, "decoder")
