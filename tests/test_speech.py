"""Speaking: takes, chunks, streams, options, and what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.errors import Cancelled, SettingError, TextError, VoiceError
from chatterbox_nb.events import Progress
from chatterbox_nb.take import Take

pytestmark = pytest.mark.usefixtures("loaded")
TWO = f"{SENTENCE} {OTHER_SENTENCE}"


def test_a_take_remembers_how_it_was_made() -> None:
    take = tts.speak(SENTENCE, seed=7, temperature=0.6)
    assert take.request.text == SENTENCE
    assert (take.request.seed, take.request.temperature, take.request.exaggeration) == (7, 0.6, 0.5)
    assert (take.model, take.precision, take.device, take.finish) == ("demo", "int8", "cpu", "stop")
    assert take.sample_rate == 24_000
    assert len(take) == take.tokens * 960
    assert set(take.seconds) == {"tokens", "mel", "wave", "watermark"}
    assert take.weights == manager.get().loaded().report.weights


def test_a_request_is_spoken_again_bit_for_bit() -> None:
    take = tts.speak(TWO, seed=3, voice=DEMO_FOLDER / "builtin_voice.wav", exaggeration=0.8)
    assert np.array_equal(tts.speak(take.request).samples, take.samples)


def test_without_a_seed_one_is_drawn_and_remembered() -> None:
    first, second = tts.speak("Hello."), tts.speak("Hello.")
    assert first.request.seed != second.request.seed
    assert np.array_equal(tts.speak("Hello.", seed=first.request.seed).samples, first.samples)


def test_the_models_own_default_is_used_and_the_environment_overrides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = manager.get().loaded()
    monkeypatch.setattr(model, "spec", replace(model.spec, defaults={"temperature": 0.5}))
    assert tts.speak("Hello.", seed=1).request.temperature == 0.5
    monkeypatch.setenv("TEMPERATURE", "0.7")
    assert tts.speak("Hello.", seed=1).request.temperature == 0.7
    assert tts.speak("Hello.", seed=1, temperature=0.9).request.temperature == 0.9


def test_long_text_is_spoken_in_chunks_with_pauses() -> None:
    take = tts.speak(f"{SENTENCE}\n\n{OTHER_SENTENCE}", seed=1)
    assert [chunk.text for chunk in take.chunks] == [SENTENCE.lower(), OTHER_SENTENCE.lower()]
    first, second = take.chunks
    assert first.start_seconds == 0.0
    assert second.start_seconds == pytest.approx(len(first.tokens) / 25 + 0.5, abs=1e-4)
    pause = take.samples[round((second.start_seconds - 0.49) * 24_000) : round((second.start_seconds - 0.01) * 24_000)]
    assert not pause.any()


def test_a_stream_gives_each_chunk_and_together_they_are_the_take() -> None:
    pieces = list(tts.stream(TWO, seed=5, max_chunk=60))
    whole = tts.speak(TWO, seed=5, max_chunk=60)
    assert [piece.chunks[0].text for piece in pieces] == [chunk.text for chunk in whole.chunks]
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), whole.samples)


def test_a_stream_that_is_left_early_stops_the_work() -> None:
    stream = tts.stream(" ".join([SENTENCE] * 12), seed=5)
    next(stream)
    stream.close()
    take = tts.speak("Hello.", seed=1)  # waits for the thread to be free again
    assert take.finish == "stop"


def test_a_stream_that_fails_raises_where_it_is_read() -> None:
    with pytest.raises(VoiceError):
        list(tts.stream("Hello.", voice="nobody.wav"))


def test_characters_the_model_cannot_say_are_named() -> None:
    take = tts.speak("Hello 🎉 my ñ friend.", seed=1)
    assert any("🎉" in warning and "skipped" in warning for warning in take.warnings)
    assert not tts.speak("Hello my friend.", seed=1).warnings


def test_the_demo_reads_numbers_and_capitals() -> None:
    assert tts.speak("Room 21!", seed=1).chunks[0].text == "room twenty one!"


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "no text"), ("  \n ", "no text"), ("...!?", "no letter"), ("🎉🎉", "no letter"), ("你好", "can say nothing")],
)
def test_text_that_cannot_be_spoken_is_refused(text: str, says: str) -> None:
    with pytest.raises(TextError, match=says):
        tts.speak(text)


def test_text_is_text() -> None:
    with pytest.raises(TextError, match="not bytes"):
        tts.speak(b"Hello.")  # type: ignore[arg-type]


def test_too_long_a_text_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_TOTAL_LENGTH", "30")
    with pytest.raises(TextError, match=r"41 characters; MAX_TOTAL_LENGTH allows 30"):
        tts.speak(SENTENCE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"temperature": 9}, "goes from 0.0 to 5.0"),
        ({"cfg_weight": "much"}, "must be a number"),
        ({"top_p": 0.0}, "out of range"),
        ({"tempertaure": 1.0}, "Did you mean temperature"),
        ({"language": "fr"}, "it speaks en"),
        ({"max_chunk": 3}, "out of range"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_any_work(options: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        tts.speak("Hello.", **options)


def test_a_request_is_spoken_as_it_is_or_not_at_all() -> None:
    take = tts.speak("Hello.", seed=1)
    with pytest.raises(SettingError, match=r"dataclasses\.replace"):
        tts.speak(take.request, seed=2)


def test_an_unruly_take_ends_at_its_budget_and_says_so(tiny_folder: Path) -> None:
    """Random weights with the stop row switched off never end by themselves."""
    import torch

    tts.load(source=tiny_folder, precision="fp32")
    model = manager.get().loaded()
    with torch.inference_mode():
        model.t3.head.weight[model.spec.t3.stop_speech] = 0.0
        model.t3.head.weight[model.spec.t3.stop_speech, 0] = -10.0
    short = tts.speak("Hi.", seed=1)
    assert short.finish == "budget"
    assert short.tokens == model.spec.text.budget(len(model.text_ids("Hi.")))
    assert any("did not end by itself" in warning for warning in short.warnings)
    long = tts.speak(SENTENCE * 2, seed=1, max_chunk=90)
    assert long.finish == "limit"
    assert max(len(chunk.tokens) for chunk in long.chunks) <= model.spec.max_tokens
    tts.unload()


EVENTS: list[Progress] = []


def _events() -> list[Progress]:
    """Every progress event of one take."""
    if not EVENTS:
        tts.speak(TWO, seed=2, max_chunk=60, observer=EVENTS.append)
    return EVENTS


def test_progress_tells_stage_tokens_seconds_and_part() -> None:
    events = _events()
    assert list(dict.fromkeys(event.stage for event in events)) == [
        "tokens",
        "mel",
        "wave",
        "watermark",
        "spoken",
    ]
    tokens = [event for event in events if event.stage == "tokens" and event.chunk == 0]
    assert [event.done for event in tokens] == list(range(1, len(tokens) + 1))
    assert [event.done for event in events if event.stage == "mel" and event.chunk == 1] == list(range(1, 11))
    fractions = [event.fraction for event in events]
    assert all(later >= earlier for earlier, later in pairwise(fractions))  # type: ignore[operator]
    assert events[-1].fraction == 1.0
    assert all(event.audio_seconds > 0 for event in events[:-1])


@cache
def undisturbed(text: str, seed: int) -> Take:
    """As it is said before anything was cancelled."""
    return tts.speak(text, seed=seed, max_chunk=60)


# Which events: the first and last of every stage of both chunks, and a few tokens in between. Parametrized by rank, so
# that the test can be named before the events are known.
@pytest.mark.parametrize("rank", range(16))
def test_cancelling_at_any_event_keeps_what_is_finished_and_disturbs_nothing(rank: int) -> None:
    events = _events()[:-1]
    for text, seed in ((TWO, 2), ("Hello.", 9)):
        undisturbed(text, seed)
    edges = [
        index
        for index, event in enumerate(events)
        if index == 0
        or index == len(events) - 1
        or (event.stage, event.chunk) != (events[index - 1].stage, events[index - 1].chunk)
        or (event.stage, event.chunk) != (events[index + 1].stage, events[index + 1].chunk)
    ]
    chosen = [*edges, len(events) // 5, len(events) // 3, 2 * len(events) // 3, 4 * len(events) // 5][
        rank % (len(edges) + 4)
    ]
    token = tts.CancelToken()
    count = 0

    def stop(event: Progress) -> None:
        nonlocal count
        count += 1
        if count == chosen + 1:
            token.cancel()

    with pytest.raises(Cancelled) as stopped:
        tts.speak(TWO, seed=2, max_chunk=60, observer=stop, cancel=token)
    assert count == chosen + 1, "nothing is told after the cancel"
    finished = events[chosen].chunk
    if finished:
        kept = stopped.value.take
        assert kept is not None
        assert kept.finish == "cancelled"
        assert len(kept.chunks) == finished
        assert np.array_equal(kept.samples, undisturbed(TWO, 2).samples[: len(kept.samples)])
    else:
        assert stopped.value.take is None
    assert np.array_equal(tts.speak("Hello.", seed=9).samples, undisturbed("Hello.", 9).samples)
