"""What a take remembers, and what becomes of it in files and arrays."""

from __future__ import annotations

import json
import wave
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import audio, manager
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.errors import SettingError
from chatterbox_nb.take import Take, file_kind

ENDINGS = tuple(audio.FORMATS)


@pytest.fixture(scope="module")
def take() -> Take:
    """Two chunks of the demo voice."""
    manager.get().load("demo", "int8").wait()
    return tts.speak(f"{SENTENCE} {OTHER_SENTENCE}", seed=7, max_chunk=50, exaggeration=0.6)


def test_samples_are_float32_within_full_scale_and_read_only(take: Take) -> None:
    assert take.samples.dtype == np.float32
    assert take.samples.ndim == 1
    assert np.isfinite(take.samples).all()
    assert 0.01 < np.abs(take.samples).max() <= 1
    with pytest.raises(ValueError, match="read-only"):
        take.samples[0] = 0.5


def test_a_take_cannot_be_changed(take: Take) -> None:
    with pytest.raises(FrozenInstanceError):
        take.precision = "fp32"  # type: ignore[misc]


def test_duration_tokens_and_real_time_factor_are_those_of_its_parts(take: Take) -> None:
    assert take.sample_rate == 24_000
    assert take.duration == len(take) / 24_000 == len(take.samples) / 24_000
    assert take.tokens == sum(len(chunk.tokens) for chunk in take.chunks) > 0
    assert take.real_time_factor == pytest.approx(sum(take.seconds.values()) / take.duration)
    assert set(take.seconds) == {"tokens", "mel", "wave", "watermark"}


def test_its_chunks_say_where_they_start(take: Take) -> None:
    first, second = take.chunks
    assert (first.text, second.text) == (SENTENCE.lower(), OTHER_SENTENCE.lower())
    assert first.start_seconds == 0
    assert 0 < second.start_seconds < take.duration
    pause = take.samples[round((second.start_seconds - 0.05) * 24_000) : round(second.start_seconds * 24_000)]
    assert not pause.any()


def test_an_empty_take_has_no_real_time_factor_and_is_still_a_take(take: Take) -> None:
    empty = replace(take, samples=np.zeros(0, np.float32), chunks=())
    assert (empty.duration, empty.tokens, len(empty)) == (0, 0, 0)
    assert empty.real_time_factor == float("inf")


def test_its_request_is_spoken_again_bit_for_bit(take: Take) -> None:
    again = tts.speak(take.request)
    assert np.array_equal(again.samples, take.samples)
    assert again.request == take.request
    assert [chunk.tokens for chunk in again.chunks] == [chunk.tokens for chunk in take.chunks]


def test_its_request_can_be_changed_in_one_thing(take: Take) -> None:
    other = tts.speak(replace(take.request, seed=8))
    assert other.request.seed == 8
    assert other.request.exaggeration == 0.6
    assert not np.array_equal(other.samples[: len(take)], take.samples[: len(other)])


def test_numpy_takes_it_as_its_samples(take: Take) -> None:
    assert np.asarray(take) is take.samples
    assert np.array_equal(np.abs(take), np.abs(take.samples))
    assert np.asarray(take, dtype=np.float64).dtype == np.float64
    assert np.sqrt(np.mean(np.square(take))) > 0


def test_a_copy_by_numpy_is_the_users_own(take: Take) -> None:
    copied = np.array(take)
    copied *= 0.5
    assert np.array_equal(copied, take.samples * np.float32(0.5))


