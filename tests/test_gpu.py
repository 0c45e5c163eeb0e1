"""On a GPU: everything a user does, at every precision. `make test-gpu`; it needs a CUDA device and no download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chatterbox_nb as tts
from chatterbox_nb import manager, usage, verification
from chatterbox_nb.engine import watermark
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling

pytestmark = pytest.mark.gpu

TEXT = "The brown spring wants the orange street."
LONG = " ".join([TEXT, "Turn on the quick milk.", "Open the small window, and wait for seven green boats."] * 3)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module", autouse=True)
def _device() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield
    tts.unload()


def model() -> Any:
    return manager.get().loaded()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_speaks_by_the_fused_step_under_graphs(precision: str) -> None:
    report = tts.load("demo", precision=precision, device="cuda")
    assert report.plan.kernel == "fused"
    assert report.plan.device == "cuda:0"
    take = tts.speak(TEXT, seed=7)
    assert take.duration > 1
    assert np.isfinite(take.samples).all()
    assert watermark.detect(take.samples, take.sample_rate) > 0.9
    assert model().recorder.problem == ""
    assert tts.info().reason.endswith("T3's step is five kernels a layer")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_seed_says_the_same_tokens_on_a_gpu_and_a_cpu(precision: str) -> None:
    tts.load("demo", precision=precision, device="cuda")
    there = tts.speak(TEXT, seed=7)
    tts.load("demo", precision="fp32", device="cpu")
    here = tts.speak(TEXT, seed=7)
    if precision == "fp32":
        assert there.tokens == here.tokens
        assert there.duration == here.duration
    assert abs(there.duration - here.duration) < 0.5


@pytest.mark.parametrize("name", ["demo", "turbo", "multilingual"])
def test_fp32_is_the_package(name: str, request: pytest.FixtureRequest) -> None:
    source = None if name == "demo" else request.getfixturevalue(f"{name}_folder")
    tts.load("demo" if source is None else None, source=source, precision="fp32", device="cuda")
    found = verification.compare(model())
    assert found["equal_tokens"] == found["tokens"]
    assert found["mel_distance"] < 1e-4
    assert found["wave_distance"] < 1e-2  # a GPU sums in another order, and f0 turns that into phase


def test_a_take_again_is_the_same_to_the_sample() -> None:
    tts.load("demo", precision="int8", device="cuda")
    assert np.array_equal(tts.speak(TEXT, seed=3).samples, tts.speak(TEXT, seed=3).samples)


def test_chunks_side_by_side_are_those_one_after_another() -> None:
    from chatterbox_nb.engine.noise import StageNoise

    tts.load("demo", precision="int8", device="cuda")

    def spoken(at_once: int) -> list[Any]:
        loaded = model()
        with torch.inference_mode():
            texts = [TEXT, "Turn on the quick milk.", "Open the small window.", "Seven green boats wait."]
            speaker = Speaker(loaded, loaded.builtin_voice(), Sampling(), 0.5, StageNoise(1), texts, at_once=at_once)
            return list(speaker)

    alone, beside = spoken(1), spoken(4)
    assert [chunk.tokens for chunk in alone] == [chunk.tokens for chunk in beside]
    assert [chunk.text for chunk in beside] == [chunk.text for chunk in alone]
    for chunk in beside:
        assert watermark.detect(chunk.samples, 24_000) > 0.9
    assert model().t3.runner.problem == ""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpt2_has_the_tokens_of_torchs_layers_under_one_graph(precision: str) -> None:
    """The tiny turbo's T3: alone and side by side, on the GPU, and as the CPU computes it."""
    import turbos

    from chatterbox_nb.engine import decode, gpu_check
    from chatterbox_nb.engine.gpu_decode import Runner
    from chatterbox_nb.engine.graphs import Recorder
    from chatterbox_nb.engine.noise import StageNoise

    def spoken(net: Any, at_once: int) -> list[Any]:
        begun: list[Any] = []
        with torch.inference_mode():
            for ids in [turbos.TEXTS[i : i + at_once] for i in range(0, len(turbos.TEXTS), at_once)]:
                with decode.begun(net, turbos.prefix(net), turbos.OPTIONS, None, at_once) as decoding:
                    place = net.backbone.norm.weight.device
                    for text in ids:
                        begun.append(decoding.begin(text.to(place), StageNoise(1, len(begun)), 40, 40))
                    while decoding.lines:
                        decoding.advance()
        return [line.decoded.tokens for line in begun]

    net, recorder = turbos.t3(precision, "cuda:0"), Recorder(torch.device("cuda:0"))
    plain, runner = spoken(net, 1), Runner(net, recorder)
    assert gpu_check.problem(net, runner.step) == gpu_check.problem(net, runner.step, 8) == ""
    net.runner = runner
    try:
        assert spoken(net, 1) == spoken(net, 2)
        if precision == "fp32":
            assert spoken(net, 1) == plain == spoken(turbos.t3(precision, "cpu"), 1)
    finally:
        net.runner = None
    assert recorder.problem == runner.problem == ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["turbo", "multilingual"])
