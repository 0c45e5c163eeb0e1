"""The decode loop: where it ends and why, what it refuses, when it listens, how much it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import OTHER_SENTENCE, SENTENCE
from torch import Tensor

from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import decode, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.decode import Decoded, Decoding, Prefix
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.stepper import Place, Stepper
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.errors import Cancelled, EngineError, TextError
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision import device


@pytest.fixture(scope="module")
def mine(tiny_folder: Path) -> Model:
    """A tiny model of this file's own, whose weights may be broken for a moment."""
    spec, files = source.find(source=tiny_folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@contextmanager
def changed(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor may be written to inside the block; afterwards it is as before."""
    kept = tensor.clone()
    try:
        yield tensor.data
    finally:
        tensor.data.copy_(kept)


@contextmanager
def never_stopping(t3: T3) -> Iterator[None]:
    """The stop row of the head reads minus what every other row may read."""
    with changed(t3.head.weight) as weight:
        weight[t3.dims.stop_speech] = 0.0
        weight[t3.dims.stop_speech, 0] = -100.0  # the synthetic checkpoint's constant direction
        yield


def prefix_of(model: Model, exaggeration: float = 0.5) -> Prefix:
    voice = model.builtin_voice()
    with torch.inference_mode():
        return decode.prefill(model.t3, voice.speaker, voice.t3_prompt, exaggeration)


def test_a_long_prefix_is_kept_and_a_short_one_is_not(tiny: Model, turbo: Model) -> None:
    for model, kept in ((tiny, False), (turbo, True)):
        voice = model.builtin_voice()
        with torch.inference_mode():
            first, again = (model.prefix.of(model.t3, voice.speaker, voice.t3_prompt, 0.5) for _ in range(2))
        assert (first is again) == kept
        assert torch.equal(first.keys, again.keys)
    model.rest()


def spoken(model: Model, text: Tensor, budget: int, limit: int, cfg: float = 0.5, **rest: Any) -> Decoded:
    with torch.inference_mode():
        return decode.decode(
            model.t3, prefix_of(model), text, Sampling(cfg_weight=cfg), StageNoise(1), budget, limit, **rest
        )


# How it ends


def test_a_chunk_ends_when_the_model_says_so(mine: Model) -> None:
    decoded = spoken(mine, mine.text_ids(SENTENCE), 300, 400)
    assert decoded.finish == "stop"
    assert decoded.tokens[-1] == mine.spec.t3.stop_speech
    assert mine.spec.t3.stop_speech not in decoded.tokens[:-1]


@pytest.mark.parametrize(
    ("budget", "limit", "length", "finish"),
    [(10, 400, 10, "budget"), (400, 10, 10, "limit"), (10, 10, 10, "limit"), (1, 400, 1, "budget")],
)
def test_a_chunk_that_does_not_stop_ends_at_its_budget_or_the_limit(
    mine: Model, budget: int, limit: int, length: int, finish: str
) -> None:
    with never_stopping(mine.t3):
        decoded = spoken(mine, mine.text_ids(SENTENCE), budget, limit)
    assert (len(decoded.tokens), decoded.finish) == (length, finish)


def test_a_stop_at_the_last_allowed_token_is_a_stop(mine: Model) -> None:
    whole = spoken(mine, mine.text_ids(SENTENCE), 300, 400)
    assert spoken(mine, mine.text_ids(SENTENCE), len(whole.tokens), 400) == whole
    shorter = spoken(mine, mine.text_ids(SENTENCE), len(whole.tokens) - 1, 400)
    assert (shorter.tokens, shorter.finish) == (whole.tokens[:-1], "budget")


def test_the_limit_is_never_beyond_the_models_positions(mine: Model) -> None:
    """A token past the table of positions would be an index error after a minute of work."""
    with never_stopping(mine.t3):
        decoded = spoken(mine, mine.text_ids("hi"), 10_000, 10_000, cfg=0.0)
    assert len(decoded.tokens) == mine.spec.t3.speech_positions == 420
    assert decoded.finish == "limit"


def test_a_smaller_budget_changes_no_token_before_it(mine: Model) -> None:
    with never_stopping(mine.t3):
        text = mine.text_ids(SENTENCE)
        assert spoken(mine, text, 40, 400).tokens[:15] == spoken(mine, text, 15, 400).tokens


def test_tokens_that_stand_for_no_sound_are_dropped() -> None:
    assert decode.audible((5, 6560, 6561, 6562, 6563, 0), 6561) == (5, 6560, 0)


# What it refuses


def test_more_text_than_positions_is_an_error_before_any_work(mine: Model) -> None:
    positions = mine.spec.t3.text_positions
    with pytest.raises(TextError, match=f"{positions + 1} text tokens and the model has {positions} positions. Split"):
        spoken(mine, torch.ones(positions + 1, dtype=torch.long), 10, 10)


def test_as_much_text_as_positions_is_spoken(mine: Model) -> None:
    decoded = spoken(mine, torch.full((mine.spec.t3.text_positions,), 5), 2, 10)
    assert len(decoded.tokens) == 2


@pytest.mark.parametrize("cfg", [0.0, 0.5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_stop_a_chunk_with_stage_and_cure(mine: Model, value: float, cfg: float) -> None:
    with (
        changed(mine.t3.head.weight) as weight,
        pytest.raises(
            EngineError, match=r"^Not finite, computed in float32: T3's logits at token 1\. Try another seed"
        ),
    ):
        weight[100, :] = value
        spoken(mine, mine.text_ids(SENTENCE), 10, 10, cfg)


def test_the_token_where_logits_went_wrong_is_named(mine: Model) -> None:
    with (
        never_stopping(mine.t3),
        changed(mine.t3.speech_position.weight) as weight,
        pytest.raises(EngineError, match="logits at token 36"),
    ):
        weight[35] = float("nan")  # read with the 35th token, which the 36th is drawn from; the prompt has 30
        spoken(mine, mine.text_ids(SENTENCE), 50, 50)


@pytest.mark.parametrize(("stage", "name"), [("flow", "encoder_proj.bias"), ("vocoder", "conv_post.bias")])
def test_later_stages_stop_at_what_is_no_number_too(mine: Model, stage: str, name: str) -> None:
    parameter = mine.modules()[stage].get_parameter(name)
    voice, noise = mine.builtin_voice(), StageNoise(0)
    with torch.inference_mode(), changed(parameter) as values:
        values.fill_(float("nan"))
        with pytest.raises(
            EngineError, match=r"^Not finite, computed in float32: the (mel spectrogram|waveform)\. Try another"
        ):
            mel = flow.tokens_to_mel(mine.flow, torch.tensor([[1, 2, 3]]), voice, noise, 2)
            vocoder.mel_to_wave(mine.vocoder, mel, noise)


# When it listens


def test_a_cancel_is_honoured_before_the_next_token(mine: Model) -> None:
    cancel = CancelToken()
    counts: list[int] = []

    def on_token(count: int) -> None:
        counts.append(count)
        if count == 3:
            cancel.cancel()

    with pytest.raises(Cancelled):
        spoken(mine, mine.text_ids(SENTENCE), 50, 50, on_token=on_token, cancel=cancel)
    assert counts == [1, 2, 3]


def test_a_cancel_before_the_first_token_draws_none(mine: Model) -> None:
    cancel = CancelToken()
    counts: list[int] = []
    cancel.cancel()
    with pytest.raises(Cancelled):
        spoken(mine, mine.text_ids(SENTENCE), 50, 50, on_token=counts.append, cancel=cancel)
    assert counts == []


def test_it_tells_of_every_token_the_last_included(mine: Model) -> None:
    counts: list[int] = []
    decoded = spoken(mine, mine.text_ids(SENTENCE), 300, 400, on_token=counts.append)
    assert counts == list(range(1, len(decoded.tokens) + 1))


# How much it computes


@contextmanager
def by_torch(t3: T3) -> Iterator[None]:
    """Without the compiled step."""
    kept, t3.compiled = t3.compiled, False
    try:
        yield
    finally:
        t3.compiled = kept


@contextmanager
def watching(t3: T3) -> Iterator[list[tuple[int, int, int]]]:
    """Rows, new positions and cache rows of every pass through the backbone, the compiled ones too."""
    passes: list[tuple[int, int, int]] = []
    compiled = Stepper.__call__

    def watched(stepper: Stepper, x: Tensor, places: list[Place]) -> Tensor:
        passes.append((len(x), 1, places[0].cache.keys.shape[1]))
        return compiled(stepper, x, places)

    def look(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        x, cache, _ = inputs
        passes.append((x.shape[0], x.shape[1], cache.keys.shape[1]))

    handle = t3.backbone.register_forward_pre_hook(look)
    Stepper.__call__ = watched  # type: ignore[method-assign]
    try:
        yield passes
    finally:
        handle.remove()
        Stepper.__call__ = compiled  # type: ignore[method-assign]


@pytest.mark.parametrize(("cfg", "rows"), [(0.0, 1), (0.5, 2)])
def test_without_guidance_there_is_one_row_of_work_and_of_cache(mine: Model, cfg: float, rows: int) -> None:
    text, prefix = mine.text_ids(SENTENCE), prefix_of(mine)
    with torch.inference_mode(), never_stopping(mine.t3), watching(mine.t3) as passes:
        decode.decode(mine.t3, prefix, text, Sampling(cfg_weight=cfg), StageNoise(1), 4, 10)
    # The text and two begin-of-speech at once, then a token at a time; the last token is not computed further.
    assert passes == [(rows, len(text) + 2, rows), (rows, 1, rows), (rows, 1, rows), (rows, 1, rows)]


def test_the_cache_is_no_longer_than_the_budget(mine: Model) -> None:
    lengths: list[int] = []
    text, prefix = mine.text_ids(SENTENCE), prefix_of(mine)
    handle = mine.t3.backbone.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[1].length))
    with torch.inference_mode(), by_torch(mine.t3):
        decode.decode(mine.t3, prefix, text, Sampling(), StageNoise(1), 12, 400)
    handle.remove()
    assert set(lengths) == {prefix.length + len(text) + 2 + 12}


def test_the_voice_is_prefilled_once_and_left_as_it_was(mine: Model) -> None:
    prefix = prefix_of(mine)
    kept = prefix.keys.clone(), prefix.values.clone()
    with torch.inference_mode():
        first = decode.decode(mine.t3, prefix, mine.text_ids(SENTENCE), Sampling(), StageNoise(1), 30, 30)
        again = decode.decode(mine.t3, prefix, mine.text_ids(SENTENCE), Sampling(), StageNoise(1), 30, 30)
    assert first == again
    assert torch.equal(prefix.keys, kept[0])
    assert torch.equal(prefix.values, kept[1])


def test_exaggeration_changes_the_prefix(mine: Model) -> None:
    assert not torch.equal(prefix_of(mine, 0.5).keys, prefix_of(mine, 1.5).keys)


def test_a_cache_that_grows_changes_nothing(mine: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with never_stopping(mine.t3):
        wanted = spoken(mine, mine.text_ids(SENTENCE), 40, 400)
        monkeypatch.setattr(decode, "_ROOM", 3)
        assert spoken(mine, mine.text_ids(SENTENCE), 40, 400) == wanted


def test_the_compiled_step_draws_what_torch_draws(demo: Callable[..., Model]) -> None:
    model = demo()
    compiled = spoken(model, model.text_ids(SENTENCE), 200, 255)
    with by_torch(model.t3):
        assert spoken(model, model.text_ids(SENTENCE), 200, 255) == compiled


# Side by side


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("cfg", [0.0, 0.5])
def test_a_chunk_beside_others_has_the_tokens_it_has_alone(
    demo: Callable[..., Model], precision: str, cfg: float, compiled: bool
) -> None:
    """However long the others are, and when they begin."""
    model = demo(precision)
    if compiled and not model.t3.compiled:
        pytest.skip("there is no compiled step here")
    texts = [model.text_ids(text) for text in (SENTENCE, OTHER_SENTENCE, "No.", SENTENCE + " " + OTHER_SENTENCE)]
    prefix, options = prefix_of(model), Sampling(cfg_weight=cfg)
    with torch.inference_mode(), nullcontext() if compiled else by_torch(model.t3):
        alone = [
            decode.decode(model.t3, prefix, text, options, StageNoise(5, index), 60, 60)
            for index, text in enumerate(texts)
        ]
        with Decoding(model.t3, prefix, options) as decoding:
            lines = [decoding.begin(text, StageNoise(5, index), 60, 60) for index, text in enumerate(texts[:2])]
            for _ in range(5):
                decoding.advance()
            lines += [decoding.begin(text, StageNoise(5, index), 60, 60) for index, text in enumerate(texts[2:], 2)]
            while decoding.lines:
                decoding.advance()
    assert [line.decoded for line in lines] == alone


@pytest.mark.parametrize("kernel", ["fused", "plain", "int8pack", "dynamic"])
def test_int8_decodes_to_the_end_of_speech_with_every_kernel(demo: Callable[..., Model], kernel: str) -> None:
    here = device.facts("cpu")
    if (kernel == "int8pack" and here.capability not in ("AVX2", "AVX512")) or (kernel == "dynamic" and not here.vnni):
        pytest.skip(f"this machine has no {kernel}")
    if kernel == "fused" and here.unfused:
        pytest.skip(here.unfused)
    model = demo("int8", kernel)
    decoded = spoken(model, model.text_ids(SENTENCE), 200, 255)
    assert decoded.finish == "stop"
    assert 30 < len(decoded.tokens) < 120
