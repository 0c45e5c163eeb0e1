"""T3, text to speech tokens: embeddings, conditioning, backbone and head, filled from the published names.

The package feeds begin-of-speech twice, both at position 0; so do we, or no token would be the package's.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint.loader import Fill, plain_fills
from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.nets import gpt2, llama
from chatterbox_nb.engine.nets.gpt2 import GPT2
from chatterbox_nb.engine.nets.llama import Cache, Llama
from chatterbox_nb.precision.layers import device_of

if TYPE_CHECKING:
    from chatterbox_nb.engine.gpu_decode import Runner


class T3(nn.Module):
    """Borrows the package's `T3CondEnc` (it runs once a take); the rest is ours.

    Args:
        dims: its sizes.
        conditioning_encoder: the package's module, without weights.
    """

    def __init__(self, dims: T3Dims, conditioning_encoder: nn.Module) -> None:
        super().__init__()
        self.dims = dims
        self.compiled = False  # a token's step is that of `step.py`
        self.runner: Runner | None = None  # on a GPU: a token's step is that of `gpu_step.py`
        self.text_embedding = nn.Embedding(dims.text_vocab, dims.width)
        self.speech_embedding = nn.Embedding(dims.speech_vocab, dims.width)
        self.conditioning_encoder = conditioning_encoder
        self.backbone: Llama | GPT2
        if dims.gpt2:
            self.position = nn.Embedding(dims.positions, dims.width)
            self.backbone = GPT2(dims)
        else:
            self.text_position = nn.Embedding(dims.text_positions, dims.width)
            self.speech_position = nn.Embedding(dims.speech_positions, dims.width)
            self.backbone = Llama(dims)
        self.head = nn.Linear(dims.width, dims.speech_vocab, bias=dims.gpt2)

    def conditioning(self, speaker: Tensor, prompt: Tensor, exaggeration: float) -> Tensor:
        """Speaker `[1, E]`, prompt tokens `[1, P]` and emotion as prefix embeddings `[1, C, D]`.

        Computed in float32, once a take, from weights as they are stored: the perceiver's attention is sharp. bfloat16
        in it alone would move a full-size random T3's hidden states by 42 %; all the rest moves them by 1.5 %.
        """
        from chatterbox.models.t3.modules.cond_enc import T3Cond

        stored = self.speech_embedding(prompt)
        if not self.dims.gpt2:
            stored = stored + self.speech_position(torch.arange(prompt.shape[1], device=prompt.device))
        embedded, encoder = stored.float(), self.conditioning_encoder
        if stored.dtype != torch.float32:
            encoder = copy.deepcopy(encoder).float()
        emotion = torch.full((1, 1, 1), exaggeration, dtype=embedded.dtype, device=embedded.device)
        condition = T3Cond(
            speaker_emb=speaker.to(embedded.dtype),
            cond_prompt_speech_tokens=prompt,
            cond_prompt_speech_emb=embedded,
            emotion_adv=emotion,
        )
        found: Tensor = encoder(condition).to(stored.dtype)
        return found + self._positions(0, found.shape[1]) if self.dims.gpt2 else found

    def _positions(self, start: int, count: int) -> Tensor:
        """A GPT-2's embeddings of so many positions, `[count, D]`."""
        found: Tensor = self.position(torch.arange(start, start + count, device=device_of(self.position)))
        return found

    def text(self, ids: Tensor, guided: bool, start: int = 0) -> Tensor:
        """Text ids `[S]`, start and stop included where the model has them, and begin-of-speech, as `[B, S + n, D]`.

        With guidance the second row carries no text, only its positions.

        Args:
            start: positions before the text, which a GPT-2 counts from.
        """
        embedded = self.text_embedding(ids.to(device_of(self.text_embedding)))[None].to(ids.device)
        if guided:
            embedded = torch.cat([embedded, torch.zeros_like(embedded)])
        place = torch.tensor([self.dims.start_speech], device=ids.device)
        if self.dims.gpt2:
            begin = self.speech_embedding(place)[None].expand(len(embedded), 1, -1)
            return torch.cat([embedded, begin], dim=1) + self._positions(start, len(ids) + 1)
        embedded = embedded + self.text_position(torch.arange(len(ids), device=ids.device))
        begin = self.speech(place, torch.zeros_like(place))[None]
        return torch.cat([embedded, begin.expand(len(embedded), 2, -1)], dim=1)

    @property
    def places(self) -> nn.Module:
        """The embedding of a speech token's place."""
        return self.position if self.dims.gpt2 else self.speech_position

    def place(self, start: int, count: int) -> int:
        """The position that `speech` is told of a chunk's newest token.

        Args:
            start: positions before its first token.
            count: its tokens so far.
        """
        return start + count - 1 if self.dims.gpt2 else count

    def speech(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Speech tokens `[n]` at their places `[n]` (`place`), as `[n, D]`."""
        found: Tensor = self.speech_embedding(tokens) + self.places(places)
        return found

    def logits(self, x: Tensor, cache: Cache, start: int) -> Tensor:
        """Embeddings `[B, S, D]` through backbone and head: logits of the last position, `[B, V]`."""
        return self.head(self.backbone(x, cache, start)[:, -1]).float()


# The layers that run once a token.
DECODED = ("backbone.", "head")


def fills(dims: T3Dims, conditioning_encoder: nn.Module) -> list[Fill]:
    """Published names → this module's parameters."""
    tables = {"text_embedding": "text_emb", "speech_embedding": "speech_emb", "head": "speech_head"}
    if dims.gpt2:
        found = [*gpt2.fills(dims.layers), Fill("head.bias", ("speech_head.bias",))]
        tables["position"] = "tfmr.wpe"
    else:
        found = llama.fills(dims)
        tables |= {"text_position": "text_pos_emb.emb", "speech_position": "speech_pos_emb.emb"}
    found += [Fill(f"{ours}.weight", (f"{theirs}.weight",)) for ours, theirs in tables.items()]
    return found + [
        Fill(f"conditioning_encoder.{fill.target}", fill.sources)
        for fill in plain_fills(conditioning_encoder, "cond_enc.")
    ]
