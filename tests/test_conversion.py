"""A clip in another voice: any length in pieces, what people call, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import OTHER_SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.audio import Clip, Samples, read_clip, read_tags, resample
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine import assembly, conditioning
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.conversion import Conversion, cut
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.errors import Busy, Cancelled, NotLoaded, SettingError, VoiceError
from chatterbox_nb.events import Progress

CLIP = DEMO_FOLDER / "second_voice.wav"
RATE = 24_000


def repeated(count: int, pause_seconds: float = 0.3) -> Samples:
    """The clip again and again at 24 kHz, quiet in between: 2.16 s and a pause."""
    pause = np.random.default_rng(0).normal(0, 1e-4, int(pause_seconds * RATE)).astype(np.float32)
    return np.tile(np.concatenate([read_clip(CLIP).samples, pause]), count)


# Pieces


@pytest.mark.parametrize("samples", [1600, 640 * 600, 640 * 600 - 1, 16_000 * 24 + 159])
def test_what_is_short_enough_is_one_piece(samples: int) -> None:
    (piece,) = cut(np.ones(samples, np.float32))
    assert (piece.begin, piece.first, piece.end) == (0, 0, piece.last)


@pytest.mark.parametrize("seconds", [24.1, 44.0, 44.01, 61.7, 300.0])
def test_pieces_follow_each_other_and_are_read_with_their_neighbours(seconds: float) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    pieces = cut(samples)
    assert len(pieces) > 1
    assert pieces[0].begin == 0 and all(one.end == other.begin for one, other in pairwise(pieces))
    assert pieces[-1].end == pieces[-1].last == int(np.ceil(len(samples) // 160 / 4))
    assert all(piece.end > piece.begin and piece.last - piece.first <= 600 for piece in pieces)
    assert all(one.last > one.end and other.first < other.begin for one, other in pairwise(pieces))


def test_a_clip_is_cut_in_its_pauses() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 16_000 * 60).astype(np.float32)
    for pause in (18.2, 35.6):
        samples[int(pause * 16_000) : int((pause + 0.4) * 16_000)] *= 0.01
    assert [piece.end / 25 for piece in cut(samples)[:2]] == pytest.approx([18.4, 35.8], abs=0.1)


def test_digital_silence_makes_long_pieces() -> None:
    samples = np.zeros(16_000 * 60, np.float32)
    samples[:1000] = 0.5
    assert [piece.end for piece in cut(samples)] == [550, 1100, 1500]


@pytest.fixture(scope="module")
def long_take() -> tts.Take:
    """Two pieces, with progress in `EVENTS`."""
    manager.get().load("demo", "int8").wait()
    return tts.convert((repeated(11), RATE), seed=5, cfm_steps=2, observer=EVENTS.append)


EVENTS: list[Progress] = []


def test_nothing_is_lost_or_said_twice(long_take: tts.Take) -> None:
    samples = repeated(11)
    assert abs(len(long_take) - len(samples)) <= 960
    assert long_take.tokens * 960 == len(long_take)
    # Where it is loud and where it is quiet is the same all along: by its loudness every half second it lags nowhere.
    energies = [
        np.sqrt(np.square(wave[: len(wave) // 2400 * 2400].reshape(-1, 2400)).mean(axis=1))
        for wave in (samples[: len(long_take)], long_take.samples[: len(samples)])
    ]
    for start in range(0, len(energies[0]) - 100, 50):
        given, made = (energy[start : start + 100] - energy[start : start + 100].mean() for energy in energies)
        lags = {lag: float(np.dot(given[5:-5], np.roll(made, lag)[5:-5])) for lag in range(-5, 6)}
        assert max(lags, key=lags.__getitem__) in (-1, 0, 1)


def test_a_joint_is_not_heard(long_take: tts.Take) -> None:
    """No jump from sample to sample is larger where pieces meet than elsewhere; and it is a quiet place."""
    jumps = np.abs(np.diff(long_take.samples))
    assert len(long_take.chunks) == 2
    for chunk in long_take.chunks[1:]:
        at = round(chunk.start_seconds * RATE)
        around = slice(at - 2400, at + 2400)
        assert jumps[at - 2 : at + 962].max() <= 0.25 * jumps.max()
        assert np.abs(long_take.samples[around]).max() <= 0.25 * np.abs(long_take.samples).max()


def joined(model: Model, samples: Samples, voice: Voice) -> tuple[Conversion, list[Samples]]:
    """A clip at 24 kHz in a voice, piece by piece, in one step of the flow."""
    with torch.inference_mode():
        conversion = Conversion(model, resample(samples, RATE, 16_000), StageNoise(1), steps=1)
        conversion.hear(model.read_encoders().tokenizer)
        return conversion, [piece.samples for piece in conversion.sound(voice)]


def test_sound_without_a_pause_is_joined_without_a_jump(demo: Callable[..., Model]) -> None:
    """A clip that never rests is cut in the middle of sound."""
    restless = np.tile(read_clip(CLIP).samples[RATE // 10 : RATE * 16 // 10], 17)
    conversion, (first, second) = joined(demo(), restless, demo().builtin_voice())
    wave = np.concatenate([first, second])
    assert len(wave) == 960 * conversion.pieces[-1].end
    jumps = np.abs(np.diff(wave))
    assert jumps[len(first) - 2 : len(first) + 962].max() <= np.quantile(jumps, 0.999)


def test_a_prompt_that_is_a_frame_longer_moves_no_joint(demo: Callable[..., Model]) -> None:
    """Such a voice takes 20 ms off the start of what the flow makes: of the whole, and not of every piece."""
    voice = demo().builtin_voice()
    longer = replace(voice, prompt_mel=torch.cat([voice.prompt_mel, voice.prompt_mel[:, -1:]], dim=1))
    conversion, (first, second) = joined(demo(), repeated(10), longer)
    begin, end = conversion.pieces[1].begin, conversion.pieces[1].end
    assert len(second) == 960 * (end - begin) + 480  # from where the two begin to go over into each other
    assert len(first) + len(second) == 960 * end - 480


# What people call


@pytest.fixture(scope="module")
def take() -> tts.Take:
    manager.get().load("demo", "int8").wait()
    return tts.convert(CLIP, seed=7)


def test_a_take_says_what_was_converted_and_how(take: tts.Take) -> None:
    assert take.text == "second_voice.wav, in the voice of builtin"
    assert isinstance(take.request, tts.ConversionRequest)
    assert (take.request.clip, take.request.seed, take.request.cfm_steps) == ("second_voice.wav", 7, 10)
    assert (take.model, take.precision, take.finish, take.warnings) == ("demo", "int8", "stop", ())
    assert set(take.seconds) == {"tokens", "mel", "wave", "watermark"}
    assert [chunk.text for chunk in take.chunks] == ["0.00 to 2.16 s"]
    assert repr(take).startswith("Take: 2.2 s · from second_voice.wav · demo int8 · voice builtin · seed 7")
    assert tts.takes[0].samples is take.samples


def test_a_request_is_converted_again_bit_for_bit(take: tts.Take) -> None:
    again = tts.convert(take.request)
    assert np.array_equal(again.samples, take.samples)
    assert again.request == take.request
    with pytest.raises(SettingError, match=r"dataclasses\.replace"):
        tts.convert(take.request, seed=2)


def test_another_seed_sounds_otherwise(take: tts.Take) -> None:
    assert not np.array_equal(tts.convert(CLIP, seed=8).samples, take.samples)


def test_the_sound_of_an_array_is_that_of_its_file(take: tts.Take) -> None:
    clip = read_clip(CLIP)
    made = tts.convert((clip.samples, clip.sample_rate), seed=7)
    assert np.array_equal(made.samples, take.samples)
    assert made.request.options() == {**take.request.options(), "clip": "array"}


def test_a_take_is_converted_into_the_voice_of_a_clip() -> None:
    manager.get().load("demo", "int8").wait()
    spoken = tts.speak(OTHER_SENTENCE, seed=1)
    made = tts.convert(spoken, CLIP, seed=1)
    assert made.text == f"{OTHER_SENTENCE}, in the voice of second_voice.wav"
    assert abs(made.duration - spoken.duration) < 0.04


def test_a_file_carries_what_was_converted(take: tts.Take, tmp_path: Path) -> None:
    tags = read_tags(take.save(tmp_path / "take.flac"))
    comment = json.loads(tags["comment"])
    assert tags["title"] == comment["text"] == "second_voice.wav, in the voice of builtin"
    assert (comment["clip"], comment["seed"], comment["synthetic_speech"]) == ("second_voice.wav", 7, True)
    assert take.request.sha256.startswith(comment["clip_sha256"])  # type: ignore[attr-defined]


def test_an_effort_decides_steps_and_seconds_of_the_voice(take: tts.Take) -> None:
    request = tts.convert(CLIP, seed=7, effort="fast").request
    assert isinstance(request, tts.ConversionRequest)
    assert (request.cfm_steps, request.voice_seconds) == (4, 3.0)


def test_progress_tells_tokens_then_each_piece(long_take: tts.Take) -> None:
    told = [event for event in EVENTS if event.fraction is not None]
    assert [event.chunk for event in told if event.stage == "tokens"] == [0, 1]
    assert [(event.chunk, event.done) for event in told if event.stage == "mel"] == [
        (chunk, step) for chunk in range(2) for step in (1, 2)
    ]
    fractions = [event.fraction or 0.0 for event in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


@pytest.mark.parametrize(("stage", "chunk"), [("tokens", 1), ("mel", 0), ("mel", 1)])
def test_cancelling_keeps_the_pieces_that_are_finished(long_take: tts.Take, stage: str, chunk: int) -> None:
    token = tts.CancelToken()

    def stop(event: Progress) -> None:
        if (event.stage, event.chunk) == (stage, chunk):
            token.cancel()

    with pytest.raises(Cancelled) as stopped:
        tts.convert(long_take.request, observer=stop, cancel=token)
    kept = stopped.value.take
    if stage == "tokens" or chunk == 0:
        assert kept is None
    else:
        assert kept is not None and kept.finish == "cancelled" and len(kept.chunks) == 1
        assert 0 < len(kept) < len(long_take)
        assert np.array_equal(kept.samples, long_take.samples[: len(kept)])
        assert "1 of 2 chunks were finished" in str(stopped.value)


def test_encoders_are_read_once_for_clip_and_voice_and_not_kept(
    take: tts.Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, rate = soundfile.read(CLIP)
    soundfile.write(tmp_path / "new.wav", samples[: int(1.7 * rate)], rate)
    reads = []
    read = assembly.read_encoders

    def counted(*arguments: object) -> object:
        reads.append(1)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "read_encoders", counted)
    tts.convert(CLIP, tmp_path / "new.wav", seed=1)
    assert reads == [1]
    assert manager.get().loaded().encoders is None


def test_the_result_sounds_like_its_voice_and_the_clip_does_not(demo: Callable[..., Model], take: tts.Take) -> None:
    """By the voice encoder: the clip is another speaker's."""
    model = demo()
    encoders = model.read_encoders()

    def likeness(samples: Samples, rate: int) -> float:
        with torch.inference_mode():
            found = conditioning.prepare(Clip(samples, rate), encoders, model.spec, "clip")
        return float(torch.nn.functional.cosine_similarity(found.speaker, model.builtin_voice().speaker)[0])

    clip = read_clip(CLIP)
    assert likeness(take.samples.copy(), RATE) > 0.85
    assert likeness(clip.samples, clip.sample_rate) < 0.5


