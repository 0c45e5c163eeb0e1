"""A clip becomes a Voice, and a Voice stays what it is: on disk, in copies, after takes.

That the numbers are the package's `prepare_conditionals` is in `test_oracle`.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatterbox_nb.audio import Clip, read_clip
from chatterbox_nb.checkpoint import reference, source
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.spec import VoiceRules
from chatterbox_nb.engine import flow
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import (
    Encoders,
    Voice,
    check_clip,
    mel_spectrogram,
    prepare,
    read_builtin,
    read_voice,
    write_voice,
)
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.errors import SourceError, VoiceError
from chatterbox_nb.precision import device

RULES = VoiceRules(min_seconds=1.0, advised_seconds=5.0, s3gen_seconds=10.0)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(DEMO_FOLDER / "builtin_voice.wav")


@pytest.fixture(scope="module")
def encoders(demo: Callable[..., Model]) -> Encoders:
    return demo().read_encoders()


def prepared(clip: Clip, encoders: Encoders, model: Model, name: str = "clip") -> Voice:
    with torch.inference_mode():
        return prepare(clip, encoders, model.spec, name)


def same(one: Voice, other: Voice) -> bool:
    pairs = zip(one.tensors().items(), other.tensors().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# Mel


@pytest.mark.parametrize("samples", [721, 960, 1920, 12_345, 24_000, 240_000])
def test_the_mel_is_the_packages_bit_for_bit(samples: int) -> None:
    reference.import_package()
    from chatterbox.models.s3gen.utils.mel import mel_spectrogram as packages

    audio = torch.randn(1, samples, generator=torch.Generator().manual_seed(samples)).clamp(-4, 4) / 4
    ours = mel_spectrogram(audio)
    assert torch.equal(ours, packages(audio))
    assert ours.shape == (1, 80, samples // 480)


def test_silence_is_the_floor_of_the_log() -> None:
    assert torch.allclose(mel_spectrogram(torch.zeros(1, 4800)), torch.full((1, 80, 10), 1e-5).log())


# Preparing


def test_a_voice_is_float32_and_int64_in_the_shapes_it_says(clip: Clip, encoders: Encoders, tiny: Model) -> None:
    spec = tiny.spec
    voice = prepared(clip, tiny.read_encoders(), tiny)
    frames = len(clip.samples) // 480
    assert voice.speaker.shape == (1, spec.t3.speaker_width)
    assert voice.t3_prompt.shape == (1, spec.t3.prompt_tokens)
    assert voice.prompt_tokens.shape == (1, frames // 2)
    assert voice.prompt_mel.shape == (1, frames, 80)
    assert voice.speaker_vector.shape == (1, 192)
    dtypes = {name: tensor.dtype for name, tensor in voice.tensors().items()}
    assert dtypes == {
        "speaker": torch.float32, "t3_prompt": torch.int64, "prompt_tokens": torch.int64,
        "prompt_mel": torch.float32, "speaker_vector": torch.float32,
    }  # fmt: skip
    for tokens in (voice.t3_prompt, voice.prompt_tokens):
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < spec.s3gen.codes


def test_the_same_clip_is_the_same_voice(clip: Clip, encoders: Encoders, demo: Callable[..., Model]) -> None:
    assert same(prepared(clip, encoders, demo()), prepared(clip, encoders, demo()))


def test_another_clip_is_another_voice(clip: Clip, encoders: Encoders, demo: Callable[..., Model]) -> None:
    one = prepared(clip, encoders, demo()).tensors()
    other = prepared(Clip(clip.samples[::-1].copy(), clip.sample_rate), encoders, demo()).tensors()
    assert [name for name in one if torch.equal(one[name], other[name])] == []


def test_ten_seconds_are_read_for_the_flow_and_all_of_it_for_the_speaker(
    clip: Clip, encoders: Encoders, demo: Callable[..., Model]
) -> None:
    model = demo()
    long = Clip(np.tile(clip.samples, 6), clip.sample_rate)  # 12.2 s
    changed = Clip(np.concatenate([long.samples[:240_000], long.samples[240_000:][::-1]]), clip.sample_rate)
    one, other = prepared(long, encoders, model), prepared(changed, encoders, model)
    assert one.prompt_tokens.shape == (1, 250)
    assert one.prompt_mel.shape == (1, 500, 80)
    assert torch.equal(one.t3_prompt, other.t3_prompt)
    assert torch.equal(one.prompt_tokens[:, :-1], other.prompt_tokens[:, :-1])
    assert not torch.equal(one.speaker, other.speaker)


@pytest.mark.parametrize("seconds", [0.5, 0.77, 1.01, 2.0])
def test_every_length_that_is_allowed_works(
    seconds: float, clip: Clip, encoders: Encoders, demo: Callable[..., Model]
) -> None:
    short = Clip(clip.samples[: round(seconds * clip.sample_rate)], clip.sample_rate)
    voice = prepared(short, encoders, demo())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in voice.tensors().values())
    assert voice.prompt_mel.shape[1] // 2 == voice.prompt_tokens.shape[1] > 0


def test_the_host_is_left_alone(
    clip: Clip, encoders: Encoders, demo: Callable[..., Model], capfd: pytest.CaptureFixture[str]
) -> None:
    """No global random state, none of the package's caches, nothing printed."""
    from chatterbox.models.s3gen.utils import mel

    cached = dict(mel.mel_basis)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    prepared(clip, encoders, demo())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]
    assert dict(mel.mel_basis) == cached
    assert capfd.readouterr() == ("", "")


