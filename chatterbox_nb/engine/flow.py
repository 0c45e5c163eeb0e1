"""Speech tokens to a mel spectrogram: conformer encoder, then Euler steps of conditional flow matching.

The encoder is the package's, the estimator ours (`nets/estimator.py`), and so is the driver: quiet, with the noise
given, a step at a time, ids kept integers (the package casts them to the flow's dtype), the reference left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.checkpoint.loader import Fill, plain_fills
from chatterbox_nb.checkpoint.spec import S3GenDims
from chatterbox_nb.engine import finite
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.nets import estimator as estimators
from chatterbox_nb.engine.nets.estimator import MELS, Estimator, Velocity
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision.exact import exact

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


def own_parts(flow: Any, dims: S3GenDims) -> None:
    """Makes the estimator ours, and what was built on the meta device and is in no file. Call it on the meta device."""
    for embed in (flow.encoder.embed, flow.encoder.up_embed):
        embed.pos_enc = RelativePositions(embed.pos_enc.d_model)
    flow.decoder.estimator = Estimator(dims).eval()
    flow.solver = None  # on a GPU: `gpu_flow.Solver`


def fills(flow: Any) -> list[Fill]:
    """Published names → parameters of the flow."""
    prefix = "decoder.estimator."
    borrowed = [fill for fill in plain_fills(flow, "flow.") if not fill.target.startswith(prefix)]
    return borrowed + estimators.fills(flow.decoder.estimator, prefix, f"flow.{prefix}")


def time_steps(steps: int, meanflow: bool) -> Tensor:
    """Times of the Euler steps, `[steps + 1]`, from 0 to 1: on a cosine, or evenly of a mean flow."""
    even = torch.linspace(0, 1, steps + 1)
    return even if meanflow else 1 - torch.cos(even * 0.5 * torch.pi)


def _noise(noise: Noise, frames: int, spoken: int, meanflow: bool) -> Tensor:
    """What a mel of so many frames begins as, the last of them `spoken`: float32 `[T, 80]`.

    For a mean flow the package draws what is spoken first, then all of it, and puts the one into the other.
    """
    drawn = noise.flow(MELS, spoken) if meanflow and noise.in_order else None
    x = noise.flow(MELS, frames)
    if drawn is not None:
        x[..., frames - spoken :] = drawn
    return x[0].t()


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
        flow: the package's `CausalMaskedDiffWithXvec` with our estimator, loaded.
        voice: whose reference is continued.
        steps: Euler steps.
        on_step: told after each step.
        cancel: checked before each step.

    Raises:
        EngineError: the mel is not finite.
    """
    device, dtype = flow.encoder_proj.bias.device, flow.encoder_proj.bias.dtype
    with exact(device):
        mu, speaker, condition = _conditions(flow, tokens.to(device), voice)
        estimator: Estimator = flow.decoder.estimator
        times = time_steps(steps, estimator.meanflow).to(device)
        # The steps add up in float32, whatever the networks compute in.
        x = _noise(noise, mu.shape[1], 2 * tokens.shape[1], estimator.meanflow).to(device)
        begin = begun if flow.solver is None else flow.solver
        step = begin(estimator, mu, speaker, condition, x, times)
        for index in range(steps):
            if cancel is not None:
                cancel.check()
            x = step(index)
            on_step(index + 1)
    finite.check(x, "the mel spectrogram", dtype)
    return x[voice.prompt_mel.shape[1] :].t()[None].clone(memory_format=torch.contiguous_format)


def _conditions(flow: Any, tokens: Tensor, voice: Voice) -> tuple[Tensor, Tensor, Tensor]:
    """What the estimator is told beside the mel so far: mu `[B, T, 80]`, the speaker `[B, 80]`, the reference's mel.

    Two rows with guidance, one of a mean flow, which needs none.
    """
    device, dtype = tokens.device, flow.encoder_proj.bias.dtype
    speaker = flow.spk_embed_affine_layer(F.normalize(voice.speaker_vector.to(device, dtype), dim=1))  # [1, 80]
    joined = torch.cat([voice.prompt_tokens.to(device), tokens], dim=1)
    lengths = torch.tensor([joined.shape[1]], device=device)
    hidden, _ = flow.encoder(flow.input_embedding(joined), lengths)
    mu = flow.encoder_proj(hidden)  # [1, T, 80]
    condition = torch.zeros_like(mu)
    condition[:, : voice.prompt_mel.shape[1]] = voice.prompt_mel.to(device, dtype)
    if flow.decoder.estimator.meanflow:
        return mu, speaker, condition
    # The second row has neither mu nor speaker nor condition: what guidance leads away from.
    mu, speaker, condition = (torch.cat([given, torch.zeros_like(given)]) for given in (mu, speaker, condition))
    return mu, speaker, condition


def begun(
    net: Estimator, mu: Tensor, speaker: Tensor, condition: Tensor, x: Tensor, times: Tensor
) -> Callable[[int], Tensor]:
    """Euler steps, each a call with its number, in their order.

    Args:
        mu, condition: `[B, T, 80]`, the second row, if there is one, unguided; speaker `[B, 80]`.
        x: noise, float32 `[T, 80]`.
        times: `[steps + 1]`.

    Returns:
        What gives the mel after a step, `[T, 80]`, good until the next.
    """
    velocity = Velocity(net, mu, speaker, condition, times)

    def step(index: int) -> Tensor:
        nonlocal x
        x = x + (times[index + 1] - times[index]) * guided(velocity(x, index))
        return x

    return step


def guided(velocity: Tensor) -> Tensor:
    """`[B, T, 80]` to float32 `[T, 80]`: away from the second row, if there is one."""
    if len(velocity) == 1:
        return velocity[0].float()
    towards, away = velocity.float()
    return (1.0 + GUIDANCE) * towards - GUIDANCE * away
