"""The package's own classes at the voice's sizes, with the values that a training begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from chatterbox_nb.checkpoint import reference
from demo_voice.recipe import SEED, SPEC, USED_CODES

CODES, SPECIAL = SPEC.s3gen.codes, SPEC.t3.speech_vocab - SPEC.s3gen.codes


def fresh() -> reference.Modules:
    """All of them, the same at each call; without dropout."""
    torch.manual_seed(SEED)
    modules = reference.build(SPEC, "cpu", initialized=True)
    for part in (modules.t3, modules.s3gen, modules.voice_encoder):
        for layer in part.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    return modules


def with_weights(module: Any, weights: dict[str, Tensor]) -> Any:
    module.load_state_dict(weights)
    return module.eval()


class CodeTable(nn.Module):
    """How a table of speech codes is trained: a row of its own for each used code, on top of what its digits share.

    row(code) = own(code) + sum over digits of part(digit, value). All unused codes are one row. Folded in the end.
    """

    def __init__(self, rows: int, width: int, spread: float) -> None:
        super().__init__()
        self.rows = rows
        codes = torch.arange(USED_CODES)
        digits = torch.stack([(codes // 3**place) % 3 for place in range(8)], 1)
        self.register_buffer("digits", nn.functional.one_hot(digits, 3).flatten(1).float(), persistent=False)
        self.parts = nn.Parameter(torch.randn(24, width) * spread)

    def distinct(self, own: Tensor) -> Tensor:
        """The rows that differ: used codes, all unused ones, special tokens, `[USED_CODES + 1 + special, width]`."""
        return torch.cat([own[:USED_CODES] + self.digits @ self.parts, own[USED_CODES:]])

    def forward(self, own: Tensor) -> Tensor:
        """`[USED_CODES + 1 + special, width]` to `[rows, width]`."""
        rows = self.distinct(own)
        unused = rows[USED_CODES : USED_CODES + 1].expand(CODES - USED_CODES, -1)
        return torch.cat([rows[:USED_CODES], unused, rows[USED_CODES + 1 :]])

    def right_inverse(self, table: Tensor) -> Tensor:
        return torch.cat([table[: USED_CODES + 1], table[CODES:]]).clone()


def train_table(layer: nn.Module, spread: float, scale: float) -> None:
    """Lets a layer's `weight` [codes + special, width] be trained as a CodeTable."""
    rows, width = layer.weight.shape
    with torch.no_grad():
        layer.weight.mul_(scale)
    parametrize.register_parametrization(layer, "weight", CodeTable(rows, width, spread), unsafe=True)


def distinct_rows(layer: nn.Module) -> Tensor:
    """Of a layer whose table is trained: a third of its rows, in which all the others are."""
    parts = layer.parametrizations["weight"]
    return parts[0].distinct(parts.original)


def row_of(codes: Tensor) -> Tensor:
    """Which of the distinct rows is a code's."""
    return torch.where(codes < USED_CODES, codes, (codes - (CODES - USED_CODES - 1)).clamp(min=USED_CODES))


def fold_tables(module: nn.Module) -> None:
    """Makes plain tensors of the tables again."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight") and isinstance(layer.parametrizations["weight"][0], CodeTable):
            parametrize.remove_parametrizations(layer, "weight")


def text_tokenizer() -> Callable[[str], list[int]]:
    """Text to ids, by the package's own tokenizer of the voice's file."""
    from chatterbox.models.tokenizers import EnTokenizer

    from demo_voice.alphabet import write

    with TemporaryDirectory() as folder:
        return EnTokenizer(write(Path(folder))).encode