def test_the_clip_is_left_as_it_was(clip: Clip, encoders: Encoders, demo: Callable[..., Model]) -> None:
    kept = clip.samples.copy()
    prepared(clip, encoders, demo())
    assert np.array_equal(clip.samples, kept)


def test_encoders_are_not_in_memory_before_they_are_asked_for(demo: Callable[..., Model]) -> None:
    assert set(demo().modules()) == {"t3", "flow", "vocoder"}
    assert demo().report.bytes_by_component["tokenizer"] == 0


# Constants that are in no file


def test_the_rotary_table_is_the_tokenizers_own(encoders: Encoders) -> None:
    from s3tokenizer.model_v2 import precompute_freqs_cis

    assert torch.equal(encoders.tokenizer.encoder.freqs_cis, precompute_freqs_cis(64, 2048))


def test_the_window_that_no_file_has_is_computed(encoders: Encoders) -> None:
    assert torch.equal(encoders.tokenizer.window, torch.hann_window(400))


@pytest.fixture(scope="module")
def without_filters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A checkpoint like the published `s3gen_v3.pt`, which has neither window nor mel filters."""
    folder = tmp_path_factory.mktemp("without filters")
    for file in tiny_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "s3gen.safetensors")
    del tensors["tokenizer._mel_filters"]
    save_file(tensors, folder / "s3gen.safetensors")
    spec, files = source.find(source=folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


def test_filters_that_a_file_lacks_are_librosas(without_filters: Model, clip: Clip) -> None:
    from librosa.filters import mel

    encoders = without_filters.read_encoders()
    expected = torch.from_numpy(mel(sr=16_000, n_fft=400, n_mels=80))
    assert torch.equal(encoders.tokenizer._mel_filters, expected)
    assert prepared(clip, encoders, without_filters).prompt_tokens.shape[1] > 0


def test_filters_that_a_file_has_are_the_files(tiny: Model) -> None:
    stored = load_file(tiny.files.path("s3gen"))["tokenizer._mel_filters"]
    assert torch.equal(tiny.read_encoders().tokenizer._mel_filters, stored)


# What a clip must be


def clip_of(seconds: float) -> Clip:
    return Clip(np.zeros(round(seconds * 16_000), np.float32), 16_000)


def test_a_clip_that_is_too_short_is_an_error_with_both_numbers() -> None:
    with pytest.raises(
        VoiceError, match=r"me.wav is 0.40 s long; a voice needs at least 1 s, and 10 s of clean speech"
    ):
        check_clip(clip_of(0.4), RULES, "me.wav")


def test_a_clip_that_is_short_is_taken_with_a_warning() -> None:
    assert check_clip(clip_of(3.0), RULES, "me.wav") == ("me.wav is only 3.0 s long; 10 s give a better likeness.",)


@pytest.mark.parametrize("seconds", [5.0, 60.0])
def test_a_clip_that_is_long_enough_needs_no_word(seconds: float) -> None:
    assert check_clip(clip_of(seconds), RULES, "me.wav") == ()


def test_a_clip_of_exactly_the_least_is_enough() -> None:
    assert len(check_clip(clip_of(1.0), RULES, "me.wav")) == 1


def test_the_warning_travels_with_the_voice(clip: Clip, encoders: Encoders, demo: Callable[..., Model]) -> None:
    model = demo()
    rules = replace(model.spec, voice=replace(model.spec.voice, advised_seconds=60.0))
    with torch.inference_mode():
        voice = prepare(clip, encoders, rules, "me.wav")
    assert voice.warnings == ("me.wav is only 2.1 s long; 10 s give a better likeness.",)
    assert voice.copy().warnings == voice.warnings


# Copies


def test_a_copy_shares_no_memory(demo: Callable[..., Model]) -> None:
    voice = demo().builtin_voice()
    copy = voice.copy()
    assert same(voice, copy)
    for name, tensor in copy.tensors().items():
        assert tensor.data_ptr() != voice.tensors()[name].data_ptr()
        tensor.zero_()
    assert not same(voice, copy)
    assert copy.name == voice.name


# Less of it


@pytest.mark.parametrize("longer", [0, 1])
def test_the_end_of_a_reference_is_kept_tokens_and_mel_together(demo: Callable[..., Model], longer: int) -> None:
    own = demo().builtin_voice()
    voice = replace(own, prompt_mel=torch.cat([own.prompt_mel, own.prompt_mel[:, :longer]], dim=1))
    short = voice.shortened(1.0)
    assert torch.equal(short.prompt_tokens, voice.prompt_tokens[:, -25:])
    assert torch.equal(short.prompt_mel, voice.prompt_mel[:, -50 - longer :])
    assert short.seconds == 1.0
    for name in ("speaker", "t3_prompt", "speaker_vector"):
        assert getattr(short, name) is getattr(voice, name)


def test_a_voice_that_is_shortened_stays_as_it_was(demo: Callable[..., Model]) -> None:
    voice = demo().builtin_voice()
    before = voice.copy()
    voice.shortened(0.5)
    assert same(voice, before)


@pytest.mark.parametrize("seconds", [None, 2.08, 2.09, 60.0])
def test_as_much_as_there_is_is_the_voice_itself(demo: Callable[..., Model], seconds: float | None) -> None:
    voice = demo().builtin_voice()  # of 52 tokens
    assert voice.shortened(seconds) is voice


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 1), (0.5, 12), (0.51, 13), (1.98, 50)])
def test_seconds_are_rounded_to_whole_tokens(demo: Callable[..., Model], seconds: float, tokens: int) -> None:
    short = demo().builtin_voice().shortened(seconds)
    assert (short.prompt_tokens.shape[1], short.prompt_mel.shape[1]) == (tokens, 2 * tokens)


@pytest.mark.parametrize("longer", [0, 1])
@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_shortened_voice_gives_a_mel_of_the_same_length(tiny: Model, seconds: float, longer: int) -> None:
    own = tiny.builtin_voice()
    voice = replace(own, prompt_mel=torch.cat([own.prompt_mel, own.prompt_mel[:, :longer]], dim=1))
    tokens = torch.tensor([[17, 4000, 6560, 0, 250, 1]])
    with torch.inference_mode():
        mels = [
            flow.tokens_to_mel(tiny.flow, tokens, one, StageNoise(0), 2) for one in (voice, voice.shortened(seconds))
        ]
    assert mels[0].shape == mels[1].shape == (1, 80, 12 - longer)
    assert mels[1].isfinite().all()


def test_a_voice_cannot_be_given_other_tensors(demo: Callable[..., Model]) -> None:
    with pytest.raises(AttributeError):
        demo().builtin_voice().speaker = torch.zeros(1, 64)  # type: ignore[misc]


def test_a_voice_shows_its_name_and_length(demo: Callable[..., Model]) -> None:
    assert repr(demo().builtin_voice()) == "Voice('builtin', 2.1 s of reference)"


def test_a_model_without_a_voice_of_its_own_asks_for_a_clip(demo: Callable[..., Model]) -> None:
    with pytest.raises(VoiceError, match=r"demo comes without a voice of its own. Name a clip: --voice clip.wav"):
        replace(demo(), builtin=None).builtin_voice()


# The built-in voice


def test_the_builtin_voice_is_what_the_package_reads(demo: Callable[..., Model]) -> None:
    from chatterbox.tts import Conditionals

    path = demo().files.path("voice")
    theirs, ours = Conditionals.load(path), read_builtin(path)
    assert ours.name == "builtin"
    assert torch.equal(ours.speaker, theirs.t3.speaker_emb)
    assert torch.equal(ours.t3_prompt, theirs.t3.cond_prompt_speech_tokens)
    assert torch.equal(ours.prompt_tokens, theirs.gen["prompt_token"])
    assert torch.equal(ours.prompt_mel, theirs.gen["prompt_feat"])
    assert torch.equal(ours.speaker_vector, theirs.gen["embedding"])


def test_a_half_precision_voice_is_read_as_float32(tmp_path: Path, demo: Callable[..., Model]) -> None:
    saved = torch.load(demo().files.path("voice"), weights_only=True)
    saved["gen"]["prompt_feat"] = saved["gen"]["prompt_feat"].half()
    saved["gen"]["prompt_token"] = saved["gen"]["prompt_token"].int()
    torch.save(saved, tmp_path / "conds.pt")
    voice = read_builtin(tmp_path / "conds.pt")
    assert (voice.prompt_mel.dtype, voice.prompt_tokens.dtype) == (torch.float32, torch.int64)


def test_a_missing_voice_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"conds.pt is not a voice of this model \(it is missing\)"):
        read_builtin(tmp_path / "conds.pt")


CONTENTS: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "not a pickle": lambda path: path.write_bytes(b"hello" * 100),
    "cut off": lambda path: path.write_bytes((DEMO_FOLDER / "conds.pt").read_bytes()[:5000]),
    "a list": lambda path: torch.save([1, 2], path),
    "other keys": lambda path: torch.save({"t3": {}, "gen": {}}, path),
    "no tensors": lambda path: torch.save({"t3": {"speaker_emb": None}, "gen": {}}, path),
}


@pytest.mark.parametrize("write", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_file_that_is_no_voice_is_an_error_in_one_line(write: Callable[[Path], Any], tmp_path: Path) -> None:
    write(tmp_path / "conds.pt")
    with pytest.raises(SourceError, match=r"is not a voice of this model \(.*\). Delete it and load again") as caught:
        read_builtin(tmp_path / "conds.pt")
    assert "\n" not in str(caught.value)


class Command:
    """What a hostile pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_voice_is_never_run(tmp_path: Path) -> None:
    torch.save({"t3": Command(tmp_path / "ran")}, tmp_path / "conds.pt")
    with pytest.raises(SourceError, match="is not a voice of this model"):
        read_builtin(tmp_path / "conds.pt")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Command(tmp_path / "ran")))
    assert (tmp_path / "ran").exists(), "the pickle itself must be able to"


