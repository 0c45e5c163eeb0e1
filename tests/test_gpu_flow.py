"""The flow's steps for lengths that are rounded up, and what records them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from chatterbox_nb.engine import flow, gpu_flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.gpu_flow import BUCKET, Solver
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.errors import EngineError
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


def test_what_is_recorded_stays_for_the_next_take_but_not_without_end(
    tiny: engine.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_flow, "_KEPT", 2)
    recorded: list[object] = []
    recorder = Recorder(CPU)
    recorder.recorded = lambda work, pool=None: recorded.append(work) or work  # type: ignore[method-assign]
    tiny.flow.solver = solver = Solver(recorder)
    try:
        for count in (20, 22, 90, 20, 160, 20):  # the third length is one too many, for the second and not the first
            mel(tiny, count)
        assert len(recorded) == 3
        assert len(solver._steps) == 2
        tiny.rest()
        assert not solver._steps
        assert solver._ready is None
    finally:
        tiny.flow.solver = None


def test_after_a_failure_all_but_the_model_is_given_back(tiny: engine.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbox_nb import manager

    shared = manager.Manager()
    shared.model = tiny
    rested: list[engine.Model] = []
    monkeypatch.setattr(engine.Model, "rest", lambda self: rested.append(self))
    with pytest.raises(EngineError):
        shared.submit("failing", lambda job: 1 / 0).wait()
    assert rested == [tiny]


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
            assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic) == (False, False, True)
            raise ValueError("out")
        assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic) == (True, True, False)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def test_noise_that_was_drawn_ahead_is_the_same(demo: Callable[..., engine.Model]) -> None:
    model, noise, plain = demo("fp32"), StageNoise(5, 2), StageNoise(5, 2)
    vocoder.draw_ahead(model.vocoder, noise, 7)
    harmonics = model.vocoder.m_source.l_sin_gen.harmonic_num + 1
    assert torch.equal(noise.source(harmonics, 7 * 480), plain.source(harmonics, 7 * 480))
    vocoder.draw_ahead(model.vocoder, noise, 7)
    assert torch.equal(noise.source(harmonics, 6 * 480), plain.source(harmonics, 6 * 480)), "of another length"
