"""Speech tokens to a mel spectrogram: conformer encoder, then Euler steps of conditional flow matching.

The networks are the package's. The driver is ours: quiet, with the noise given, a step at a time, ids kept integers
(the package casts them to the flow's dtype), the reference left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.engine import finite
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.events import CancelToken

MELS = 80
GUIDANCE = 0.7  # CFM_PARAMS.inference_cfg_rate


class RelativePositions(nn.Module):
    """`EspnetRelPositionalEncoding` without its table of 5,000 positions: computed for the length at hand.

    `forward(x [B, T, D])` → `x * sqrt(D)` and encodings `[1, 2 T - 1, D]` for distances T - 1 down to -(T - 1).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
        return x * math.sqrt(self.width), self.position_encoding(offset, x.shape[1]).to(x.device, x.dtype)

    def position_encoding(self, offset: int, size: int) -> Tensor:
        assert offset == 0, "the encoder reads its input whole"
        distance = torch.arange(size - 1, -size, -1, dtype=torch.float32)
        magnitude = distance.abs()[:, None]
        rates = torch.exp(torch.arange(0, self.width, 2, dtype=torch.float32) * -(math.log(10000.0) / self.width))
        angles = torch.where(distance[:, None] >= 0, magnitude * rates, -1 * magnitude * rates)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def own_constants(flow: nn.Module) -> None:
    """Replaces what was built on the meta device and is in no file."""
    encoder: Any = flow.encoder
    for embed in (encoder.embed, encoder.up_embed):
        embed.pos_enc = RelativePositions(embed.pos_enc.d_model)
    decoder: Any = flow.decoder
    decoder.estimator.time_mlp.register_forward_pre_hook(_as_weights)


def _as_weights(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Time embeddings are made in float32, where a thousandth is one; only then are they cast."""
    return inputs[0].to(module.linear_1.bias.dtype), *inputs[1:]


def time_steps(steps: int) -> Tensor:
    """Times of the Euler steps, `[steps + 1]`, on a cosine from 0 to 1."""
    return 1 - torch.cos(torch.linspace(0, 1, steps + 1) * 0.5 * torch.pi)


def tokens_to_mel(
    flow: Any,
    tokens: Tensor,
    voice: Voice,
    noise: Noise,
    steps: int,
    on_step: Callable[[int], None] = lambda step: None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Speech tokens `[1, N]` to a log mel `[1, 80, 2 N]`, 50 frames a second; one frame less after a longer prompt.

    Args:
        flow: the package's `CausalMaskedDiffWithXvec`, loaded.
        voice: whose reference is continued.
        steps: Euler steps.
        on_step: told after each step.
        cancel: checked before each step.

    Raises:
        EngineError: the mel is not finite.
    """
    device, dtype = flow.encoder_proj.bias.device, flow.encoder_proj.bias.dtype
    speaker = flow.spk_embed_affine_layer(F.normalize(voice.speaker_vector.to(device, dtype), dim=1))  # [1, 80]
    joined = torch.cat([voice.prompt_tokens.to(device), tokens.to(device)], dim=1)
    lengths = torch.tensor([joined.shape[1]], device=device)
    hidden, _ = flow.encoder(flow.input_embedding(joined), lengths)
    mu = flow.encoder_proj(hidden).transpose(1, 2).contiguous()  # [1, 80, T]
    prompt = voice.prompt_mel.to(device, dtype).transpose(1, 2)
    condition = torch.zeros_like(mu)
    condition[:, :, : prompt.shape[2]] = prompt

    x = noise.flow(MELS, mu.shape[2]).to(device)  # the steps add up in float32, whatever the networks compute in
    both = _with_unguided(x.to(dtype), mu, speaker, condition)
    times = time_steps(steps).to(device)
    for step in range(steps):
        if cancel is not None:
            cancel.check()
        both["x"][:] = x
        both["t"][:] = times[step]
        guided, unguided = flow.decoder.estimator(**both).float().chunk(2)
        velocity = (1.0 + GUIDANCE) * guided - GUIDANCE * unguided
        x = x + (times[step + 1] - times[step]) * velocity
        on_step(step + 1)
    finite.check(x, "the mel spectrogram", dtype)
    return x[:, :, prompt.shape[2] :]


def _with_unguided(x: Tensor, mu: Tensor, speaker: Tensor, condition: Tensor) -> dict[str, Tensor]:
    """The estimator's inputs in two rows: the second without mu, speaker and condition."""
    frames = x.shape[2]
    return {
        "x": x.repeat(2, 1, 1),
        "mask": x.new_ones(2, 1, frames),
        "mu": torch.cat([mu, torch.zeros_like(mu)]),
        "t": torch.zeros(2, device=x.device),
        "spks": torch.cat([speaker, torch.zeros_like(speaker)]),
        "cond": torch.cat([condition, torch.zeros_like(condition)]),
    }