# Voices on disk


def test_a_written_voice_is_read_back_bit_for_bit(tmp_path: Path, demo: Callable[..., Model]) -> None:
    model = demo()
    voice = model.builtin_voice()
    write_voice(tmp_path / "voice.safetensors", voice)
    read = read_voice(tmp_path / "voice.safetensors", "me", model.spec)
    assert read is not None
    assert same(read, voice)
    assert read.name == "me"
    assert {name: tensor.dtype for name, tensor in read.tensors().items()} == {
        name: tensor.dtype for name, tensor in voice.tensors().items()
    }


def test_a_voice_of_another_model_is_not_read(tmp_path: Path, demo: Callable[..., Model], tiny: Model) -> None:
    write_voice(tmp_path / "voice.safetensors", demo().builtin_voice())
    assert read_voice(tmp_path / "voice.safetensors", "me", tiny.spec) is None


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_a_voice_that_is_not_whole_is_not_read(size: int, tmp_path: Path, demo: Callable[..., Model]) -> None:
    path = tmp_path / "voice.safetensors"
    write_voice(path, demo().builtin_voice())
    path.write_bytes(path.read_bytes()[:size])
    assert read_voice(path, "me", demo().spec) is None


def test_a_voice_that_is_not_there_is_not_read(tmp_path: Path, demo: Callable[..., Model]) -> None:
    assert read_voice(tmp_path / "voice.safetensors", "me", demo().spec) is None


def test_a_file_of_other_tensors_is_not_read(tmp_path: Path, demo: Callable[..., Model]) -> None:
    save_file({"speaker": torch.zeros(1, 64)}, tmp_path / "voice.safetensors")
    assert read_voice(tmp_path / "voice.safetensors", "me", demo().spec) is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, demo: Callable[..., Model]) -> None:
    write_voice(tmp_path / "missing" / "voice.safetensors", demo().builtin_voice())
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_are_views_are_written_whole(tmp_path: Path, demo: Callable[..., Model]) -> None:
    model = demo()
    voice = model.builtin_voice()
    turned: Tensor = voice.prompt_mel.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    write_voice(tmp_path / "voice.safetensors", replace(voice, prompt_mel=turned))
    read = read_voice(tmp_path / "voice.safetensors", "me", model.spec)
    assert read is not None
    assert same(read, voice)
