"""Audio is read, resampled, joined and written without its level or its words about itself being changed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatterbox_nb.audio import FORMATS, TAGS, Clip, encode, join, read_clip, read_tags, resample
from chatterbox_nb.errors import SettingError, VoiceError

RATE = 24_000
LOSSLESS = ("wav", "flac")


def tone(seconds: float = 1.0, rate: int = RATE, level: float = 0.1) -> npt.NDArray[np.float32]:
    """A peak of `level` at 440 Hz."""
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def rms(samples: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def librosa_load(path: Path, rate: int | None) -> npt.NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports modules that Python deprecates
        samples, _ = librosa.load(path, sr=rate)
    return samples


# Reading files


@pytest.mark.parametrize(
    ("ending", "format_", "subtype", "error"),
    [
        ("wav", "WAV", "PCM_16", 2**-15),
        ("wav", "WAV", "PCM_24", 2**-23),
        ("wav", "WAV", "PCM_U8", 2**-7),
        ("wav", "WAV", "FLOAT", 0.0),
        ("wav", "WAV", "DOUBLE", 0.0),
        ("flac", "FLAC", "PCM_16", 2**-15),
        ("aiff", "AIFF", "PCM_16", 2**-15),
    ],
)
def test_a_lossless_file_is_read_at_its_own_rate_and_level(
    tmp_path: Path, ending: str, format_: str, subtype: str, error: float
) -> None:
    samples = tone()
    soundfile.write(tmp_path / f"clip.{ending}", samples, RATE, subtype=subtype, format=format_)
    clip = read_clip(tmp_path / f"clip.{ending}")
    assert clip.sample_rate == RATE
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == samples.shape
    assert np.abs(clip.samples - samples).max() <= error


@pytest.mark.parametrize(
    ("format_", "subtype"),
    [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
    ids=["mp3", "vorbis", "opus"],
)
def test_a_compressed_file_is_read_at_its_own_rate_and_level(tmp_path: Path, format_: str, subtype: str) -> None:
    soundfile.write(tmp_path / "clip", tone(), RATE, subtype=subtype, format=format_)
    clip = read_clip(tmp_path / "clip")
    assert clip.sample_rate == RATE
    assert clip.samples.shape == tone().shape
    assert rms(clip.samples) == pytest.approx(rms(tone()), rel=0.02)


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_345, 44_100, 48_000, 96_000])
def test_any_rate_is_read(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(0.5, rate), rate)
    clip = read_clip(tmp_path / "clip.wav")
    assert clip.sample_rate == rate
    assert clip.seconds == pytest.approx(0.5, abs=1 / rate)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_channels_become_one_as_librosa_does_it(tmp_path: Path, channels: int) -> None:
    noise = np.random.default_rng(channels).uniform(-0.5, 0.5, (4_801, channels))
    soundfile.write(tmp_path / "clip.wav", noise, 48_000, subtype="FLOAT")
    assert np.array_equal(read_clip(tmp_path / "clip.wav").samples, librosa_load(tmp_path / "clip.wav", None))


def test_a_path_may_be_text_and_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    soundfile.write(tmp_path / "clip.wav", tone(), RATE)
    assert read_clip("~/clip.wav").seconds == 1.0


def test_a_long_file_is_only_read_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.wav", tone(620, 8_000), 8_000, subtype="PCM_U8")
    assert read_clip(tmp_path / "long.wav").seconds == 600.0


def test_a_missing_file_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "Narrator.wav").touch()
    with pytest.raises(VoiceError) as caught:
        read_clip(tmp_path / "narator.wav")
    assert str(caught.value) == f"There is no file {tmp_path / 'narator.wav'}. Did you mean Narrator.wav?"


@pytest.mark.parametrize("name", ["nowhere/clip.wav", "n" * 300 + ".wav"])
def test_a_name_that_cannot_be_there_is_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(VoiceError, match="There is no file"):
        read_clip(tmp_path / name)


def test_a_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="is a folder; a clip is one audio file"):
        read_clip(tmp_path)


@pytest.mark.parametrize("name", ["clip.wav", "clip.m4a", "clip.raw", "clip"])
def test_a_file_that_is_not_audio_is_an_error_that_says_what_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"This is a text, not a sound. " * 99)
    with pytest.raises(
        VoiceError, match=r"cannot be read as audio \(.+\)\. WAV, FLAC, MP3, OGG and AIFF can\."
    ) as caught:
        read_clip(tmp_path / name)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "one line, without libsndfile's own error above it"


def test_a_file_of_no_bytes_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").touch()
    with pytest.raises(VoiceError, match="cannot be read as audio"):
        read_clip(tmp_path / "clip.wav")


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(), RATE)
    data = (tmp_path / "clip.wav").read_bytes()
    (tmp_path / "clip.wav").write_bytes(data[: len(data) // 2])
    assert read_clip(tmp_path / "clip.wav").seconds == pytest.approx(0.5, abs=0.01)


def test_a_file_without_samples_is_an_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(VoiceError, match=r"clip\.wav holds no samples\."):
        read_clip(tmp_path / "clip.wav")


@pytest.mark.parametrize(("level", "shown"), [(0.0, "digital silence"), (0.0005, "-69 dB")])
def test_a_silent_file_is_an_error_that_says_how_silent(tmp_path: Path, level: float, shown: str) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(level=level), RATE, subtype="FLOAT")
    with pytest.raises(VoiceError, match=rf"is silent \({shown}\); a clip needs speech above -60 dB"):
        read_clip(tmp_path / "clip.wav")


def test_channels_that_cancel_each_other_are_silent() -> None:
    with pytest.raises(VoiceError, match="digital silence"):
        read_clip((np.stack([tone(), -tone()], axis=1), RATE))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_file_that_is_not_finite_is_an_error(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[100] = bad
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(VoiceError, match="holds NaN or infinite samples"):
        read_clip(tmp_path / "clip.wav")


# Reading arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floating_point_samples_are_taken_as_they_are(dtype: Any) -> None:
    samples = tone().astype(dtype)
    clip = read_clip((samples, RATE))
    assert clip.samples.dtype == np.float32
    assert np.array_equal(clip.samples, samples.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32])
def test_integer_samples_are_at_full_scale(dtype: Any) -> None:
    info = np.iinfo(dtype)
    samples = np.array([info.min, (int(info.min) + int(info.max) + 1) // 2, info.max], dtype=dtype)
    assert read_clip((samples, RATE)).samples == pytest.approx([-1.0, 0.0, 1.0], abs=2.0 ** -(info.bits - 1) + 1e-7)


@pytest.mark.parametrize(("dtype", "subtype"), [(np.int16, "PCM_16"), (np.int32, "PCM_32")])
def test_integers_mean_what_they_mean_in_a_file(tmp_path: Path, dtype: Any, subtype: str) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(), RATE, subtype=subtype)
    integers, _ = soundfile.read(tmp_path / "clip.wav", dtype=np.dtype(dtype).name)
    assert np.array_equal(read_clip((integers, RATE)).samples, read_clip(tmp_path / "clip.wav").samples)


def test_both_orders_of_two_channels_are_understood() -> None:
    left, right = tone(level=0.4), tone(level=0.2)
    expected = tone(level=0.3)
    for samples in (np.stack([left, right]), np.stack([left, right], axis=1)):
        assert read_clip((samples, RATE)).samples == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("samples", [tone()[:, None], tone()[None, :]])
def test_one_channel_with_an_axis_of_its_own(samples: npt.NDArray[np.float32]) -> None:
    assert np.array_equal(read_clip((samples, RATE)).samples, tone())


def test_a_list_of_numbers_is_an_array() -> None:
    assert read_clip(([0.1, -0.1, 0.1], RATE)).samples == pytest.approx([0.1, -0.1, 0.1])


def test_a_tensor_is_an_array_also_when_it_has_a_gradient() -> None:
    assert np.array_equal(read_clip((torch.from_numpy(tone())[None].requires_grad_(), RATE)).samples, tone())


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0), (0, 0)])
def test_an_empty_array_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(VoiceError, match=r"The array holds no samples\."):
        read_clip((np.zeros(shape), RATE))


@pytest.mark.parametrize(
    ("samples", "shown"),
    [
        (np.zeros((2, 3, 4)), r"float64 \[2, 3, 4\]"),
        (np.float32(0.5), r"float32 \[\]"),
        (np.array(["a", "b"]), r"<U1 \[2\]"),
        (np.array([True, False]), r"bool \[2\]"),
        (np.array([1j]), r"complex128 \[1\]"),
        (None, r"object \[\]"),
        ([[0.1, 0.2], [0.3]], "inhomogeneous"),
        (torch.zeros(3, dtype=torch.bfloat16), "BFloat16"),
    ],
)
def test_what_is_no_array_of_samples_is_an_error_that_shows_what_it_is(samples: Any, shown: str) -> None:
    with pytest.raises(VoiceError, match=rf"Samples must be numbers \[n\] or \[n, channels\].*{shown}"):
        read_clip((samples, RATE))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_an_array_that_float32_cannot_hold_is_an_error(bad: float) -> None:
    samples = tone().astype(np.float64)
    samples[100] = bad
    with pytest.raises(VoiceError, match="The array holds NaN or infinite samples"):
        read_clip((samples, RATE))


@pytest.mark.parametrize("rate", [0, -24_000, 999, 384_001, math.nan, math.inf, "fast"])
def test_an_impossible_rate_is_an_error(rate: Any) -> None:
    with pytest.raises(VoiceError, match=rf"A sample rate of {rate} Hz is not audio; it is usually 16000 to 48000"):
        read_clip((tone(), rate))


def test_rate_and_samples_in_the_other_order_are_an_error_that_says_the_order() -> None:
    """`scipy.io.wavfile.read` and Gradio give them so."""
    with pytest.raises(VoiceError, match=r"A sample rate is a number, not ndarray: give \(samples, sample_rate\)\."):
        read_clip((RATE, tone()))  # type: ignore[arg-type]


def test_a_tuple_of_other_than_two_is_an_error() -> None:
    with pytest.raises(VoiceError, match=r"\(samples, sample_rate\), in two parts; this has 3"):
        read_clip((tone(), RATE, "voice"))  # type: ignore[arg-type]


def test_a_clip_knows_its_seconds() -> None:
    assert Clip(tone(1.5), RATE).seconds == 1.5


# Resampling

RATES = [8_000, 11_025, 12_345, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]


@given(
    source=st.sampled_from(RATES),
    target=st.sampled_from([16_000, 24_000]),
    count=st.one_of(st.integers(1, 3_000), st.integers(1, 20).map(lambda n: 147 * n)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=200)
def test_resampling_is_librosas_bit_for_bit(source: int, target: int, count: int, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    ours = resample(noise, source, target)
    theirs = librosa.resample(noise, orig_sr=source, target_sr=target, res_type="soxr_hq")
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", [16_000, 24_000])
def test_read_and_resampled_is_what_librosa_loads(tmp_path: Path, rate: int, target: int) -> None:
    noise = np.random.default_rng(rate).uniform(-0.5, 0.5, (rate, 2))
    soundfile.write(tmp_path / "clip.wav", noise, rate)
    clip = read_clip(tmp_path / "clip.wav")
    expected = librosa_load(tmp_path / "clip.wav", target)
    assert np.array_equal(resample(clip.samples, clip.sample_rate, target), expected)


def test_the_same_rate_changes_nothing() -> None:
    samples = tone()
    assert resample(samples, RATE, RATE) is samples


# Joining


def test_pieces_are_joined_with_their_pauses_and_their_starts() -> None:
    pieces = [np.full(count, value, np.float32) for count, value in ((10, 0.1), (20, 0.2), (5, 0.3))]
    samples, starts = join(pieces, [0.5, 1.0, 0.0], 10)
    assert starts == [0.0, 1.5, 4.5]
    assert samples.dtype == np.float32
    expected = np.concatenate([pieces[0], np.zeros(5), pieces[1], np.zeros(10), pieces[2]])
    assert np.array_equal(samples, expected.astype(np.float32))


@given(
    counts=st.lists(st.integers(0, 500), max_size=8),
    pause=st.floats(0, 0.5),
    rate=st.sampled_from([8_000, 24_000]),
)
@settings(deadline=None)
def test_each_piece_is_found_where_it_is_said_to_start(counts: list[int], pause: float, rate: int) -> None:
    pieces = [np.full(count, index + 1, np.float32) for index, count in enumerate(counts)]
    samples, starts = join(pieces, [pause] * len(pieces), rate)
    assert len(samples) == sum(counts) + len(counts) * round(pause * rate)
    for piece, start in zip(pieces, starts, strict=True):
        begin = round(start * rate)
        assert np.array_equal(samples[begin : begin + len(piece)], piece)


def test_nothing_joined_is_nothing() -> None:
    samples, starts = join([], [], RATE)
    assert (samples.shape, samples.dtype, starts) == ((0,), np.float32, [])


def test_a_pause_for_each_piece_is_asked_for() -> None:
    with pytest.raises(ValueError, match="shorter"):
        join([tone(), tone()], [0.1], RATE)


def test_a_joined_take_is_a_copy() -> None:
    piece = tone()
    samples, _ = join([piece], [0.0], RATE)
    samples[:] = 0
    assert np.array_equal(piece, tone())


# Writing


def written(tmp_path: Path, kind: str, samples: npt.NDArray[np.float32], **tags: str) -> Path:
    path = tmp_path / f"take.{kind}"
    path.write_bytes(encode(samples, RATE, kind, tags))
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("level", [0.02, 0.1, 0.5, 0.95])
def test_a_file_keeps_the_true_level(tmp_path: Path, kind: str, level: float) -> None:
    """Quiet speech stays quiet: IPython's own player would raise every take to full scale."""
    samples = tone(level=level)
    back, rate = soundfile.read(written(tmp_path, kind, samples), dtype="float32")
    assert rate == RATE
    assert back.shape == samples.shape
    assert rms(back) == pytest.approx(rms(samples), rel=0.02)
    assert np.abs(back).max() == pytest.approx(level, rel=0.15)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_is_exact_to_16_bits(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    back, _ = soundfile.read(written(tmp_path, kind, noise), dtype="float32")
    assert np.abs(back - noise).max() <= 2**-15


@pytest.mark.parametrize("kind", LOSSLESS)
def test_full_scale_does_not_wrap_around(tmp_path: Path, kind: str) -> None:
    back, _ = soundfile.read(written(tmp_path, kind, np.array([1.0, -1.0, 1.0], np.float32)), dtype="float32")
    assert back == pytest.approx([1.0, -1.0, 1.0], abs=2**-14)


@pytest.mark.parametrize("kind", FORMATS)
def test_samples_are_not_changed_by_writing_and_may_be_read_only(kind: str) -> None:
    samples = tone()
    samples.setflags(write=False)
    encode(samples, RATE, kind)
    assert np.array_equal(samples, tone())


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_can_be_read_as_a_clip(tmp_path: Path, kind: str) -> None:
    assert read_clip(written(tmp_path, kind, tone(), title="Taken")).seconds == 1.0


@pytest.mark.parametrize("kind", FORMATS)
def test_ten_minutes_are_written(tmp_path: Path, kind: str) -> None:
    """In a process of its own: libsndfile crashed the interpreter when it got minutes of Vorbis in one write."""
    code = (
        "import sys, numpy as np; from chatterbox_nb.audio import encode; "
        f"sys.stdout.buffer.write(encode(np.zeros(600 * {RATE}, np.float32), {RATE}, '{kind}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
    (tmp_path / "take").write_bytes(done.stdout)
    assert soundfile.info(tmp_path / "take").frames == 600 * RATE


@pytest.mark.parametrize("kind", FORMATS)
def test_every_tag_survives_in_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    """Also in other alphabets, and provenance of some length."""
    tags = {name: f"{name}: Žluťoučký kůň, 你好, 🙂" for name in TAGS}
    tags["comment"] = json.dumps({"text": "Привет! " * 250, "seed": 7}, ensure_ascii=False)
    back = read_tags(written(tmp_path, kind, tone(), **tags))
    assert back.pop("software").startswith(tags.pop("software")), "libsndfile adds its own name"
    assert back == tags


@pytest.mark.parametrize("kind", FORMATS)
def test_tags_without_a_value_are_left_out(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    tags = read_tags(written(tmp_path, kind, tone(), title="Taken", artist="", comment=""))
    assert (tags.get("title"), tags.get("artist"), tags.get("comment")) == ("Taken", None, None)
    assert capfd.readouterr().err == "", "libmpg123 complains on the terminal of empty comments"


@pytest.mark.parametrize("kind", FORMATS)
def test_without_tags_there_are_none(tmp_path: Path, kind: str) -> None:
    assert set(read_tags(written(tmp_path, kind, tone()))) <= {"software"}


def test_an_mp3_says_that_its_tag_is_utf8_of_the_size_it_has() -> None:
    """By the standard, byte by byte: players read it before any sound."""
    plain, tagged = encode(tone(), RATE, "mp3"), encode(tone(), RATE, "mp3", {"title": "é" * 100})
    frame = b"TIT2" + bytes([0, 0, 1, 73]) + b"\0\0" + b"\x03" + "é".encode() * 100  # 201 bytes, seven bits a byte
    assert tagged == b"ID3\x04\0\0" + bytes([0, 0, 1, 83]) + frame + plain


def test_an_unknown_kind_of_file_is_an_error_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"Audio is saved as wav, flac, mp3, ogg, not 'flak'\. Did you mean flac\?"):
        encode(tone(), RATE, "flak")


def test_an_unknown_tag_is_an_error_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"There is no tag 'titel'; there are title, .*Did you mean title\?"):
        encode(tone(), RATE, "wav", {"titel": "Taken"})
