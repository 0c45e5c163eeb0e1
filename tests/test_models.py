"""Every model as people use it: what it ignores, what it wants of a clip, what it says of a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chatterbox_nb as tts
from chatterbox_nb import manager, settings
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.engine import decode
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import CheckpointError, VoiceError

pytestmark = pytest.mark.xdist_group("models")
TEXT = "That was close [laugh], was it not?"


@pytest.fixture(scope="module")
def turbo_loaded(turbo_folder: Path) -> Iterator[None]:
    tts.load(source=turbo_folder, precision="fp32", kernel="plain")
    yield
    tts.unload()


@pytest.mark.usefixtures("turbo_loaded")
class TestTurbo:
    def test_its_own_options_are_its_defaults(self) -> None:
        request = tts.speak(TEXT, seed=1).request
        own = {"cfg_weight": 0.0, "exaggeration": 0.0, "min_p": 0.0, "top_p": 0.95, "top_k": 1000, "cfm_steps": 2}
        assert {name: getattr(request, name) for name in own} == own

    def test_what_it_ignores_is_said_once_and_changes_nothing(self) -> None:
        plain = tts.speak(TEXT, seed=1)
        asked = tts.speak(TEXT, seed=1, exaggeration=0.9, cfg_weight=0.7)
        assert plain.warnings == ()
        assert asked.warnings == ("tiny-turbo has no exaggeration, cfg_weight: what was asked of it is ignored.",)
        assert np.array_equal(plain.samples, asked.samples)
        assert asked.request == plain.request

    def test_a_setting_that_it_ignores_is_said_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXAGGERATION", "0.8")
        assert "has no exaggeration" in tts.speak(TEXT, seed=1).warnings[0]

    def test_a_request_of_another_model_is_spoken_as_it_can_be(self) -> None:
        request = tts.SpeechRequest(TEXT, seed=1, top_p=0.95, top_k=1000, cfm_steps=2)
        take = tts.speak(request)
        assert "has no exaggeration, cfg_weight, min_p" in take.warnings[0]
        assert np.array_equal(take.samples, tts.speak(TEXT, seed=1).samples)

    def test_a_voice_is_read_once_for_takes_in_a_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, read, real = manager.get().loaded(), [], decode.prefill
        monkeypatch.setattr(decode, "prefill", lambda *given: (read.append(given), real(*given))[1])
        other = replace(model.builtin_voice(), name="other", t3_prompt=model.builtin_voice().t3_prompt.flip(1))
        model.rest()
        first, again = tts.speak(TEXT, seed=1), tts.speak(TEXT, seed=1)
        assert len(read) == 1
        flipped, last = tts.speak(TEXT, voice=other, seed=1), tts.speak(TEXT, seed=1)
        assert len(read) == 3
        assert np.array_equal(first.samples, again.samples)
        assert np.array_equal(first.samples, last.samples)
        assert first.chunks[0].tokens != flipped.chunks[0].tokens
        model.rest()  # as after a failure
        tts.speak(TEXT, seed=1)
        assert len(read) == 4

    def test_what_it_does_not_ignore_is_heeded(self) -> None:
        likeliest, only = (
            tts.speak(TEXT, seed=1, repetition_penalty=1.0, **{name: value}).chunks[0].tokens
            for name, value in (("temperature", 0.0), ("top_k", 1))
        )
        assert likeliest == only != tts.speak(TEXT, seed=1, repetition_penalty=1.0).chunks[0].tokens

    def test_a_clip_that_is_too_short_is_refused_before_the_encoders_are_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Model, "read_encoders", lambda model: pytest.fail("work has begun"))
        with pytest.raises(VoiceError, match=r"0\.90 s long; a voice needs at least 1 s"):
            tts.speak(TEXT, voice=(0.1 * np.ones(int(0.9 * 24_000), np.float32), 24_000))


def test_turbo_and_nano_want_more_than_five_seconds() -> None:
    assert {catalog.spec(name).voice.min_seconds for name in ("turbo", "nano")} == {5.0}


@pytest.mark.usefixtures("loaded")
def test_a_model_with_guidance_ignores_nothing() -> None:
    take = tts.speak("The red bell.", seed=1, top_k=5, exaggeration=0.7, cfg_weight=0.3, min_p=0.1)
    assert take.warnings == ()
    assert take.request.top_k == 5


@pytest.mark.parametrize("name", catalog.names())
def test_what_a_model_ignores_are_options_and_the_rest_of_its_defaults_too(name: str) -> None:
    spec = catalog.spec(name)
    assert {*spec.ignores, *spec.defaults} <= settings.BY_NAME.keys()


def test_the_table_of_models_has_each_with_what_it_would_take() -> None:
    table = tts.models("cpu")
    assert [row.name for row in table] == list(catalog.names())
    for row in table:
        assert 0 < row.bytes["int8"] < row.bytes["fp16"] < row.bytes["fp32"] < row.shipped_bytes
        assert row.name in repr(table)
        assert row.name in (table._repr_html_() or "")
    assert table["nano"].bytes["int8"] <= 470_000_000
    assert table["turbo"].bytes["int8"] <= 620_000_000
    assert table["chatterbox"] is table["english"]
    assert len(table["multilingual"].languages) == 23
    with pytest.raises(CheckpointError, match="Did you mean turbo"):
        table["turbbo"]


def test_models_of_equal_sizes_are_looked_at_once() -> None:
    from chatterbox_nb.choices import _look

    spec = catalog.spec("multilingual-v3")
    assert _look(spec) is _look(replace(spec, name="another", repo="somebody/else"))