# What is refused


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("clip", "says"),
    [
        ("secnd_voice.wav", "There is no file secnd_voice.wav"),
        (Path(__file__), "cannot be read as audio"),
        ((np.zeros(16_000), 16_000), "is silent"),
        ((np.zeros(0), 16_000), "holds no samples"),
        ((np.ones(1000), 16_000), r"array is 0.062 s long; a clip to convert has at least 0.1 s"),
        ((np.ones(1000 * 1801, np.int8) * 100, 1000), "longer than 30 minutes, which is the most for one take"),
        ((np.ones(9), 8, 7), r"not tuple"),
        (7, r"A clip is a file, \(samples, sample_rate\) or a Take, not int"),
    ],
)
def test_a_clip_that_cannot_be_is_refused_before_any_work(clip: object, says: str) -> None:
    before = len(manager.get().activity().done)
    with pytest.raises(VoiceError, match=says):
        tts.convert(clip)
    assert len(manager.get().activity().done) == before


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"cfm_steps": 0}, "goes from 1 to 100"),
        ({"voice_second": 3}, "there are cfm_steps, voice_seconds, effort. Did you mean voice_seconds"),
        ({"temperature": 0.5}, "There is no option 'temperature'"),
        ({"effort": "bst"}, "Did you mean best"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        tts.convert(CLIP, **options)  # type: ignore[arg-type]


def test_without_a_model_the_command_that_loads_one_is_named() -> None:
    manager.get().unload().wait()
    with pytest.raises(NotLoaded, match="%tts_load demo"):
        tts.convert(CLIP)


def test_a_busy_model_says_so(loaded: manager.Manager) -> None:
    import threading

    release = threading.Event()
    job = loaded.submit("waiting", lambda _: release.wait(10))
    try:
        with pytest.raises(Busy, match="The model is"):
            tts.convert(CLIP, wait=False)
    finally:
        release.set()
        job.wait()
