"""The voice library, and the ways to name a voice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import chatterbox_nb as tts
from chatterbox_nb import library, manager
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine import conditioning
from chatterbox_nb.errors import VoiceError
from chatterbox_nb.library import voices

pytestmark = pytest.mark.usefixtures("loaded")
CLIP = DEMO_FOLDER / "builtin_voice.wav"


@pytest.fixture(autouse=True)
def forget_prepared() -> None:
    library._prepared.clear()


def test_a_clip_is_kept_under_a_name_and_spoken_with() -> None:
    assert voices.list() == []
    voices.add("grand ma", CLIP)
    assert voices.list() == list(voices) == ["grand ma"]
    assert "grand ma" in voices
    named = tts.speak("Hello.", voice="grand ma", seed=1)
    assert named.request.voice is not None
    assert named.request.voice.name == "grand ma"
    assert np.array_equal(named.samples, tts.speak("Hello.", voice=CLIP, seed=1).samples)


def test_a_voice_can_be_taken_out_as_a_voice() -> None:
    voices.add("anna", CLIP)
    voice = voices["anna"]
    assert voice.speaker.shape == (1, 64)
    assert np.array_equal(tts.speak("Hi.", voice=voice, seed=1).samples, tts.speak("Hi.", voice="anna", seed=1).samples)


def test_it_is_prepared_once_and_read_from_disk_in_the_next_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    voices.add("anna", CLIP)
    first = tts.speak("Hi.", voice="anna", seed=1)
    library._prepared.clear()  # a new kernel
    monkeypatch.setattr(conditioning, "prepare", lambda *a, **k: pytest.fail("prepared again"))
    assert np.array_equal(tts.speak("Hi.", voice="anna", seed=1).samples, first.samples)


def test_a_damaged_prepared_file_is_made_anew() -> None:
    voices.add("anna", CLIP)
    first = tts.speak("Hi.", voice="anna", seed=1)
    (prepared,) = voices.folder.glob("anna.*.safetensors")
    prepared.write_bytes(prepared.read_bytes()[:100])
    library._prepared.clear()
    assert np.array_equal(tts.speak("Hi.", voice="anna", seed=1).samples, first.samples)
    assert len(prepared.read_bytes()) > 100


def test_another_clip_under_the_same_name_is_another_voice() -> None:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    voices.add("anna", CLIP)
    first = tts.speak("Hi.", voice="anna", seed=1)
    voices.add("anna", (samples[::-1].copy(), rate))
    assert voices.list() == ["anna"]
    assert not np.array_equal(tts.speak("Hi.", voice="anna", seed=1).tokens, first.samples)
    assert tts.speak("Hi.", voice="anna", seed=1).request.voice is not None


def test_remove_forgets_the_clip_and_what_was_made_of_it() -> None:
    voices.add("anna", CLIP)
    tts.speak("Hi.", voice="anna", seed=1)
    voices.remove("anna")
    assert list(voices.folder.iterdir()) == []
    with pytest.raises(VoiceError, match="There is no voice 'anna'"):
        voices.remove("anna")


def test_an_unknown_name_lists_those_there_are() -> None:
    voices.add("anna", CLIP)
    with pytest.raises(VoiceError, match=r"there are anna\. Did you mean anna\?"):
        tts.speak("Hi.", voice="ana")


@pytest.mark.parametrize("name", ["", "builtin", "a/b", "../up", "x" * 65, ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(VoiceError, match="cannot name a voice"):
        voices.add(name, CLIP)


def test_an_array_is_a_voice() -> None:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    array = tts.speak("Hi.", voice=(samples, rate), seed=1)
    assert np.array_equal(array.samples, tts.speak("Hi.", voice=CLIP, seed=1).samples)


def test_the_builtin_voice_has_a_name() -> None:
    assert np.array_equal(tts.speak("Hi.", voice="builtin", seed=1).samples, tts.speak("Hi.", seed=1).samples)


def test_the_environment_names_a_default_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SAMPLE_PATH", str(CLIP))
    take = tts.speak("Hi.", seed=1)
    assert take.request.voice is not None
    assert take.request.voice.name == CLIP.name


@pytest.mark.parametrize(
    ("voice", "says"),
    [
        (5, "not int"),
        ("missing.wav", "no file"),
        (Path("missing"), "no file"),
        ("n" * 300, "no voice"),
        ("n" * 300 + ".wav", "no file"),
        ((np.zeros(24_000, np.float32), 24_000), "silent"),
        ((np.ones(2_400, np.float32) * 0.1, 24_000), "0.10 s long; a voice needs at least 0.5 s"),
        (DEMO_FOLDER / "tokenizer.json", "cannot be read as audio"),
        (DEMO_FOLDER, "is a folder"),
    ],
)
def test_what_is_no_voice_is_refused(voice: object, says: str) -> None:
    with pytest.raises(VoiceError, match=says):
        tts.speak("Hi.", voice=voice)


def test_a_short_clip_is_used_and_warned_about() -> None:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    take = tts.speak("Hi.", voice=(samples[: int(0.8 * rate)], rate), seed=1)
    assert any("only 0.8 s long" in warning for warning in take.warnings)


def test_a_voice_of_another_model_is_refused(tiny_folder: Path) -> None:
    voice = manager.get().loaded().builtin_voice()
    tts.load(source=tiny_folder, precision="fp32")
    with pytest.raises(VoiceError, match="prepared for another model"):
        tts.speak("Hi.", voice=voice)


def test_a_take_never_changes_its_voice() -> None:
    voices.add("anna", CLIP)
    voice = voices["anna"]
    before = {name: tensor.clone() for name, tensor in voice.tensors().items()}
    tts.speak("Hello there.", voice=voice, seed=1, exaggeration=1.2)
    assert all(torch.equal(before[name], tensor) for name, tensor in voice.tensors().items())
