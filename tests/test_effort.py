"""Effort: what it sets, what is over it, and that best is the model as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from benchmarks import effort as measured
from benchmarks import effort_table, effort_worker, quality_worker, recognition
from chatterbox_nb import manager, settings
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine import effort
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.errors import SettingError
from chatterbox_nb.events import Progress
from chatterbox_nb.settings import BY_NAME
from chatterbox_nb.take import SpeechRequest

FEW_STEPS: ModelSpec = replace(ENGLISH, s3gen=replace(ENGLISH.s3gen, cfm_steps=2))


# The table


def test_the_efforts_that_can_be_chosen_are_the_rows_of_the_table() -> None:
    assert tuple(effort.EFFORTS) == settings.EFFORTS == BY_NAME["effort"].choices


def test_best_is_the_default_and_says_nothing() -> None:
    assert BY_NAME["effort"].default == "best"
    assert effort.EFFORTS["best"] == {}


@pytest.mark.parametrize("name", settings.EFFORTS)
def test_a_row_sets_options_of_a_request_within_their_range(name: str) -> None:
    for option, value in effort.EFFORTS[name].items():
        assert option in {field.name for field in fields(SpeechRequest)}
        assert settings.check(BY_NAME[option], value, "") == value


def test_each_effort_is_less_work_than_the_one_before() -> None:
    steps, seconds = zip(
        *((found["cfm_steps"], found.get("voice_seconds") or 10.0) for found in map(_of_english, settings.EFFORTS)),
        strict=True,
    )
    assert list(steps) == sorted(set(steps), reverse=True)
    assert list(seconds) == sorted(set(seconds), reverse=True)


def _of_english(name: str) -> dict[str, Any]:
    return effort.defaults(name, ENGLISH)


def test_no_effort_asks_for_more_steps_than_the_models_own() -> None:
    assert [effort.defaults(name, FEW_STEPS)["cfm_steps"] for name in settings.EFFORTS] == [2, 2, 2]


def test_a_models_own_defaults_stay() -> None:
    spec = replace(ENGLISH, defaults={"temperature": 0.5})
    assert all(effort.defaults(name, spec)["temperature"] == 0.5 for name in settings.EFFORTS)


@pytest.mark.parametrize("name", settings.EFFORTS)
def test_an_effort_is_known_by_what_it_sets(name: str) -> None:
    found = _of_english(name)
    assert effort.of(found["cfm_steps"], found.get("voice_seconds"), ENGLISH) == name


def test_what_no_effort_sets_is_none() -> None:
    assert effort.of(7, None, ENGLISH) is None
    assert effort.of(None, 1.25, ENGLISH) is None
    assert effort.of(None, None, ENGLISH) == "best"


# Speaking


def asked(**options: Any) -> tuple[int | None, float | None]:
    """Steps and seconds of a take's request."""
    request = tts.speak(OTHER_SENTENCE, seed=1, **options).request
    return request.cfm_steps, request.voice_seconds


@pytest.mark.parametrize("name", settings.EFFORTS)
@pytest.mark.usefixtures("loaded")
def test_a_request_holds_what_an_effort_came_to(name: str) -> None:
    row = effort.EFFORTS[name]
    assert asked(effort=name) == (row.get("cfm_steps", 10), row.get("voice_seconds"))


@pytest.mark.usefixtures("loaded")
def test_what_is_said_is_over_the_effort_wherever_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    row = effort.EFFORTS["fast"]
    assert asked(effort="fast", cfm_steps=7) == (7, row["voice_seconds"])
    assert asked(effort="fast", voice_seconds=1.5) == (row["cfm_steps"], 1.5)
    monkeypatch.setenv("CHATTERBOX_NB_EFFORT", "fast")
    assert asked() == (row["cfm_steps"], row["voice_seconds"])
    assert asked(effort="best") == (10, None)
    monkeypatch.setenv("CFM_STEPS", "8")
    settings.configure("voice_seconds", 2)
    assert asked() == asked(effort="balanced") == (8, 2.0)
    assert asked(cfm_steps=1, voice_seconds=60) == (1, 60.0)


@pytest.mark.usefixtures("loaded")
def test_best_is_what_the_engine_says_without_options() -> None:
    model = manager.get().loaded()
    take = tts.speak(SENTENCE, seed=7, temperature=0.8)
    with torch.inference_mode():
        (chunk,) = Speaker(model, model.builtin_voice(), Sampling(), 0.5, StageNoise(7), [take.chunks[0].text])
    assert np.array_equal(take.samples, chunk.samples)
    again = tts.speak(SENTENCE, seed=7, temperature=0.8, effort="best", cfm_steps=10, voice_seconds=10)
    assert np.array_equal(take.samples, again.samples)


