"""T3's step as Triton's kernels and the decode loop around it: on a GPU, or interpreted here, in the real classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GPU

pytest.importorskip("triton")

from chatterbox_nb.checkpoint import source
from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine import decode, gpu_check, gpu_decode
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.decode import Decoded, Prefix
from chatterbox_nb.engine.gpu_decode import GpuDecoding, Runner
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.nets import gpu_draw
from chatterbox_nb.engine.nets.gpu_draw import Lines, Table, options_of
from chatterbox_nb.engine.nets.gpu_step import GpuStep
from chatterbox_nb.engine.noise import PackageNoise, StageNoise
from chatterbox_nb.engine.sampling import Sampling, draw, guide
from chatterbox_nb.errors import Cancelled, EngineError, TextError
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision import device

TEXTS = ("the brown spring", "of milk")
Load = Callable[[str], engine.Model]


@pytest.fixture(scope="module")
def load(tiny_folder: Path) -> Iterator[Load]:
    """The tiny model at a precision, torch's layers, and the fused step beside it."""
    loaded: dict[str, engine.Model] = {}
    name = "cuda:0" if GPU.type == "cuda" else "cpu"

    def loader(precision: str) -> engine.Model:
        if precision not in loaded:
            spec, files = source.find(source=tiny_folder)
            loaded[precision] = engine.load(spec, files, precision, device.facts(name), "plain")
        return loaded[precision]

    yield loader


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def runner(model: engine.Model) -> Runner:
    return Runner(model.t3, Recorder(model.device))


def prefix(model: engine.Model) -> Prefix:
    voice = model.builtin_voice()
    return decode.prefill(model.t3, voice.speaker.to(GPU), voice.t3_prompt.to(GPU), 0.5)


def spoken(model: engine.Model, options: Sampling, at_once: int, wanted: int, fused: Runner | None) -> list[Decoded]:
    """All texts, by torch's layers or by the fused step, each with its own number of tokens."""
    model.t3.runner = fused
    try:
        with decode.begun(model.t3, prefix(model), options, None, at_once) as decoding:
            waiting, lines = list(enumerate(TEXTS)), []
            while waiting or decoding.lines:
                while waiting and len(decoding.lines) < at_once:
                    index, text = waiting.pop(0)
                    lines.append(decoding.begin(model.text_ids(text), StageNoise(3, index), wanted + index, 100))
                decoding.advance()
            return [line.decoded for line in lines]
    finally:
        model.t3.runner = None


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_tokens_are_those_of_torchs_layers(load: Load, precision: str) -> None:
    model = load(precision)
    plain = spoken(model, Sampling(), 1, 4, None)
    assert [len(decoded.tokens) for decoded in plain] == [4, 5]
    assert spoken(model, Sampling(), 1, 4, runner(model)) == plain
    assert spoken(model, Sampling(), 2, 4, runner(model)) == plain, "side by side"


@pytest.mark.parametrize(
    "options",
    [Sampling(cfg_weight=0.0), Sampling(temperature=0.0), Sampling(top_p=0.5, min_p=0.0, repetition_penalty=2.0)],
    ids=["unguided", "greedy", "nucleus"],
)
def test_options_mean_what_they_mean_elsewhere(load: Load, options: Sampling) -> None:
    model = load("fp32")
    assert spoken(model, options, 1, 2, runner(model)) == spoken(model, options, 1, 2, None)


def test_a_room_grows_with_what_is_in_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("fp32")
    monkeypatch.setattr(gpu_decode, "BUCKET", 4)
    monkeypatch.setattr(gpu_decode, "_AHEAD", 2)
    monkeypatch.setattr(gpu_decode, "_EVERY", 2)
    grown: list[int] = []
    fused = runner(model)
    grow = fused.grow
    monkeypatch.setattr(fused, "grow", lambda length: grown.append(length) or grow(length))
    assert spoken(model, Sampling(), 2, 6, fused) == spoken(model, Sampling(), 1, 6, None)
    assert grown
    assert fused.room is None, "nothing stays between takes"


def test_package_noise_is_drawn_for_no_token_after_the_last(load: Load) -> None:
    """It is one stream for all stages: one draw more, and the flow's noise would not be the package's."""
    model = load("fp32")
    noise = PackageNoise(5)
    model.t3.runner = runner(model)
    try:
        decoded = decode.decode(model.t3, prefix(model), model.text_ids("of milk"), Sampling(), noise, 3, 3)
    finally:
        model.t3.runner = None
    other = PackageNoise(5)
    for _ in decoded.tokens:
        other.token(model.spec.t3.speech_vocab)
    assert torch.equal(noise.flow(2, 3), other.flow(2, 3))


def test_a_cancel_is_heard_and_too_much_text_refused(load: Load) -> None:
    model, cancel = load("fp32"), CancelToken()
    with GpuDecoding(runner(model), prefix(model), Sampling(), cancel) as decoding:
        with pytest.raises(TextError, match="positions"):
            decoding.begin(torch.zeros(10_000, dtype=torch.long, device=GPU), StageNoise(0), 9, 9)
        decoding.begin(model.text_ids("of milk"), StageNoise(0), 9, 9)
        cancel.cancel()
        with pytest.raises(Cancelled):
            decoding.advance()


