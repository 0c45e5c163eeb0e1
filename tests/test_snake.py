"""The vocoder's activation in blocks, against the package's formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.snake import Snake


@pytest.mark.parametrize(("channels", "length"), [(1, 1), (3, 700_000), (64, 54_721), (5, 17)])
def test_it_is_the_packages(channels: int, length: int) -> None:
    import_package()
    from chatterbox.models.s3gen.hifigan import Snake as Theirs

    theirs: Any = Theirs(channels).requires_grad_(False)
    theirs.alpha.copy_(torch.linspace(-2, 2, channels))
    ours: Any = Theirs(channels).requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    ours.__class__ = Snake
    x = torch.randn(2, channels, length, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    assert torch.allclose(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)


def test_the_vocoder_has_it(demo: Callable[..., Model]) -> None:
    names = {type(layer) for layer in demo("int8").vocoder.modules() if type(layer).__name__ == "Snake"}
    assert names == {Snake}
