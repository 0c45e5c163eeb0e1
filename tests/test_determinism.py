"""Same seed, device and precision: the same bits, whatever happened before and around."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import OTHER_SENTENCE, SENTENCE

import chatterbox_nb as tts
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.take import Take

TEXT = f"{SENTENCE} {OTHER_SENTENCE}"
CLIP = DEMO_FOLDER / "builtin_voice.wav"


def digest(take: Take) -> str:
    return hashlib.sha256(take.samples.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def first() -> dict[str, str]:
    """What each precision says first."""
    found = {}
    for precision in ("fp32", "int8"):
        tts.load("demo", precision=precision)
        found[precision] = digest(tts.speak(TEXT, seed=7))
    return found


def test_again_it_is_the_same(first: dict[str, str]) -> None:
    tts.load("demo", precision="int8")
    assert digest(tts.speak(TEXT, seed=7)) == first["int8"]


def test_after_other_takes_it_is_the_same(first: dict[str, str]) -> None:
    tts.load("demo", precision="int8")
    tts.speak("Something else entirely.", seed=99, temperature=1.1, exaggeration=1.5, cfg_weight=0.0)
    assert digest(tts.speak(TEXT, seed=7)) == first["int8"]


def test_after_switching_precision_and_back_it_is_the_same(first: dict[str, str]) -> None:
    for precision in ("int8", "fp32", "int8", "fp32"):
        tts.load("demo", precision=precision)
        assert digest(tts.speak(TEXT, seed=7)) == first[precision]


def test_after_another_voice_it_is_the_same() -> None:
    tts.load("demo", precision="fp32")
    samples = np.sin(np.arange(48_000) * 0.05).astype(np.float32) * 0.3
    a = digest(tts.speak(TEXT, seed=7, voice=CLIP))
    b = digest(tts.speak(TEXT, seed=7, voice=(samples, 24_000)))
    assert a != b
    assert digest(tts.speak(TEXT, seed=7, voice=CLIP)) == a
    assert digest(tts.speak(TEXT, seed=7, voice=(samples, 24_000))) == b


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.more), "int8"])
def test_in_a_fresh_process_it_is_the_same(first: dict[str, str], precision: str) -> None:
    code = (
        "import hashlib, chatterbox_nb as tts; "
        f"tts.load('demo', precision='{precision}'); "
        f"print(hashlib.sha256(tts.speak({TEXT!r}, seed=7).samples.tobytes()).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == first[precision]


def test_a_chunk_is_the_same_whatever_its_neighbours_are() -> None:
    tts.load("demo", precision="int8")
    one = tts.speak(f"{SENTENCE}\n\n{OTHER_SENTENCE}", seed=7)
    other = tts.speak(f"My yellow music likes your lazy house.\n\n{OTHER_SENTENCE}", seed=7)
    assert one.chunks[1].tokens == other.chunks[1].tokens
    tail = len(one.chunks[1].tokens) * 960
    assert np.array_equal(one.samples[-tail:], other.samples[-tail:])


def test_a_seed_means_the_same_at_every_precision() -> None:
    """Stage noise is drawn in fp32: int8 and fp32 start from the same, and stay together for a while."""
    tokens = {}
    for precision in ("fp32", "int8"):
        tts.load("demo", precision=precision)
        tokens[precision] = tts.speak(SENTENCE, seed=7).chunks[0].tokens
    agree = 0
    for a, b in zip(tokens["fp32"], tokens["int8"], strict=False):
        if a != b:
            break
        agree += 1
    assert agree >= 5


def test_another_seed_is_another_take() -> None:
    tts.load("demo", precision="int8")
    assert digest(tts.speak(TEXT, seed=7)) != digest(tts.speak(TEXT, seed=8))
