"""T3, text to speech tokens: embeddings, conditioning, backbone and head, filled from the published names.

The package feeds begin-of-speech twice, both at position 0; so do we, or no token would be the package's.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint.catalog import T3Dims
from chatterbox_nb.checkpoint.loader import Fill, plain_fills
from chatterbox_nb.engine.nets.llama import Cache, Llama

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
        self.text_position = nn.Embedding(dims.text_positions, dims.width)
        self.speech_embedding = nn.Embedding(dims.speech_vocab, dims.width)
        self.speech_position = nn.Embedding(dims.speech_positions, dims.width)
        self.conditioning_encoder = conditioning_encoder
        self.backbone = Llama(dims)
        self.head = nn.Linear(dims.width, dims.speech_vocab, bias=False)

    def conditioning(self, speaker: Tensor, prompt: Tensor, exaggeration: float) -> Tensor:
        """Speaker `[1, E]`, prompt tokens `[1, P]` and emotion as prefix embeddings `[1, C, D]`.

        Computed in float32, once a take, from weights as they are stored: the perceiver's attention is sharp. bfloat16
        in it alone would move a full-size random T3's hidden states by 42 %; all the rest moves them by 1.5 %.
        """
        from chatterbox.models.t3.modules.cond_enc import T3Cond

        positions = torch.arange(prompt.shape[1], device=prompt.device)
        stored = self.speech_embedding(prompt) + self.speech_position(positions)
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
        return encoder(condition).to(stored.dtype)

    def text(self, ids: Tensor, guided: bool) -> Tensor:
        """Text ids `[S]`, start and stop included, and the two begin-of-speech, as `[B, S + 2, D]`.

        With guidance the second row carries no text, only its positions.
        """
        embedded = self.text_embedding(ids)[None]
        if guided:
            embedded = torch.cat([embedded, torch.zeros_like(embedded)])
        embedded = embedded + self.text_position(torch.arange(len(ids), device=ids.device))
        place = torch.tensor([self.dims.start_speech], device=ids.device)
        begin = self.speech(place, torch.zeros_like(place))[None]
        return torch.cat([embedded, begin.expand(len(embedded), 2, -1)], dim=1)

    def speech(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Speech tokens `[n]` at their positions `[n]`, as `[n, D]`."""
        return self.speech_embedding(tokens) + self.speech_position(positions)

    def logits(self, x: Tensor, cache: Cache, start: int) -> Tensor:
        """Embeddings `[B, S, D]` through backbone and head: logits of the last position, `[B, V]`."""
        return self.head(self.backbone(x, cache, start)[:, -1]).float()


# The layers that run once a token.
DECODED = ("backbone.", "head")


def fills(dims: T3Dims, conditioning_encoder: nn.Module) -> list[Fill]:
    """Published names → this module's parameters."""
    width, ffn = dims.width, dims.ffn
    found = [
        Fill("text_embedding.weight", ("text_emb.weight",)),
        Fill("text_position.weight", ("text_pos_emb.emb.weight",)),
        Fill("speech_embedding.weight", ("speech_emb.weight",)),
        Fill("speech_position.weight", ("speech_pos_emb.emb.weight",)),
        Fill("head.weight", ("speech_head.weight",)),
        Fill("backbone.norm.weight", ("tfmr.norm.weight",)),
    ]
    for index in range(dims.layers):
        ours, theirs = f"backbone.layers.{index}", f"tfmr.layers.{index}"
        found += [
            Fill(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",)),
            Fill(f"{ours}.ffn_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
            Fill(f"{ours}.attention.out.weight", (f"{theirs}.self_attn.o_proj.weight",)),
            Fill(f"{ours}.ffn.down.weight", (f"{theirs}.mlp.down_proj.weight",)),
        ]
        found += [
            Fill(
                f"{ours}.attention.qkv.weight",
                (f"{theirs}.self_attn.{part}_proj.weight",),
                (i * width, (i + 1) * width),
            )
            for i, part in enumerate("qkv")
        ]
        found += [
            Fill(f"{ours}.ffn.gate_up.weight", (f"{theirs}.mlp.{part}_proj.weight",), (i * ffn, (i + 1) * ffn))
            for i, part in enumerate(("gate", "up"))
        ]
    return found + [
        Fill(f"conditioning_encoder.{fill.target}", fill.sources)
        for fill in plain_fills(conditioning_encoder, "cond_enc.")
    ]