def test_tiny_models_speak_at_every_precision(name: str, precision: str, request: pytest.FixtureRequest) -> None:
    """A GPT-2 with a mean flow, and 23 languages: alone, again to the sample, and several chunks side by side."""
    tts.load(source=request.getfixturevalue(f"{name}_folder"), precision=precision, device="cuda")
    assert tts.info().kernel == "fused"
    assert tts.info().reason.endswith("T3's step is five kernels a layer")
    language = "fr" if name == "multilingual" else None
    take, again = (tts.speak("Bonjour, là.", seed=7, language=language) for _ in range(2))
    assert take.duration > 0.5
    assert np.array_equal(take.samples, again.samples)
    assert tts.speak(LONG, seed=7, language=language).duration > take.duration
    assert model().recorder.problem == model().t3.runner.problem == ""


def test_a_clip_is_converted_as_on_a_cpu() -> None:
    tts.load("demo", precision="fp32", device="cpu")
    said = tts.speak(LONG, seed=1)
    here = tts.convert(said, seed=1)
    tts.load("demo", precision="fp32", device="cuda")
    there = tts.convert(said, seed=1)
    assert there.samples.shape == here.samples.shape
    # Over 20 s the sine's phase, a sum of a million float32 numbers in another order, moves by some hundredths.
    there_is, here_is = (
        torch.stft(
            torch.from_numpy(take.samples.copy()), 1024, return_complex=True, window=torch.hann_window(1024)
        ).abs()
        for take in (there, here)
    )
    assert float((there_is - here_is).norm() / here_is.norm()) < 0.02


def test_streams_and_segments() -> None:
    tts.load("demo", precision="int8", device="cuda")
    takes = list(tts.stream(LONG, seed=2))
    assert len(takes) > 1
    segments = list(tts.stream(TEXT, seed=2, segments=True))
    whole = tts.speak(TEXT, seed=2)
    assert sum(len(take.samples) for take in segments) == len(whole.samples)


def test_a_voice_from_a_clip(tmp_path: Path) -> None:
    tts.load("demo", precision="int8", device="cuda")
    path = tmp_path / "clip.wav"
    tts.speak(LONG, seed=1).save(path)
    assert tts.speak(TEXT, voice=path, seed=1).duration > 1


def test_memory_is_what_the_report_says_and_comes_back() -> None:
    tts.unload()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    report = tts.load("demo", precision="int8", device="cuda")
    allocated = torch.cuda.memory_allocated() - before
    assert report.bytes == report.plan.expected_bytes
    assert report.bytes <= allocated < report.bytes + 2_000_000  # the allocator rounds each tensor up
    tts.speak(TEXT, seed=1)
    usage.release("cuda:0")
    kept = torch.cuda.memory_allocated() - before
    assert kept < allocated + 150_000_000, "cuBLAS's memory to work in, and nothing of the take"
    assert tts.memory().device == "cuda:0"
    tts.unload()
    assert torch.cuda.memory_allocated() - before <= kept - report.bytes + 1_000_000


def test_switching_leaves_no_graph_and_no_room_behind() -> None:
    tts.load("demo", precision="int8", device="cuda")
    tts.speak(TEXT, seed=1)
    sizes = []
    for _ in range(3):
        for precision in ("fp16", "int8"):
            tts.load("demo", precision=precision, device="cuda")
            tts.speak(TEXT, seed=1)
        usage.release("cuda:0")
        sizes.append(torch.cuda.memory_allocated())
    assert sizes[-1] <= sizes[0] + 1_000_000


def test_the_hosts_generators_and_switches_stay_as_they_were() -> None:
    tts.load("demo", precision="fp32", device="cuda")
    torch.cuda.manual_seed(5)
    state = torch.cuda.get_rng_state()
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    tts.speak(TEXT, seed=1)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == flags
    torch.randn(4, device="cuda")


def test_the_plain_path_speaks_too_and_says_what_it_is() -> None:
    tts.load("demo", precision="int8", device="cuda", kernel="plain")
    assert tts.info().kernel == "plain"
    take = tts.speak(TEXT, seed=7)
    assert take.duration > 1


def test_a_step_that_fails_its_check_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbox_nb.engine import gpu_check
    from chatterbox_nb.errors import PrecisionError

    monkeypatch.setattr(gpu_check, "problem", lambda *_: "a layer is off by 1 of its size")
    tts.unload()
    report = tts.load("demo", precision="int8", device="cuda")
    assert report.plan.kernel == "plain"
    assert "(a layer is off by 1 of its size)" in tts.info().reason
    assert tts.speak(TEXT, seed=7).duration > 1
    tts.unload()
    with pytest.raises(PrecisionError, match="Load with --kernel plain"):
        tts.load("demo", precision="int8", device="cuda", kernel="fused")