def test_numpy_2_says_whether_it_wants_a_copy(take: Take) -> None:
    assert take.__array__() is take.samples
    assert take.__array__(copy=False) is take.samples
    assert take.__array__(copy=True) is not take.samples
    assert take.__array__(np.dtype(np.float64), copy=True).dtype == np.float64


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_holds_the_samples_at_their_own_level(take: Take, tmp_path: Path, ending: str) -> None:
    path = take.save(tmp_path / f"take.{ending}")
    assert path == tmp_path / f"take.{ending}"
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == take.sample_rate
    assert len(samples) == len(take)
    error = np.sqrt(np.mean(np.square(samples - take.samples)) / np.mean(np.square(take.samples)))
    assert error < (1e-3 if ending in ("wav", "flac") else 0.1)
    assert np.std(samples) == pytest.approx(np.std(take.samples), rel=0.01)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_carries_its_provenance(take: Take, tmp_path: Path, ending: str) -> None:
    tags = audio.read_tags(take.save(tmp_path / f"take.{ending}"))
    assert "synthetic speech" in tags["artist"]
    assert "chatterbox-nb" in tags["software"]
    assert tags["title"] == f"{SENTENCE} {OTHER_SENTENCE}"[:80]
    assert tags["date"] == take.created.date().isoformat()
    comment = json.loads(tags["comment"])
    assert comment["synthetic_speech"] is True
    assert comment["watermark"] == "Perth"
    assert comment["model"] == "demo"
    assert comment["precision"] == "int8"
    assert comment["seed"] == 7
    assert comment["exaggeration"] == 0.6
    assert comment["max_chunk"] == 50
    assert comment["voice"] == "builtin"
    assert comment["text"] == f"{SENTENCE} {OTHER_SENTENCE}"
    assert take.weights.startswith(comment["weights"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_any_text_fits_into_the_tags(take: Take, tmp_path: Path, ending: str) -> None:
    text = 'Grüße, "quoted" \\ 中文 🙂\nand a second line. ' + "word " * 1000
    other = replace(take, request=replace(take.request, text=text))
    tags = audio.read_tags(other.save(tmp_path / f"take.{ending}"))
    assert tags["title"] == 'Grüße, "quoted" \\ 中文 🙂 and a second line. word word word word word word word word'[:80]
    comment = json.loads(tags["comment"])
    assert comment["text"] == text[:1999] + "…"


def test_the_provenance_names_the_voice(take: Take, tmp_path: Path) -> None:
    samples, rate = soundfile.read(DEMO_FOLDER / "builtin_voice.wav")
    soundfile.write(tmp_path / "grandma.wav", samples[rate // 4 :], rate)
    spoken = tts.speak(OTHER_SENTENCE, voice=tmp_path / "grandma.wav", seed=1)
    comment = json.loads(audio.read_tags(spoken.save(tmp_path / "take.flac"))["comment"])
    assert comment["voice"] == "grandma.wav"


def test_a_wav_is_one_that_everything_reads(take: Take, tmp_path: Path) -> None:
    with wave.open(str(take.save(tmp_path / "take.wav"))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() == len(take)


def test_saving_makes_the_folders_and_takes_any_case(take: Take, tmp_path: Path) -> None:
    path = take.save(str(tmp_path / "new" / "folder" / "TAKE.WAV"))
    assert path.stat().st_size > len(take)


def test_saving_again_replaces_the_file(take: Take, tmp_path: Path) -> None:
    path = tmp_path / "take.wav"
    path.write_text("old")
    take.save(path)
    assert soundfile.info(path).frames == len(take)


def test_a_tilde_is_the_home_folder(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert take.save("~/take.wav") == tmp_path / "take.wav"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("take.waw", "'take.waw' ends in none of them. Did you mean wav?"),
        ("take.m4a", "'take.m4a' ends in none of them."),
        ("take", "'take' ends in none of them."),
        ("take.wav.bak", "'take.wav.bak' ends in none of them."),
    ],
)
def test_another_ending_is_refused_and_writes_nothing(take: Take, tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(SettingError) as found:
        take.save(tmp_path / "folder" / name)
    assert str(found.value) == f"A take is saved as .wav, .flac, .mp3, .ogg; {says}"
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_error_in_one_line(take: Take, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.wav").mkdir()
    for path in (tmp_path / "file" / "take.wav", tmp_path / "folder.wav"):
        with pytest.raises(SettingError, match="cannot be written: ") as found:
            take.save(path)
        assert str(path) in str(found.value)
        assert found.value.__context__ is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_silence_stays_silent(take: Take, tmp_path: Path, ending: str) -> None:
    silent = replace(take, samples=np.zeros(24_000, np.float32))
    read, _ = soundfile.read(silent.save(tmp_path / f"take.{ending}"), dtype="float32")
    assert len(read) == 24_000
    assert np.abs(read).max() < 1e-4


def test_a_take_without_sound_is_not_saved(take: Take, tmp_path: Path) -> None:
    empty = replace(take, samples=np.zeros(0, np.float32), chunks=())
    with pytest.raises(SettingError, match=r"take.flac is not written. Try another seed."):
        empty.save(tmp_path / "take.flac")
    assert not list(tmp_path.iterdir())


def test_the_kind_of_a_file_is_its_ending() -> None:
    assert [file_kind(f"a.b.{ending}") for ending in ENDINGS] == list(ENDINGS)
    assert file_kind(Path("A.MP3")) == "mp3"
