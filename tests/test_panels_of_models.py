"""Panels with every model: its languages, its options and its own defaults, whoever loaded it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SENTENCE
from panels import Opened, buttons, opened, spoken, until, words
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.take import SpeechRequest

pytestmark = pytest.mark.usefixtures("nothing_open")
PLAIN = "--precision fp32 --kernel plain"  # of which nothing is compiled


def hidden(widget: Any) -> bool:
    return "cbnb-none" in widget._dom_classes


def follows(panel: Opened, model: str) -> Any:
    """The Speak panel, once it shows what a model has and can be used."""
    until(lambda: panel.speak._spec is not None and panel.speak._spec.name == model and not panel.speak.speak.disabled)
    return panel.speak


def says(speak: Any, text: str) -> SpeechRequest:
    """What the panel asks for."""
    tts.takes.clear()
    speak.text.value = text
    speak.speak.click()
    spoken()
    return tts.takes[0].request


def test_a_model_of_several_languages_has_them_to_choose_from(
    kernel: Kernel, multilingual_folder: Path, loaded: manager.Manager
) -> None:
    panel = opened(kernel, "speak")
    assert hidden(follows(panel, "demo").language)
    kernel.ok(f"%tts_load --source {multilingual_folder} {PLAIN}")
    speak = follows(panel, "tiny-multilingual")
    assert not hidden(speak.language)
    assert speak.language.options[:4] == (("English", "en"), ("Arabic", "ar"), ("Chinese", "zh"), ("Danish", "da"))
    assert len(speak.language.options) == 23
    assert says(speak, "Hello.").language == "en"
    speak.language.value = "fr"
    assert says(speak, "Où est la rue ?").language == "fr"
    kernel.ok("%tts_load demo --precision int8")
    assert hidden(follows(panel, "demo").language)
    assert says(speak, SENTENCE).language == "en"
    kernel.ok(f"%tts_load --source {multilingual_folder} {PLAIN}")
    assert follows(panel, "tiny-multilingual").language.value == "fr"


def test_the_language_of_the_settings_stands_first_and_another_of_a_take_is_put_back(
    kernel: Kernel, multilingual_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTERBOX_NB_LANGUAGE", "Swedish")
    tts.load(source=multilingual_folder, precision="fp32", kernel="plain")
    panel = opened(kernel, "speak", "takes")
    speak = follows(panel, "tiny-multilingual")
    assert (speak.language.value, speak.language.options[0]) == ("sv", ("Swedish", "sv"))
    french = tts.speak("Table.", seed=1, language="fr", cfg_weight=2.5).request
    until(lambda: panel.takes.list.children)
    buttons(panel)["Edit"].click()
    assert (speak.language.value, speak.options["cfg_weight"].value) == ("fr", 2.5)
    assert says(speak, "Table.") == french
    speak.fill(replace(french, language=None))
    assert speak.language.value == "sv"
    monkeypatch.setenv("CHATTERBOX_NB_LANGUAGE", "Klingon")  # told where it is used
    assert follows(opened(kernel, "speak"), "tiny-multilingual").language.value == "en"


def test_a_take_in_a_language_that_the_model_does_not_speak_is_told_when_it_is_edited(
    kernel: Kernel, loaded: manager.Manager
) -> None:
    speak = follows(opened(kernel, "speak"), "demo")
    speak.fill(SpeechRequest("Où est la rue ?", 1, language="fr"))
    assert words(speak.notice) == "demo does not speak French, which this was said in."


def test_what_a_model_ignores_is_not_shown_and_not_sent(
    kernel: Kernel, turbo_folder: Path, loaded: manager.Manager
) -> None:
    panel = opened(kernel, "speak")
    speak = follows(panel, "demo")
    assert [name for name, control in speak.options.items() if hidden(control)] == []
    speak.options["exaggeration"].value = 0.7
    kernel.ok(f"%tts_load --source {turbo_folder} {PLAIN}")
    follows(panel, "tiny-turbo")
    ignored = ["exaggeration", "cfg_weight", "min_p"]
    assert [name for name, control in speak.options.items() if hidden(control)] == ignored
    assert (speak.options["top_k"].value, speak.options["top_p"].value) == (1000, 0.95)
    speak.options["top_k"].value = 40
    request = says(speak, SENTENCE)
    assert (request.exaggeration, request.cfg_weight, request.min_p, request.top_k) == (0.0, 0.0, 0.0, 40)
    assert not [told for told in tts.takes[0].warnings if "ignored" in told]
    kernel.ok("%tts_load demo --precision int8")
    assert follows(panel, "demo").options["cfg_weight"].value == 0.5
    assert says(speak, SENTENCE).exaggeration == 0.7


def test_fields_that_are_empty_say_what_they_then_are(
    kernel: Kernel, loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak = follows(opened(kernel, "speak"), "demo")
    said = {name: field.placeholder for name, field in speak.typed.items()}
    assert said == {"max_chunk": "120 characters", "cfm_steps": "10 steps", "voice_seconds": "all of the voice"}
    speak.effort.value = "fast"
    until(lambda: speak.typed["cfm_steps"].placeholder == "4 steps")
    assert speak.typed["voice_seconds"].placeholder == "the last 3 s of the voice"


def test_every_model_can_be_picked_and_one_of_the_same_sizes_is_not_looked_at_again(
    kernel: Kernel, loaded: manager.Manager
) -> None:
    precision = opened(kernel, "precision").precision
    assert tuple(precision.model.options) == catalog.names()
    manager.get().look("multilingual-v3").wait()
    gate = threading.Event()
    manager.get().submit("speaking", lambda job: gate.wait(30), kind="take")  # so that a look would have to wait
    for pack in catalog.PACKS:
        precision.model.value = pack.name
        until(lambda title=pack.title: title in words(precision.choices))
    gate.set()