@pytest.mark.usefixtures("loaded")
def test_less_effort_says_the_same_tokens_otherwise() -> None:
    best = tts.speak(SENTENCE, seed=7)
    for options in ({"cfm_steps": 2}, {"voice_seconds": 0.5}):
        other = tts.speak(SENTENCE, seed=7, **options)
        assert [chunk.tokens for chunk in other.chunks] == [chunk.tokens for chunk in best.chunks]
        assert len(other) == len(best)
        assert not np.array_equal(other.samples, best.samples)


@pytest.mark.usefixtures("loaded")
def test_the_flow_takes_the_steps_that_were_asked_for() -> None:
    events: list[Progress] = []
    tts.speak(OTHER_SENTENCE, seed=1, cfm_steps=3, observer=events.append)
    assert [(event.done, event.total) for event in events if event.stage == "mel"] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("loaded")
def test_a_request_is_said_again_whatever_is_set_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    take = tts.speak(OTHER_SENTENCE, seed=3, cfm_steps=3, voice_seconds=1)
    assert take.request.options()["cfm_steps"] == 3
    assert take.request.options()["voice_seconds"] == 1.0
    monkeypatch.setenv("CHATTERBOX_NB_EFFORT", "balanced")
    assert np.array_equal(tts.speak(take.request).samples, take.samples)


@pytest.mark.usefixtures("loaded")
def test_a_take_keeps_the_whole_voice() -> None:
    voice = manager.get().loaded().builtin_voice()
    kept = tts.speak(OTHER_SENTENCE, seed=3, voice_seconds=0.5).request.voice
    assert kept is not None
    assert torch.equal(kept.prompt_tokens, voice.prompt_tokens)
    assert torch.equal(kept.prompt_mel, voice.prompt_mel)


@pytest.mark.usefixtures("loaded")
def test_a_stream_takes_them_too() -> None:
    (piece,) = tts.stream(OTHER_SENTENCE, seed=3, effort="fast")
    assert np.array_equal(piece.samples, tts.speak(OTHER_SENTENCE, seed=3, effort="fast").samples)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"effort": "fsat"}, r"effort=fsat is not an effort; choose best, balanced, fast\. Did you mean fast\?"),
        ({"cfm_steps": 0}, r"cfm_steps=0 is out of range; cfm_steps goes from 1 to 100\."),
        ({"cfm_steps": 101}, r"cfm_steps=101 is out of range"),
        ({"cfm_steps": 2.5}, r"cfm_steps=2.5 must be a whole number\."),
        ({"voice_seconds": 0.4}, r"voice_seconds=0.4 is out of range; voice_seconds goes from 0.5 to 60.0\."),
        ({"voice_seconds": "long"}, r"voice_seconds='long' must be a number\."),
        ({"efort": "fast"}, r"no option 'efort'; .* Did you mean effort\?"),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_what_cannot_be_is_refused_before_any_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        tts.speak("Hello.", **options)


# What is measured


def test_the_page_is_made_from_the_results() -> None:
    assert effort_table.PAGE.read_text(encoding="utf-8") == effort_table.page(effort_table.committed())


def test_what_was_measured_is_what_the_efforts_are() -> None:
    results = effort_table.committed()
    assert set(results["cells"]) == {cell.name for cell in measured.cells()}
    for voice in results["voices"]:
        assert results["efforts"][voice] == {name: cell.name for name, cell in measured.chosen(voice).items()}


def test_the_gate_is_passed() -> None:
    assert effort_table.failures(effort_table.committed()) == []


def test_words_lost_and_a_voice_that_is_another_fail() -> None:
    results = effort_table.committed()
    balanced = effort_table.cell(results, "balanced", "long")
    balanced["edits"] = [edits + 8 for edits in balanced["best"]]  # of 380 words
    assert "adds 2.1 points" in effort_table.failures(results)[0]
    balanced["edits"], balanced["cosine"] = balanced["best"], 0.9 * effort_table.cell(results, "best", "long")["cosine"]
    assert "0.900 of best's cosine" in effort_table.failures(results)[0]
    balanced["mel"] = 0.06
    assert "0.060 of mel from best" in effort_table.failures(results)[1]


@pytest.mark.skipif(not recognition.INSTALLED, reason="pocketsphinx is not installed")
def test_speech_that_starts_from_the_same_noise_stays_near(tmp_path: Any) -> None:
    """A cell is compared with best frame by frame, however much of the reference it keeps."""
    model, (first, *_) = quality_worker.loaded(quality_worker.FP32), quality_worker.sentences()
    tokens = quality_worker.drawn(model, 0, [first])
    effort_worker.keep_best("builtin", tokens, tmp_path)
    best = torch.load(effort_worker.best_mels(tmp_path, "builtin"), weights_only=True)
    near, far = (
        effort_worker.mels(cell, 0, tokens)
        for cell in (
            effort_worker.Cell("builtin", 10, 1.0),
            effort_worker.Cell("builtin", 10, other_noise=True),
        )
    )
    assert near[0].shape == best[0].shape
    assert float((near[0] - best[0]).abs().mean()) < 0.5 * float((far[0] - best[0]).abs().mean())
