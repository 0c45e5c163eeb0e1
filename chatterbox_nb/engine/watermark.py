"""Resemble AI's inaudible watermark (Perth), on every output.

Built without its constructor's random numbers and prints, and without its decoder, which only detection needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatterbox_nb.audio import Samples
from chatterbox_nb.checkpoint.reference import import_package

# Perth's transform reads 1025 samples at 32 kHz at the least.
_SHORTEST_SECONDS = 0.05


def _perth_net() -> Any:
    import_package()
    from perth.perth_net import PREPACKAGED_MODELS_DIR
    from perth.perth_net.perth_net_implicit.checkpoint_manager import CheckpointManager
    from perth.perth_net.perth_net_implicit.model.perth_net import PerthNet

    folder = CheckpointManager(Path(PREPACKAGED_MODELS_DIR), "implicit")
    file = max(folder.save_path.glob("*.pth.tar"), key=lambda path: int(path.name.split(".")[0].split("_")[-1]))
    with torch.device("meta"):
        net = PerthNet(folder.hp)
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"], assign=True)
    return net.eval().requires_grad_(False)


def _padded(samples: Samples, sample_rate: int) -> Samples:
    return np.pad(samples, (0, max(0, int(_SHORTEST_SECONDS * sample_rate) - len(samples))))


class Watermarker:
    """Puts the mark in; `bytes` is what it takes."""

    def __init__(self) -> None:
        from perth import PerthImplicitWatermarker

        net = _perth_net()
        del net.decoder
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
        self._marker = PerthImplicitWatermarker(run_name=None, perth_net=net)

    def warm_up(self, sample_rate: int) -> None:
        """Its first call imports and prepares for seconds; now, and not after the first words are spoken."""
        self.apply(np.random.default_rng(0).normal(0, 0.1, sample_rate // 5).astype(np.float32), sample_rate)

    def apply(self, samples: Samples, sample_rate: int) -> Samples:
        """Marked samples of the same length; silence has no room for a mark and stays as it is.

        In less than a tenth of a second the mark is put, and too short to be read.
        """
        if not len(samples) or not samples.any():
            return samples
        with torch.inference_mode():
            marked = self._marker.apply_watermark(_padded(samples, sample_rate), sample_rate=sample_rate)
        out = np.zeros_like(samples)
        out[: len(marked)] = marked[: len(samples)]
        return np.clip(out, -1.0, 1.0)


def detect(samples: Samples, sample_rate: int) -> float:
    """How much of the mark is there: near 1 in marked audio, near 0 or NaN otherwise."""
    import_package()
    from perth import PerthImplicitWatermarker

    marker = PerthImplicitWatermarker(run_name=None, perth_net=_perth_net())
    with torch.inference_mode():
        return float(np.mean(marker.get_watermark(_padded(samples, sample_rate), sample_rate=sample_rate, round=False)))
