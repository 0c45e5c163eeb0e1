"""The real checkpoints that the hub's cache has: `make test-weights`. The oracle's tests run on them too."""

from __future__ import annotations

import pytest
from conftest import real_files

import chatterbox_nb as tts
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.engine.watermark import detect

pytestmark = pytest.mark.weights
TEXT = "The quick brown fox jumps over the lazy dog, and nobody minds at all."
NAMES = [spec.name for spec in catalog.CATALOG.values() if "en" in spec.languages]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_it_speaks_at_each_precision(name: str, precision: str) -> None:
    real_files(name)
    report = tts.load(name, precision=precision)
    assert report.bytes == report.plan.expected_bytes
    take = tts.speak(TEXT, seed=7)
    assert take.finish == "stop"
    assert 2.5 < take.duration < 9.0
    assert detect(take.samples, take.sample_rate) > 0.8
    assert not take.warnings


@pytest.mark.parametrize("name", NAMES)
def test_int8_takes_a_fifth_of_what_the_package_loads(name: str) -> None:
    real_files(name)
    report = tts.load(name, precision="int8")
    assert report.ratios["of what the package loads in fp32"] <= 0.21
    assert report.ratios["of our own fp32"] <= 0.255
    assert report.ratios["of our own fp16"] <= 0.495


@pytest.mark.parametrize(("first", "second"), [("english", "multilingual"), ("nano", "turbo")])
def test_what_two_models_share_is_loaded_once(first: str, second: str) -> None:
    real_files(first), real_files(second)
    tts.load(first, precision="int8")
    report = tts.load(second, precision="int8")
    assert set(report.shared) == {"flow", "vocoder"}
    assert report.added_bytes == report.bytes_by_component["t3"]
