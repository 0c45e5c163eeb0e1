"""What the full-size benchmark measures of int8 alone: efforts, chunks decoded together, streaming, a voice."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.worker import Figures, timed
from chatterbox_nb.audio import Clip
from chatterbox_nb.engine import conditioning, decode, flow
from chatterbox_nb.engine.effort import EFFORTS, defaults
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker, SpokenChunk
from chatterbox_nb.engine.sampling import Sampling

STREAMED = "fast"  # the effort that streaming is measured at
LINES, MOST_LINES, LINE_TOKENS, _LINE_WARM_UP = 4, 8, 60, 4


def measure(model: Model, text: str, take: Figures, tokens: int) -> Figures:
    """All but the voice.

    Args:
        take: the figures of the take at best, with what it spoke.
        tokens: of a take.
    """
    efforts = {name: _effort(model, name, take) for name in EFFORTS if name != "best"}
    return {
        "efforts": efforts,
        "together": _together(model, text, min(LINE_TOKENS, tokens)),
        "streaming": _streaming(model, text, tokens, efforts[STREAMED]),
    }


def _effort(model: Model, name: str, take: Figures) -> Figures:
    """The same take, with the mel at an effort."""
    asked = defaults(name, model.spec)
    voice, steps = model.builtin_voice().shortened(asked["voice_seconds"]), asked["cfm_steps"]
    tokens = torch.tensor([take["spoken"]])
    _, mel = timed(lambda: flow.tokens_to_mel(model.flow, tokens, voice, StageNoise(0), steps))
    total = take["total_seconds"] - take["seconds"]["mel"] + mel
    return {
        "cfm_steps": steps,
        "voice_seconds": voice.seconds,
        "mel": mel,
        "total_seconds": total,
        "real_time_factor": total / take["audio_seconds"],
    }


def _together(model: Model, text: str, tokens: int) -> Figures:
    """Tokens a second of one chunk, and of several that are decoded side by side."""
    rates = {lines: _rate(model, text, lines, tokens) for lines in (1, LINES, MOST_LINES)}
    return {
        "lines": LINES,
        "one_tokens_per_second": rates[1],
        "all_tokens_per_second": rates[LINES],
        "ratio": rates[LINES] / rates[1],
        "most_lines": MOST_LINES,
        "most_tokens_per_second": rates[MOST_LINES],
        "most_ratio": rates[MOST_LINES] / rates[1],
    }


def _rate(model: Model, text: str, lines: int, tokens: int) -> float:
    voice, ids = model.builtin_voice(), model.text_ids(text)
    prefix = decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5)
    with decode.Decoding(model.t3, prefix, Sampling()) as decoding:
        for index in range(lines):
            decoding.begin(ids, StageNoise(0, index), _LINE_WARM_UP + tokens + 1, _LINE_WARM_UP + tokens + 1)
        for _ in range(_LINE_WARM_UP):
            decoding.advance()
        _, seconds = timed(lambda: [decoding.advance() for _ in range(tokens)])
        assert len(decoding.lines) == lines, "a line has ended"
    return lines * tokens / seconds


def _streaming(model: Model, text: str, tokens: int, effort: Figures) -> Figures:
    """One chunk, heard while its tokens come: seconds until its first and its last marked samples."""
    limited = replace(model, spec=replace(model.spec, max_tokens=tokens))
    voice = model.builtin_voice().shortened(effort["voice_seconds"])
    heard: list[tuple[float, int]] = []

    def on_segment(_: int, segment: SpokenChunk) -> None:
        heard.append((time.perf_counter(), len(segment.samples)))

    begun = time.perf_counter()
    speaker = Speaker(
        limited, voice, Sampling(), 0.5, StageNoise(0), [text], steps=effort["cfm_steps"], on_segment=on_segment
    )
    (spoken,) = speaker
    assert spoken.finish == "limit", f"it has ended by itself: {spoken.finish}"
    last = heard[-1][0] - begun
    return {
        "effort": STREAMED,
        "segments": len(heard),
        "first_audio_seconds": heard[0][1] / model.spec.sample_rate,
        "first_seconds": heard[0][0] - begun,
        "last_seconds": last,
        "whole_seconds": effort["total_seconds"],
        "ratio": last / effort["total_seconds"],
    }


def prepared(model: Model, clip: Clip) -> dict[str, Any]:
    """Seconds of making a clip a voice: reading the encoders from disk, and what they do."""
    encoders, read = timed(model.read_encoders)
    _, prepare = timed(lambda: conditioning.prepare(clip, encoders, model.spec, "clip"))
    return {"read": read, "prepare": prepare, "total": read + prepare}
