"""Speaking in a language: which one is spoken, what the take remembers of it, and what it warns about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.errors import SettingError, TextError


@pytest.fixture(scope="module", autouse=True)
def several(multilingual_folder: Path) -> Iterator[None]:
    """The tiny multilingual checkpoint in the kernel's manager."""
    tts.load(source=multilingual_folder, precision="fp32")
    yield
    tts.unload()


def test_a_take_remembers_its_language() -> None:
    take = tts.speak("Où est la rue ?", seed=1, language="French")
    assert take.request.language == "fr"
    assert take.request.options()["language"] == "fr"
    assert json.loads(take.tags()["comment"])["language"] == "fr"
    assert np.array_equal(tts.speak(take.request).samples, take.samples)


def test_the_language_decides_what_is_spoken() -> None:
    french, german = (tts.speak("Table.", seed=1, language=code) for code in ("fr", "de"))
    assert french.chunks[0].tokens != german.chunks[0].tokens


def test_without_one_it_is_the_settings_then_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tts.speak("Hei.", seed=1).request.language == "en"
    monkeypatch.setenv("CHATTERBOX_NB_LANGUAGE", "Norwegian")
    assert tts.speak("Hei.", seed=1).request.language == "no"
    assert tts.speak("Hei.", seed=1, language="sv").request.language == "sv"


def test_a_request_of_before_there_were_languages_is_spoken_in_the_models_own() -> None:
    take = tts.speak("Hello.", seed=1, language="en")
    older = replace(take.request, language=None)
    assert np.array_equal(tts.speak(older).samples, take.samples)


def test_a_wrong_language_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"tiny-multilingual does not speak 'germn'; .* Did you mean German\?"):
        tts.speak("Hallo.", language="germn")
    with pytest.raises(SettingError, match="does not speak 'tlh'"):
        tts.speak(replace(tts.speak("Hello.", seed=1).request, language="tlh"))


def test_chunks_are_cut_as_the_language_writes() -> None:
    """100 characters of English are 35 of Chinese."""
    take = tts.speak("今天明天日月水火。" * 8, seed=1, language="zh")
    assert [len(chunk.text) for chunk in take.chunks] == [27, 27, 18]


def test_what_the_language_lacks_here_and_what_was_skipped_is_in_the_warnings() -> None:
    take = tts.speak("שלום 😀 [laugh]", seed=1, language="he")
    told = "\n".join(take.warnings)
    assert "%pip install dicta-onnx" in told
    assert "cannot say these characters, they were skipped: 😀" in told
    assert "tiny-multilingual has no tags: [laugh] is read as text." in told


def test_a_script_that_a_language_does_not_read_is_refused() -> None:
    with pytest.raises(TextError, match="can say nothing of"):
        tts.speak("東京", language="en")


def test_a_runaway_chinese_chunk_ends_sooner_than_an_english_one_of_as_many_text_tokens() -> None:
    model = manager.get().loaded()
    assert model.rules("zh").budget(100) < model.rules("en").budget(100)


def test_a_model_of_one_language_takes_its_own_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is for models that have several."""
    monkeypatch.setenv("CHATTERBOX_NB_LANGUAGE", "fr")
    model = manager.get().loaded()
    monkeypatch.setattr(model, "spec", replace(model.spec, languages=("en",)))
    assert tts.speak(SENTENCE, seed=1).request.language == "en"
    assert tts.speak(SENTENCE, seed=1, language="english").request.language == "en"
    with pytest.raises(SettingError, match=r"it speaks en \(English\)"):
        tts.speak(SENTENCE, language="fr")
