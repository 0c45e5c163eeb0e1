"""Panels on a real kernel: what they show is the manager's state, whoever changed it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import OTHER_SENTENCE, SENTENCE
from panels import Opened, buttons, opened, spoken, until, words
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine.effort import EFFORTS
from chatterbox_nb.errors import ArgumentError
from chatterbox_nb.notebook.panels import pump
from chatterbox_nb.render.units import part, size

pytestmark = pytest.mark.usefixtures("nothing_open")
LONG = "\n\n".join([SENTENCE, OTHER_SENTENCE] * 12)


@pytest.fixture
def unloaded() -> None:
    manager.get().unload().wait()


# Opening


def test_a_panel_has_four_parts_and_each_can_be_had_alone(kernel: Kernel) -> None:
    assert opened(kernel).board.names == ("precision", "speak", "takes", "memory")
    assert opened(kernel, "memory").board.names == ("memory",)
    assert opened(kernel, "takes", "speak").board.names == ("speak", "takes")


def test_a_part_that_is_not_there_is_refused(kernel: Kernel) -> None:
    with pytest.raises(ArgumentError, match=r"no panel 'memry'; there are precision, .*Did you mean memory\?"):
        tts.panel("memry")
    assert "Did you mean speak?" in str(kernel.run("%tts_panel speek").error)


def test_the_magic_opens_one_and_completes_the_names_of_its_parts(kernel: Kernel) -> None:
    reply = kernel.ok("%tts_panel takes memory")
    assert not reply.results
    assert [board.names for board in pump.get().boards()] == [("takes", "memory")]
    offered = kernel.complete("%tts_panel takes ")
    assert {"precision", "speak", "memory"} <= set(offered)
    assert "takes" not in offered


def test_what_is_displayed_is_a_picture_and_the_live_panel(kernel: Kernel) -> None:
    picture, live = kernel.ok("%tts_panel").displays
    assert "Chatterbox panel" in picture["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in live
    assert live["text/html"] == live["text/plain"] == ""


def test_a_closed_panel_says_so(kernel: Kernel) -> None:
    opened(kernel)
    (shown,) = kernel.ok("panel.close(); panel.close(); panel").displays
    assert shown["text/plain"] == "This panel is closed. Open another: tts.panel(), or %tts_panel"
    assert repr(kernel["panel"]).endswith("closed)")
    assert not pump.get().boards()


def test_opening_one_loads_nothing(kernel: Kernel, unloaded: None) -> None:
    panel = opened(kernel)
    assert manager.get().model is None
    assert words(panel.precision.loaded) == "No model is loaded."
    assert "No model is loaded. Load one" in words(panel.speak.status)
    assert panel.speak.speak.disabled
    assert panel.precision.unload.disabled


# Precision


def test_every_choice_shows_its_bytes_before_it_is_loaded(kernel: Kernel, unloaded: None) -> None:
    panel = opened(kernel, "precision")
    told = words(panel.precision.choices)
    for choice in manager.get().outlook("demo").choices:
        assert f"{choice.precision} {size(choice.bytes)} {part(choice.of_shipped)}" in told
    assert "auto is int8: on a CPU int8 is the smallest" in told
    panel.precision.model.value = "english"
    until(lambda: "fp32 2.66 GB 83.4 %" in words(panel.precision.choices))
    (small,) = (choice for choice in manager.get().outlook("english").choices if choice.precision == "int8")
    assert f"int8 {size(small.bytes)} {part(small.of_shipped)}" in words(panel.precision.choices)


def test_a_choice_that_does_not_fit_says_so_before_it_is_tried(
    kernel: Kernel, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from chatterbox_nb.precision import device

    facts = replace(device.facts("cpu"), free_bytes=10_000_000)
    monkeypatch.setattr(device, "facts", lambda name: facts)
    told = words(opened(kernel, "precision").precision.choices)
    assert "fp32 29.8 MB 93.7 % does not fit, 19.8 MB too much" in told
    assert "10.0 MB free for it" in told


def test_loading_shows_the_measured_bytes_and_ratios(kernel: Kernel, unloaded: None) -> None:
    panel = opened(kernel)
    panel.precision.precision.value = "fp16"
    panel.precision.load.click()
    until(lambda: "fp16 on cpu" in words(panel.precision.loaded))
    report = manager.get().loaded().report
    told = words(panel.precision.loaded)
    assert f"at fp16 on cpu: {size(report.bytes)}" in told
    for name, count in report.bytes_by_component.items():
        assert not count or f"{name} {size(count)}" in told
    for ratio in report.ratios.values():
        assert part(ratio) in told
    until(lambda: panel.precision.load.description == "Switch" and not panel.precision.load.disabled)
    assert "fp16 15.7 MB 49.3 % loaded" in words(panel.precision.choices)
    assert "demo at fp16" in words(panel.memory.figures)


def test_a_magic_updates_every_open_panel_and_two_panels_agree(kernel: Kernel, unloaded: None) -> None:
    one, two = opened(kernel), opened(kernel, "precision")
    kernel.ok("%tts_load demo --precision bf16")
    until(lambda: "bf16 on cpu" in words(one.precision.loaded))
    until(lambda: one.precision.loaded.value == two.precision.loaded.value)
    assert one.precision.precision.value == two.precision.precision.value == "bf16"
    two.precision.unload.click()
    until(lambda: words(one.precision.loaded) == words(two.precision.loaded) == "No model is loaded.")
    assert manager.get().model is None


def test_one_that_is_opened_later_shows_the_truth(kernel: Kernel) -> None:
    kernel.ok("import chatterbox_nb as tts\n%tts_load demo --precision int8\ntake = tts.speak('Hello there.', seed=5)")
    panel = opened(kernel)
    until(lambda: panel.takes.list.children)
    assert "int8 on cpu" in words(panel.precision.loaded)
    assert "seed 5" in words(panel.takes.list.children[0].children[0])
    assert panel.precision.precision.value == "int8"


def test_what_fails_stands_where_the_person_looks(kernel: Kernel, unloaded: None) -> None:
    panel = opened(kernel, "precision")
    panel.precision.source.value = "/nowhere/at/all"
    panel.precision.load.click()
    until(lambda: panel.precision.notice.value)
    assert "/nowhere/at/all" in words(panel.precision.notice)
    assert 'role="alert"' in panel.precision.notice.value
    panel.precision.source.value = ""
    panel.precision.load.click()
    until(lambda: "int8 on cpu" in words(panel.precision.loaded))
    until(lambda: not panel.precision.notice.value)


def test_progress_and_who_keeps_the_model_busy_are_shown(kernel: Kernel, loaded: manager.Manager) -> None:
    panel = opened(kernel)
    gate = threading.Event()
    shared = manager.get()
    shared.submit("speaking", lambda job: gate.wait(30), kind="take")
    shared.submit("something else", lambda job: None)
    until(lambda: "The model is speaking." in words(panel.precision.status))
    assert "1 more waiting." in words(panel.precision.status)
    until(lambda: panel.speak.speak.disabled and panel.precision.load.disabled)
    assert not panel.speak.stop.disabled
    gate.set()
    until(lambda: not panel.precision.status.value and not panel.speak.speak.disabled)


# Speak


def test_speaking_uses_what_the_controls_say(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    speak.text.value, speak.seed.value = SENTENCE, " 7 "
    speak.options["exaggeration"].value = 0.7
    speak.options["cfg_weight"].value = 0.3
    speak.options["temperature"].value = 0.65
    speak.options["min_p"].value = 0.1
    speak.options["top_p"].value = 0.9
    speak.options["repetition_penalty"].value = 1.3
    speak.typed["max_chunk"].value = "60"
    speak.typed["voice_seconds"].value = " 1.5 "
    speak.effort.value = "fast"
    until(lambda: not speak.speak.disabled)
    speak.speak.click()
    spoken()
    request = tts.takes[0].request
    assert (request.text, request.seed, request.max_chunk) == (SENTENCE, 7, 60)
    assert (request.exaggeration, request.cfg_weight, request.temperature) == (0.7, 0.3, 0.65)
    assert (request.min_p, request.top_p, request.repetition_penalty) == (0.1, 0.9, 1.3)
    assert (request.cfm_steps, request.voice_seconds) == (EFFORTS["fast"]["cfm_steps"], 1.5)
    until(lambda: "<audio controls" in speak.player.value)


def test_effort_stands_at_the_setting(kernel: Kernel, unloaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(kernel, "speak").speak.effort.value == "best"
    monkeypatch.setenv("CHATTERBOX_NB_EFFORT", "balanced")
    assert opened(kernel, "speak").speak.effort.value == "balanced"
    monkeypatch.setenv("CHATTERBOX_NB_EFFORT", "some")
    assert opened(kernel, "speak").speak.effort.value == "best"


def test_a_number_of_steps_that_is_none_is_told(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    speak.text.value, speak.typed["cfm_steps"].value = SENTENCE, "few"
    until(lambda: not speak.speak.disabled)
    speak.speak.click()
    until(lambda: "cfm_steps='few' must be a whole number." in words(speak.notice))


def test_the_controls_stand_at_the_models_own_defaults_and_the_settings(
    kernel: Kernel, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAGGERATION", "1.25")
    monkeypatch.setenv("CFG_WEIGHT", "2.5")
    own = replace(catalog.spec("demo"), defaults={"temperature": 0.65})
    monkeypatch.setattr(catalog, "_demo", lambda: own)
    panel = opened(kernel)
    assert panel.speak.options["exaggeration"].value == 1.25
    assert panel.speak.options["cfg_weight"].value == panel.speak.options["cfg_weight"].max == 2.5
    assert panel.speak.options["temperature"].value == 0.8
    panel.precision.load.click()
    until(lambda: panel.speak.options["temperature"].value == 0.65)


def test_a_seed_of_ones_own_a_new_one_and_a_bad_one(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    speak.die.click()
    drawn = int(speak.seed.value)
    speak.die.click()
    assert int(speak.seed.value) != drawn
    speak.text.value, speak.seed.value = OTHER_SENTENCE, "seven"
    speak.speak.click()
    assert words(speak.notice) == ("The seed is a whole number, not 'seven'. Leave it empty for a new one each time.")
    speak.seed.value = ""
    speak.speak.click()
    assert not speak.notice.value
    spoken()


def test_the_voice_that_the_settings_name_stands_first_and_the_models_own_can_be_chosen(
    kernel: Kernel, loaded: manager.Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path)
    monkeypatch.setenv("VOICE_SAMPLE_PATH", str(tmp_path / "clip.wav"))
    speak = opened(kernel, "speak").speak
    assert speak.voice.value == str(tmp_path / "clip.wav")
    speak.text.value = OTHER_SENTENCE
    for count, (voice, name) in enumerate([(speak.voice.value, "clip.wav"), ("builtin", "builtin")], 1):
        speak.voice.value = voice
        speak.speak.click()
        spoken(count)
        assert tts.takes[0].request.options()["voice"] == name


def test_no_text_is_told_beside_the_button(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    speak.speak.click()
    assert "There is no text to speak." in words(speak.notice)


def test_stop_stops_and_keeps_what_was_finished(kernel: Kernel, loaded: manager.Manager) -> None:
    panel = opened(kernel)
    panel.speak.text.value = LONG
    panel.speak.speak.click()
    until(lambda: not panel.speak.stop.disabled and "chunk 3 of 24" in words(panel.speak.status))
    panel.speak.stop.click()
    until(lambda: "Stopped." in words(panel.speak.notice))
    assert "cbnb-done" in panel.speak.notice.value
    (take,) = tts.takes
    assert 2 <= len(take.chunks) < 24
    until(lambda: len(panel.takes.list.children) == 1)


def clip(folder: Path, seconds: float = 3.0) -> bytes:
    path = folder / "clip.wav"
    times = np.arange(int(seconds * 24_000)) / 24_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * times) * (1 + np.sin(2 * np.pi * 3 * times)), 24_000)
    return path.read_bytes()


def upload(widget: Any, name: str, content: bytes) -> None:
    """What a page sends, by the version of ipywidgets."""
    if isinstance(widget.value, dict):
        state = {"metadata": [{"name": name}], "data": [memoryview(content)], "_counter": widget._counter + 1}
    else:
        state = {"value": [{"name": name, "type": "audio/wav", "size": len(content), "content": memoryview(content),
                            "last_modified": 0}]}  # fmt: skip
    widget.set_state(state)


def test_an_uploaded_clip_becomes_a_voice_of_every_panel(
    kernel: Kernel, loaded: manager.Manager, tmp_path: Path
) -> None:
    one, two = opened(kernel), opened(kernel, "speak")
    upload(one.speak.upload, "my aunt (2).wav", clip(tmp_path))
    assert words(one.speak.notice) == "Kept as voice my aunt 2."
    until(lambda: one.speak.voice.value == "my aunt 2")
    assert tts.voices.list() == ["my aunt 2"]
    until(lambda: "my aunt 2" in two.speak.voice.options)
    assert two.speak.voice.value == "builtin"
    upload(one.speak.upload, "my aunt (2).wav", clip(tmp_path))
    assert tts.voices.list() == ["my aunt 2", "my aunt 2 2"]
    tts.voices.remove("my aunt 2 2")
    until(lambda: "my aunt 2 2" not in one.speak.voice.options)


def test_an_upload_that_is_no_sound_is_refused(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    upload(speak.upload, "letter.wav", b"Dear Sir,")
    assert "cbnb-error" in speak.notice.value
    assert not tts.voices.list()


def test_a_take_plays_once_and_not_again_when_the_page_is_opened_again(
    kernel: Kernel, loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak = opened(kernel, "speak").speak
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(speak.player.comm, "kernel", kernel._kernel, raising=False)  # this one has no page to send to
    monkeypatch.setattr(speak.player, "_send", lambda message, buffers=None: sent.append(message))
    speak.text.value = OTHER_SENTENCE
    speak.speak.click()
    until(lambda: speak.player.value)
    assert " autoplay" not in speak.player.value
    assert [" autoplay" in message["state"]["value"] for message in sent] == [True]
    sent.clear()
    speak.play.value = False
    speak.speak.click()
    spoken(2)
    until(lambda: sent)
    assert [" autoplay" in message["state"]["value"] for message in sent] == [False]


# Takes


@pytest.fixture
def panel_with_a_take(kernel: Kernel, loaded: manager.Manager) -> Opened:
    panel = opened(kernel)
    tts.speak(SENTENCE, seed=3, exaggeration=0.6)
    until(lambda: len(panel.takes.list.children) == 1)
    return panel


def test_a_take_shows_its_text_settings_and_figures(panel_with_a_take: Opened) -> None:
    shown = panel_with_a_take.takes.list.children[0].children[0]
    take = tts.takes[0]
    for expected in (
        SENTENCE, "seed 3", f"real-time factor {take.real_time_factor:.2f}", "exaggeration 0.6", "demo int8",
        f"{size(take.peak_bytes)} more memory at its peak",
    ):  # fmt: skip
        assert expected in words(shown)
    assert "<audio controls" in shown.value


def test_again_says_the_same(panel_with_a_take: Opened) -> None:
    again = buttons(panel_with_a_take)["Again"]
    until(lambda: not again.disabled)
    again.click()
    spoken(2)
    new, old = tts.takes
    assert np.array_equal(new.samples, old.samples)
    until(lambda: len(panel_with_a_take.takes.list.children) == 2)


def test_a_converted_clip_can_be_made_again_and_not_edited(kernel: Kernel, loaded: manager.Manager) -> None:
    panel = opened(kernel)
    tts.convert(DEMO_FOLDER / "second_voice.wav", seed=3, effort="fast")
    until(lambda: len(panel.takes.list.children) == 1)
    assert "second_voice.wav, in the voice of builtin" in words(panel.takes.list.children[0].children[0])
    assert "Edit" not in buttons(panel)
    until(lambda: not buttons(panel)["Again"].disabled)
    buttons(panel)["Again"].click()
    spoken(2)
    assert np.array_equal(tts.takes[0].samples, tts.takes[1].samples)


def test_saving_never_writes_over_a_file(
    panel_with_a_take: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel_with_a_take.takes.format.value = "flac"
    for _ in range(2):
        buttons(panel_with_a_take)["Save"].click()
    stem = "the-brown-spring-wants-the-orange-street-3"
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == [f"{stem}-2.flac", f"{stem}.flac"]
    assert f"Saved takes/{stem}-2.flac" in words(panel_with_a_take.takes.notice)
    assert len(soundfile.read(tmp_path / "takes" / f"{stem}.flac")[0]) == len(tts.takes[0])
    panel_with_a_take.takes.folder.value = f"takes/{stem}.flac/in-a-file"
    buttons(panel_with_a_take)["Save"].click()
    assert "cannot be written" in words(panel_with_a_take.takes.notice)


def test_a_deleted_take_is_gone_from_every_panel(kernel: Kernel, panel_with_a_take: Opened) -> None:
    other = opened(kernel, "takes")
    until(lambda: len(other.takes.list.children) == 1)
    buttons(panel_with_a_take)["Delete"].click()
    until(lambda: not other.takes.list.children and not panel_with_a_take.takes.list.children)
    assert not len(tts.takes)


def test_editing_puts_a_request_into_the_form(panel_with_a_take: Opened) -> None:
    buttons(panel_with_a_take)["Edit"].click()
    speak = panel_with_a_take.speak
    assert (speak.text.value, speak.seed.value, speak.options["exaggeration"].value) == (SENTENCE, "3", 0.6)
    assert speak.voice.value == "builtin"


def test_editing_finds_the_effort_or_the_numbers(kernel: Kernel, loaded: manager.Manager) -> None:
    speak = opened(kernel, "speak").speak
    until(lambda: not speak.speak.disabled)
    known = tts.speak(SENTENCE, seed=3, effort="balanced", max_chunk=60).request
    speak.fill(known)
    assert (speak.effort.value, [field.value for field in speak.typed.values()]) == ("balanced", ["60", "", ""])
    speak.fill(replace(known, cfm_steps=7, voice_seconds=1.5, max_chunk=None))
    assert (speak.effort.value, [field.value for field in speak.typed.values()]) == ("best", ["", "7", "1.5"])


def test_without_a_form_there_is_nothing_to_edit_in(kernel: Kernel, panel_with_a_take: Opened) -> None:
    alone = opened(kernel, "takes")
    until(lambda: len(alone.takes.list.children) == 1)
    assert "Edit" not in buttons(alone)


def test_what_fails_of_a_take_said_again_stands_beside_it(kernel: Kernel, panel_with_a_take: Opened) -> None:
    alone = opened(kernel, "takes")
    until(lambda: len(alone.takes.list.children) == 1)
    tts.unload()
    buttons(alone)["Again"].click()
    assert "No model is loaded." in words(alone.takes.notice)
    tts.load("demo", "int8")
    with pytest.raises(tts.TTSError):
        tts.speak(SENTENCE, voice="nobody")
    until(lambda: "There is no voice 'nobody'" in words(alone.takes.notice))


def test_rows_of_takes_that_are_gone_are_closed(panel_with_a_take: Opened) -> None:
    row = panel_with_a_take.takes.list.children[0]
    parts = [*row.children, *row.children[1].children]
    tts.takes.clear()
    until(lambda: not panel_with_a_take.takes.list.children)
    until(lambda: all(widget.comm is None for widget in (row, *parts)))


# What goes wrong


def test_a_bug_in_a_callback_stands_in_the_panel_and_is_not_printed(
    kernel: Kernel, loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    panel = opened(kernel, "speak")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("chatterbox_nb.speech.submit", fail)
    panel.speak.speak.click()
    assert "Unexpected RuntimeError at test_panels.py:" in words(panel.speak.notice)
    assert "a bug. This is a bug." in words(panel.speak.notice)
    assert capfd.readouterr() == ("", "")


def test_a_bug_in_drawing_stands_in_the_panel_and_the_others_go_on(
    kernel: Kernel, loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    panel = opened(kernel)

    def fail(*_: Any) -> str:
        raise ValueError("no such colour")

    monkeypatch.setattr("chatterbox_nb.render.panels.memory", fail)
    tts.speak(OTHER_SENTENCE, seed=1)
    until(lambda: "Unexpected ValueError" in words(panel.memory.notice))
    until(lambda: len(panel.takes.list.children) == 1)
    assert pump.get().running
    assert capfd.readouterr() == ("", "")
