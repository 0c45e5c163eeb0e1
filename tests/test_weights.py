"""The real checkpoint, where it is in the hub's cache: `make test-weights`. The oracle's tests run on it too."""

from __future__ import annotations

import pytest

import chatterbox_nb as tts
from chatterbox_nb.engine.watermark import detect

pytestmark = [pytest.mark.weights, pytest.mark.usefixtures("english")]
TEXT = "The quick brown fox jumps over the lazy dog, and nobody minds at all."


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_speaks_at_each_precision(precision: str) -> None:
    report = tts.load("english", precision=precision)
    assert report.bytes == report.plan.expected_bytes
    take = tts.speak(TEXT, seed=7)
    assert take.finish == "stop"
    assert 2.5 < take.duration < 9.0
    assert detect(take.samples, take.sample_rate) > 0.8
    assert not take.warnings


def test_int8_takes_a_fifth_of_what_the_package_loads() -> None:
    report = tts.load("english", precision="int8")
    assert report.ratios["of what the package loads in fp32"] <= 0.21
    assert report.ratios["of our own fp32"] <= 0.255
    assert report.ratios["of our own fp16"] <= 0.495
