"""A GPT-2's step as Triton's kernels: the tiny turbo's T3, on a GPU or interpreted here, against torch's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from conftest import GPU

pytest.importorskip("triton")

from turbos import DIMS, OPTIONS, TEXTS, prefix, t3

from chatterbox_nb.engine import decode, gpu_check
from chatterbox_nb.engine.decode import Decoded
from chatterbox_nb.engine.gpu_decode import Runner
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.nets import gpu_draw
from chatterbox_nb.engine.nets.gpu_draw import Lines, Table, options_of
from chatterbox_nb.engine.nets.gpu_step import GpuStep
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling, draw

PLACE = "cuda:0" if GPU.type == "cuda" else "cpu"


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def spoken(net: T3, options: Sampling, at_once: int, fused: Runner | None) -> list[Decoded]:
    """Both texts, three and four tokens of them."""
    net.runner = fused
    try:
        with decode.begun(net, prefix(net), options, None, at_once) as decoding:
            waiting, lines = list(enumerate(TEXTS)), []
            while waiting or decoding.lines:
                while waiting and len(decoding.lines) < at_once:
                    index, text = waiting.pop(0)
                    lines.append(decoding.begin(text.to(GPU), StageNoise(3, index), 3 + index, 100))
                decoding.advance()
            return [line.decoded for line in lines]
    finally:
        net.runner = None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tokens_are_those_of_torchs_layers(precision: str) -> None:
    net = t3(precision, PLACE)
    plain = spoken(net, OPTIONS, 1, None)
    assert [len(decoded.tokens) for decoded in plain] == [3, 4]
    assert spoken(net, OPTIONS, 2, Runner(net, Recorder(GPU))) == plain, "side by side, without guidance"


def test_one_graph_serves_all_options() -> None:
    net = t3("fp32", PLACE)
    fused, graphs = Runner(net, Recorder(GPU)), []
    fused.recorder.recorded = lambda work, pool=None: graphs.append(work) or work  # type: ignore[method-assign]
    fused.clear = lambda: None  # type: ignore[method-assign]  # the room stays for the next take
    for options in (replace(OPTIONS, temperature=0.0), replace(OPTIONS, top_k=2, repetition_penalty=2.0)):
        assert spoken(net, options, 1, fused) == spoken(net, options, 1, None)
    assert len(graphs) == 1


def test_the_check_at_load_passes_and_sees_what_is_wrong() -> None:
    net = t3("int8", PLACE)
    step = GpuStep(net)
    assert gpu_check.problem(net, step) == ""
    assert gpu_check.problem(net, step, 8, 1) == "", "by tensor cores"
    step._norm = replace(step._norm, offset=None)
    assert "the head is off by" in gpu_check.problem(net, step), "it is a layer norm"
    step._activation = {}
    assert "a layer is off by" in gpu_check.problem(net, step)


def drawn(logits: torch.Tensor, seen: torch.Tensor, options: Sampling, seed: int, count: int = 0) -> tuple[int, Lines]:
    """By the kernel, after `count` tokens; and what it left."""
    vocabulary = len(logits)
    lines, table = Lines.empty(1, vocabulary, GPU), Table(torch.arange(600.0, device=GPU)[:, None])
    lines.options.copy_(options_of(options))
    lines.noise[0], lines.seen[0] = StageNoise(seed).token(vocabulary), seen
    lines.state[0, :4] = torch.tensor([50, 9, count, 0])
    dims, x = replace(DIMS, start_speech=298, stop_speech=299), torch.zeros(1, 1, device=GPU)
    gpu_draw.draw(logits[None].to(GPU), lines, x, Table(torch.zeros(vocabulary, 1, device=GPU)), table, dims)
    assert float(x) == 50 + count, "the place of what was drawn counts from the beginning of all"
    return int(lines.state[0, gpu_draw.TOKENS + count]), lines


OPTIONS_OF_DRAWS = [
    OPTIONS,
    replace(OPTIONS, top_k=20),
    replace(OPTIONS, top_k=1),
    replace(OPTIONS, top_k=30, top_p=1.0, temperature=1.5, repetition_penalty=3.0),
    replace(OPTIONS, top_k=0, top_p=0.3),
    replace(OPTIONS, top_k=299, top_p=0.99, temperature=0.3, repetition_penalty=0.5),
    replace(OPTIONS, top_k=50, min_p=0.02, penalty_last=False),
    replace(OPTIONS, temperature=0.0),
]


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
def test_draws_are_those_of_sampling(size: float) -> None:
    generator, vocabulary = torch.Generator().manual_seed(int(10 * size)), 300
    for seed in range(3):
        for options in OPTIONS_OF_DRAWS:
            logits = size * torch.randn(vocabulary, generator=generator)
            seen = torch.rand(vocabulary, generator=generator) < 0.3
            wanted = int(draw(logits, seen, options, StageNoise(seed)))
            assert drawn(logits, seen, options, seed)[0] == wanted, options


def test_top_k_keeps_all_that_are_equal_to_the_last_as_torch_does() -> None:
    logits = torch.tensor([1.0, -0.0, 0.0, 0.0, -1.0] * 60)
    nothing = torch.zeros(300, dtype=torch.bool)
    for top_k in (1, 60, 61, 150, 240, 241):
        options = replace(OPTIONS, top_k=top_k, top_p=1.0, temperature=5.0)
        for seed in range(4):
            assert drawn(logits, nothing, options, seed)[0] == int(draw(logits, nothing, options, StageNoise(seed)))


def test_begin_of_speech_is_seen_before_the_first_draw_and_not_after() -> None:
    logits, seen = torch.full((300,), -5.0), torch.zeros(300, dtype=torch.bool)
    logits[7], seen[298] = 5.0, True
    _, lines = drawn(logits, seen, OPTIONS, 0)
    assert lines.seen[0].nonzero().flatten().tolist() == [7]
    _, lines = drawn(logits, seen, replace(OPTIONS, penalty_last=False), 0)
    assert lines.seen[0].nonzero().flatten().tolist() == [7, 298]
    logits[298] = 50.0
    _, lines = drawn(logits, seen, OPTIONS, 0, count=3)
    assert lines.seen[0].nonzero().flatten().tolist() == [298], "unless it was drawn"