def test_logits_that_are_not_finite_stop_a_take_with_their_token(load: Load) -> None:
    model = load("fp16")
    with GpuDecoding(runner(model), prefix(model), Sampling()) as decoding:
        decoding.begin(model.text_ids("of milk"), StageNoise(0), 2, 9)
        assert decoding.runner.room is not None
        decoding.runner.room.logits[1, 7] = float("inf")
        with pytest.raises(EngineError, match=r"float16: T3's logits at token 1\. Try --precision fp32"):
            decoding.advance()


def test_the_check_at_load_passes_and_sees_what_is_wrong(load: Load) -> None:
    model = load("int8")
    step = GpuStep(model.t3)
    assert gpu_check.problem(model.t3, step) == ""
    assert gpu_check.problem(model.t3, step, 4, 2) == ""
    first, in_, *rest = step._layers[0]
    step._layers[0] = (first, replace(in_, scale=2 * in_.scale), *rest)  # type: ignore[operator]
    assert "a layer is off by" in gpu_check.problem(model.t3, step)
    step._layers[0] = (first, in_, *rest)
    step._head = None  # type: ignore[assignment]
    assert gpu_check.problem(model.t3, step).startswith("AttributeError: "), "what a driver may raise is a line, too"


def test_many_rows_are_checked_once_before_they_are_multiplied_by_tensor_cores(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = load("int8"), []
    fused = runner(model)
    monkeypatch.setattr(gpu_check, "problem", lambda *given: asked.append(given[2:]) or "no luck")
    for _ in range(2):
        fused.make_room(4, 2, 8)
        fused(4)
        fused.clear()
    assert asked == [(4, 2)]
    assert not fused.step.tiled
    assert fused.problem == "no luck"


@pytest.mark.parametrize("seed", range(4))
def test_draws_are_those_of_sampling(seed: int) -> None:
    """Over all options, guided and not: the token, what is known as seen, the state, the embedding."""
    generator, V, D = torch.Generator().manual_seed(seed), 300, 24
    tokens, places = torch.randn(V, D, generator=generator), torch.randn(9, D, generator=generator)
    dims = T3Dims(start_speech=298, stop_speech=299)
    for rows in (1, 2):
        for options in (
            Sampling(),
            Sampling(temperature=1.3, min_p=0.0, top_p=0.6),
            Sampling(top_p=0.95, repetition_penalty=1.0),
            Sampling(temperature=0.0),
            Sampling(temperature=1e-9, min_p=0.0),
            Sampling(top_k=3, min_p=0.0),
        ):
            logits, noise = 3 * torch.randn(rows, V, generator=generator), StageNoise(seed)
            seen = torch.rand(V, generator=generator) < 0.3
            wanted = int(draw(guide(logits, options.cfg_weight), seen, options, StageNoise(seed)))
            lines = Lines.empty(1, V, GPU)
            lines.options.copy_(options_of(options))
            lines.noise[0] = noise.token(V)
            lines.seen[0] = seen
            lines.state[0, :4] = torch.tensor([40, 9, 2, 0])
            x = torch.zeros(rows, D, device=GPU)
            gpu_draw.draw(logits.to(GPU), lines, x, Table(tokens.to(GPU)), Table(places.to(GPU)), dims)
            state = lines.state[0].tolist()
            assert state[gpu_draw.TOKENS + 2] == wanted
            assert state[:5] == [40, 9, 3, int(wanted == 299), 0]
            assert int(lines.positions) == 42
            assert bool(lines.seen[0, wanted])
            assert torch.allclose(x.cpu(), (tokens[wanted] + places[3]).expand(rows, D))


def test_a_line_that_has_ended_stays_as_it_is() -> None:
    lines, x = Lines.empty(1, 50, GPU), torch.zeros(1, 4, device=GPU)
    before = lines.state.clone()
    table = Table(torch.ones(50, 4, device=GPU))
    gpu_draw.draw(torch.randn(1, 50).to(GPU), lines, x, table, table, T3Dims(stop_speech=49))
    assert torch.equal(lines.state, before)
    assert not x.any()


def test_options_are_a_tensor_so_that_a_graph_serves_all(load: Load) -> None:
    model = load("fp32")
    fused = runner(model)
    graphs: list[Any] = []
    fused.recorder.recorded = lambda work, pool=None: graphs.append(work) or work  # type: ignore[method-assign]
    with GpuDecoding(fused, prefix(model), Sampling(temperature=0.5)) as decoding:
        decoding.begin(model.text_ids("of milk"), StageNoise(0), 2, 9)
        while decoding.lines:
            decoding.advance()
        decoding.options = Sampling(temperature=0.9, top_p=0.8)
        decoding.begin(model.text_ids("of milk"), StageNoise(0), 2, 9)
        while decoding.lines:
            decoding.advance()
    assert len(graphs) == 1
