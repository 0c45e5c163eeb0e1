"""Segments of a chunk: the same tokens and length as in one piece, sooner, each marked, and joined without a click."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from benchmarks import streaming_table, streaming_worker
from chatterbox_nb.engine import flow, segments
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker, SpokenChunk
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.engine.segments import Segments
from chatterbox_nb.engine.watermark import detect
from chatterbox_nb.errors import Cancelled
from chatterbox_nb.events import CancelToken, Progress

RATE, HOP = 24_000, 960
STEPS = 4
Spoken = tuple[list[tuple[int, SpokenChunk]], list[SpokenChunk]]


def spoken(model: Model, texts: list[str], streamed: bool, seed: int = 7) -> Spoken:
    """Segments with the index of their chunk, and chunks."""
    found: list[tuple[int, SpokenChunk]] = []
    told = (lambda index, piece: found.append((index, piece))) if streamed else None
    with torch.inference_mode():
        chunks = list(
            Speaker(
                model, model.builtin_voice(), Sampling(), 0.5, StageNoise(seed), texts, steps=STEPS, on_segment=told
            )
        )
    return found, chunks


@pytest.fixture(scope="module")
def once(demo: Callable[..., Model]) -> Spoken:
    return spoken(demo(), [SENTENCE, OTHER_SENTENCE], False)


@pytest.fixture(scope="module")
def streamed(demo: Callable[..., Model]) -> Spoken:
    return spoken(demo(), [SENTENCE, OTHER_SENTENCE], True)


def test_tokens_and_length_are_those_of_one_piece(once: Spoken, streamed: Spoken) -> None:
    for whole, chunk in zip(once[1], streamed[1], strict=True):
        assert (chunk.tokens, chunk.finish) == (whole.tokens, whole.finish)
        assert len(chunk.samples) == len(whole.samples) == HOP * len(whole.tokens)


@pytest.mark.parametrize(("name", "more"), [("turbo", 3), ("multilingual", -1)])
def test_a_models_own_end_is_that_of_one_piece(request: pytest.FixtureRequest, name: str, more: int) -> None:
    """Turbo's chunks end with three tokens of silence, and multilingual's without the last token's noise."""
    model: Model = request.getfixturevalue(name)
    (whole,), (chunk,) = (spoken(model, [SENTENCE], streamed)[1] for streamed in (False, True))
    assert chunk.tokens == whole.tokens
    assert len(chunk.samples) == len(whole.samples) == HOP * (len(whole.tokens) + more)


def test_segments_make_up_their_chunk(streamed: Spoken) -> None:
    pieces, chunks = streamed
    assert [index for index, _ in pieces] == sorted(index for index, _ in pieces)
    for number, chunk in enumerate(chunks):
        own = [piece for index, piece in pieces if index == number]
        assert len(own) > 1
        assert np.array_equal(np.concatenate([piece.samples for piece in own]), chunk.samples)
        assert sum((piece.tokens for piece in own), ()) == chunk.tokens
        assert [piece.finish for piece in own] == [None] * (len(own) - 1) + [chunk.finish]


def test_what_sounded_is_near_to_one_piece(demo: Callable[..., Model], once: Spoken) -> None:
    """Nearer than half the steps of the flow are."""
    for index, whole in enumerate(once[1]):
        found = streaming_worker.mels(demo(), 7, index, whole.tokens)
        assert found["segments"] < 0.05
        assert found["segments"] < found["other noise"] / 10


def test_the_first_segment_sounds_before_the_last_token_is_there(loaded: tts.manager.Manager) -> None:
    happened: list[str] = []

    def note(progress: Progress) -> None:
        if progress.stage == "tokens":
            happened.append("token")

    job = tts.submit(
        SENTENCE, seed=7, cfm_steps=STEPS, observer=note, on_segment=lambda take: happened.append("segment")
    )
    job.wait()
    first, last = happened.index("segment"), len(happened) - 1 - happened[::-1].index("token")
    assert first < last
    assert happened[:first].count("token") <= segments._FIRST + 1
    assert happened[first:].count("token") > 5


def test_every_segment_is_marked(streamed: Spoken) -> None:
    long = [piece.samples for _, piece in streamed[0] if len(piece.samples) >= RATE / 2]
    assert len(long) > 2
    assert min(detect(samples, RATE) for samples in long) > 0.8


def test_joins_are_no_worse_than_what_is_inside(once: Spoken, streamed: Spoken) -> None:
    found = [
        streaming_worker.joints(
            whole.samples, chunk.samples, [len(piece.samples) for at, piece in streamed[0] if at == index], RATE
        )
        for index, (whole, chunk) in enumerate(zip(once[1], streamed[1], strict=True))
    ]
    joins, unjoined, inside = (np.array([look for one in found for look in one[name]]) for name in (
        "joins", "unjoined", "inside"
    ))  # fmt: skip
    assert (joins < 1.2 * np.percentile(inside, 99, axis=0)).all()
    assert (np.median(joins, axis=0) < 2 * np.maximum(np.median(unjoined, axis=0), np.median(inside, axis=0))).all()


