"""The flow's steps for lengths that are rounded up, and what records them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.gpu_flow import BUCKET, Solver
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.precision.exact import exact

CPU = torch.device("cpu")


def mel(model: engine.Model, count: int, steps: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    tokens = torch.randint(0, model.spec.s3gen.codes, (1, count), generator=generator)
    with torch.inference_mode():
        return flow.tokens_to_mel(model.flow, tokens, model.builtin_voice(), StageNoise(1), steps)


def test_filled_up_frames_change_nothing(demo: Callable[..., engine.Model]) -> None:
    model = demo("fp32")
    plain = {count: mel(model, count) for count in (40, 64, 41)}
    model.flow.solver = solver = Solver(Recorder(CPU))
    try:
        for count, wanted in plain.items():
            found = mel(model, count)
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() < 2e-5
        frames = {shape[1] for shape in solver._steps}
        assert all(count % BUCKET == 0 for count in frames)
        assert len(frames) < 3, "lengths share what is recorded"
        solver.rest()
        assert not solver._steps
        assert solver._ready is None
    finally:
        model.flow.solver = None


def test_a_take_leaves_nothing_of_the_flow_behind(tiny: engine.Model) -> None:
    from chatterbox_nb.engine.pipeline import Speaker
    from chatterbox_nb.engine.sampling import Sampling

    tiny.flow.solver = solver = Solver(Recorder(CPU))
    try:
        with torch.inference_mode():
            speaker = Speaker(tiny, tiny.builtin_voice(), Sampling(), 0.5, StageNoise(0), ["of milk", "the light"])
            chunks = iter(speaker)
            next(chunks)
            assert solver._steps, "the next chunk has use of it"
            chunks.close()  # type: ignore[attr-defined]
        assert not solver._steps
    finally:
        tiny.flow.solver = None


def test_only_a_gpu_records() -> None:
    recorder = Recorder(CPU)

    def work() -> None:
        pass

    assert not recorder.records
    assert recorder.pool() is None
    assert recorder.recorded(work) is work


class Failing(Recorder):
    """Of a GPU on which nothing can be recorded."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(torch.device("cuda"))
        self.error = error

    def _record(self, graph: object, work: object, pool: object) -> None:
        raise self.error


def test_what_cannot_be_recorded_is_done_a_call_at_a_time_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    recorder = Failing(RuntimeError("operation not permitted\nwhen capturing"))

    def work() -> None:
        pass

    assert recorder.recorded(work) is work
    assert recorder.problem == "operation not permitted"
    assert not recorder.records


def test_short_memory_is_no_reason_to_go_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    recorder = Failing(torch.OutOfMemoryError("short"))
    with pytest.raises(torch.OutOfMemoryError):
        recorder.recorded(lambda: None)
    assert recorder.problem == ""


def test_info_says_what_turned_out_not_to_work(tiny: engine.Model) -> None:
    assert tiny.reason == tiny.plan.reason
    tiny.recorder.problem = "operation not permitted"
    try:
        assert tiny.reason == f"{tiny.plan.reason}; no CUDA graphs (operation not permitted)"
    finally:
        tiny.recorder.problem = ""


def test_float32_is_float32_on_a_gpu_and_the_hosts_switches_stay() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        with exact(CPU):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
        with pytest.raises(ValueError, match="out"), exact(torch.device("cuda")):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
            raise ValueError("out")
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def test_noise_that_was_drawn_ahead_is_the_same(demo: Callable[..., engine.Model]) -> None:
    model, noise, plain = demo("fp32"), StageNoise(5, 2), StageNoise(5, 2)
    vocoder.draw_ahead(model.vocoder, noise, 7)
    harmonics = model.vocoder.m_source.l_sin_gen.harmonic_num + 1
    assert torch.equal(noise.source(harmonics, 7 * 480), plain.source(harmonics, 7 * 480))
    vocoder.draw_ahead(model.vocoder, noise, 7)
    assert torch.equal(noise.source(harmonics, 6 * 480), plain.source(harmonics, 6 * 480)), "of another length"
