"""Teacher forcing: what a loaded model makes of speech tokens that are given, without drawing any.

The fine ruler of quality: deterministic, and fine enough to see a ten-thousandth.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from chatterbox_nb.engine import decode
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision.layers import Int8Linear

DATA = Path(__file__).parent.parent / "tests" / "data"
HELDOUT = DATA / "heldout.json"


@cache
def heldout() -> list[tuple[str, Tensor]]:
    """Text and speech tokens of utterances that the demo voice was not trained on."""
    data = json.loads(HELDOUT.read_text())
    return [(entry["text"], torch.tensor(entry["speech_tokens"])) for entry in data]


def every_row_through_the_kernel(model: Model) -> Model:
    """Teacher forcing has hundreds of rows at once, which a kernel would send to `plain`; rows are independent."""
    for layer in model.t3.modules():
        if isinstance(layer, Int8Linear) and layer.kernel.name != "plain":
            layer.kernel.max_rows = sys.maxsize
    return model


def states_of(model: Model, ids: Tensor, speech: Tensor, steps: bool = False) -> Tensor:
    """Last hidden states `[n + 1, D]` at begin-of-speech and each speech token; as one stretch or step by step."""
    t3, voice = model.t3, model.builtin_voice()
    with torch.inference_mode():
        prefix = decode.prefill(t3, voice.speaker, voice.t3_prompt, 0.5)
        begin = t3.text(ids, False, 0)
        positions = torch.arange(1, len(speech) + 1)
        spoken = (t3.speech_embedding(speech) + t3.speech_position(positions))[None]
        start, length = prefix.length, begin.shape[1]
        cache = prefix.cache(t3.dims, 1, start + length + len(speech))
        if not steps:
            return t3.backbone(torch.cat([begin, spoken], dim=1), cache, start)[0, -len(speech) - 1 :]
        states = [t3.backbone(begin, cache, start)[0, -1:]]
        start += length
        states += [t3.backbone(x[None, None], cache, start + i)[0] for i, x in enumerate(spoken[0])]
        return torch.cat(states)


def logits_of(model: Model, ids: Tensor, speech: Tensor, steps: bool = False) -> Tensor:
    """Logits `[n + 1, V]` for each speech token and the stop, given all before it; of a compiled step, by it."""
    if model.t3.compiled:
        return _compiled_logits(model, ids, speech)
    states = states_of(model, ids, speech, steps)
    with torch.inference_mode():
        if not steps:
            return model.t3.head(states).float()
        return torch.cat([model.t3.head(state[None]) for state in states]).float()


def _compiled_logits(model: Model, ids: Tensor, speech: Tensor) -> Tensor:
    t3, voice = model.t3, model.builtin_voice()
    with torch.inference_mode():
        prefix = decode.prefill(t3, voice.speaker, voice.t3_prompt, 0.5)
        begin = t3.text(ids, False, 0)
        start = prefix.length + begin.shape[1]
        cache = prefix.cache(t3.dims, 1, start)
        logits = [t3.logits(begin, cache, prefix.length)]
        spoken = t3.speech(speech, torch.arange(1, len(speech) + 1))
        with decode.Decoding(t3, prefix, Sampling(cfg_weight=0.0)) as decoding:
            kept = decoding.kept(cache, len(speech))
            logits += [decoding.step(x[None], [(kept, start + i)]).clone() for i, x in enumerate(spoken)]
        return torch.cat(logits)


def losses(model: Model, count: int | None = None, steps: bool = False) -> Tensor:
    """Cross-entropy of each of the first `count` held-out utterances, its stop token included."""
    stop = torch.tensor([model.spec.t3.stop_speech])
    return torch.stack(
        [
            F.cross_entropy(logits_of(model, model.text_ids(text), speech, steps), torch.cat([speech, stop]))
            for text, speech in heldout()[:count]
        ]
    )