def test_the_measures_see_a_click(once: Spoken) -> None:
    """A tenth of full scale, nearly wherever it is put: by one of them it is beyond 99 % of what is inside."""
    wave = once[1][0].samples
    inside = np.array(streaming_worker.joints(wave, wave, [len(wave)], RATE)["inside"])
    limit, found = np.percentile(inside, 99, axis=0), []
    for place in range(RATE // 5, len(wave) - RATE // 5, RATE // 20):
        clicked = wave.copy()
        clicked[place:] += 0.1
        found.append(bool((np.array(streaming_worker.look(clicked, place, RATE)) > limit).any()))
    assert np.mean(found) > 0.8


def test_a_cancel_in_the_middle_breaks_nothing(loaded: tts.manager.Manager) -> None:
    cancel, heard = CancelToken(), []

    def stop(take: tts.Take) -> None:
        heard.append(take)
        cancel.cancel()

    with pytest.raises(Cancelled):
        tts.submit(SENTENCE, seed=7, cfm_steps=STEPS, cancel=cancel, on_segment=stop).wait()
    assert len(heard) == 1
    take = tts.speak(SENTENCE, seed=7, cfm_steps=STEPS)
    again = list(tts.stream(SENTENCE, seed=7, cfm_steps=STEPS, segments=True))
    assert np.array_equal(again[0].samples, heard[0].samples)
    assert sum(map(len, again)) == len(take)


def test_leaving_the_loop_early_stops_the_work(loaded: tts.manager.Manager) -> None:
    for _ in tts.stream(SENTENCE, seed=7, cfm_steps=STEPS, segments=True):
        break
    assert tts.speak("Hello.", seed=1, cfm_steps=STEPS).finish == "stop"


def test_chunks_keep_their_pauses(loaded: tts.manager.Manager) -> None:
    text = f"{SENTENCE}\n\n{OTHER_SENTENCE}"
    whole = tts.speak(text, seed=7, cfm_steps=STEPS)
    pieces = list(tts.stream(text, seed=7, cfm_steps=STEPS, segments=True))
    joined = np.concatenate([piece.samples for piece in pieces])
    assert sum(len(piece.chunks[0].tokens) for piece in pieces) == whole.tokens
    first, second = whole.chunks
    pause = slice(HOP * len(first.tokens), round(second.start_seconds * RATE))
    assert pause.stop - pause.start == RATE / 2
    assert len(joined) - len(whole) in (0, RATE / 2)  # the last chunk's pause is for what may follow
    assert not joined[pause].any()
    assert joined[pause.stop : pause.stop + RATE // 2].any()


def test_a_very_short_text_is_one_segment(loaded: tts.manager.Manager) -> None:
    whole = tts.speak("Hello.", seed=1, cfm_steps=STEPS)
    pieces = list(tts.stream("Hello.", seed=1, cfm_steps=STEPS, segments=True))
    assert whole.tokens < segments._FIRST
    assert len(pieces) == 1
    assert len(pieces[0]) >= len(whole)
    assert np.array_equal(pieces[0].samples[: len(whole)], whole.samples)


def test_a_chunk_without_tokens_is_empty(demo: Callable[..., Model]) -> None:
    model = demo()
    chunk = Segments(model, model.builtin_voice(), StageNoise(7), STEPS)
    seconds: dict[str, float] = {}
    assert len(chunk.more((), True, seconds, CancelToken())) == 0
    assert len(chunk.samples) == 0
    assert chunk.mel.shape == (1, flow.MELS, 0)


def test_runs_come_at_twice_the_tokens(demo: Callable[..., Model], streamed: Spoken) -> None:
    own = np.cumsum([len(piece.tokens) for index, piece in streamed[0] if index == 0]).tolist()
    assert own[0] == segments._FIRST
    assert all(later >= segments._GROWTH * sooner for sooner, later in pairwise(own[:-1]))


@pytest.mark.parametrize("every", [1, 7, 40])
def test_however_tokens_come_nothing_is_lost(demo: Callable[..., Model], once: Spoken, every: int) -> None:
    model, tokens = demo(), once[1][1].tokens[:41]
    chunk = Segments(model, model.builtin_voice(), StageNoise(7, 1), 1)
    with torch.inference_mode():
        for count in range(38 if every == 1 else every, len(tokens), every):
            chunk.more(tokens[:count], False, {}, CancelToken())
        chunk.more(tokens, True, {}, CancelToken())
    assert len(chunk.samples) == HOP * len(tokens)
    assert np.isfinite(chunk.samples).all()


def test_the_page_is_made_from_the_results_and_the_gate_is_passed() -> None:
    results = streaming_table.committed()
    assert streaming_table.PAGE.read_text(encoding="utf-8") == streaming_table.page(results)
    assert streaming_table.failures(results) == []
