"""The tiny turbo's T3 as a load makes it, at any precision and on any device, and what it reads."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from chatterbox_nb.checkpoint import loader, reference, synthetic
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.synthetic import TINY_TURBO
from chatterbox_nb.checkpoint.tensorfile import TensorFile
from chatterbox_nb.engine import assembly, decode
from chatterbox_nb.engine.decode import Prefix
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device
from chatterbox_nb.precision.plan import plan

DIMS, OPTIONS = TINY_TURBO.t3, Sampling.of(TINY_TURBO)
TEXTS = (torch.tensor([5, 9, 9, 200, 31]), torch.tensor([17, 4]))


@cache
def t3(precision: str, place: str) -> T3:
    """Torch's layers; a runner may be put beside them."""
    built, facts = reference.build(TINY_TURBO), device.facts(place)
    tensors = inventory(TINY_TURBO, built)
    planned = plan(tensors, precision, facts, "plain")
    modules, fills = assembly.assemble(TINY_TURBO, built, tensors, planned, facts)
    net = modules["t3"]
    assert isinstance(net, T3)
    with TemporaryDirectory() as folder:
        path = Path(folder) / TINY_TURBO.file("t3").name
        synthetic._write_file(path, [each for each in tensors if each.file == path.name], TINY_TURBO, 0)
        with TensorFile(path) as file:
            loader.load(net, file, fills["t3"], torch.device(place))
    return net


def prefix(net: T3) -> Prefix:
    """Of a random voice."""
    place, generator = net.backbone.norm.weight.device, torch.Generator().manual_seed(0)
    speaker = torch.randn(1, DIMS.speaker_width, generator=generator)
    prompt = torch.randint(0, DIMS.start_speech, (1, DIMS.prompt_tokens), generator=generator)
    return decode.prefill(net, speaker.to(place), prompt.to(place), 0.0)
