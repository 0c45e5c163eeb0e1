"""int8 is really int8: a decode step makes nothing as large as a layer, and the kernel multiplies every one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import FAST_KERNELS, HERE, SENTENCE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chatterbox_nb.engine import decode
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision.layers import Int8Linear

TOKENS = 6
OPERATORS = {"int8pack": "aten::_weight_int8pack_mm", "dynamic": "onednn::qlinear_pointwise"}


class Watch(TorchDispatchMode):
    """Every operator that runs, and the largest new tensor it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if self._dense(tensor)}
        result = func(*args, **(kwargs or {}))
        self.calls[func.name().partition(".")[0]] += 1
        for tensor in tree_leaves(result):
            if self._dense(tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return result

    @staticmethod
    def _dense(thing: Any) -> bool:
        return isinstance(thing, Tensor) and not thing.is_mkldnn


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    with torch.inference_mode(), watch:
        yield watch


def prefilled(model: Model) -> tuple[Cache, int]:
    """A cache with the voice and a text in it, with guidance, and where it ends."""
    t3, voice, text = model.t3, model.builtin_voice(), model.text_ids(SENTENCE)
    prefix = decode.prefill(t3, voice.speaker, voice.t3_prompt, 0.5)
    start = prefix.length + len(text) + 2
    cache = prefix.cache(t3.dims, 2, start + TOKENS)
    t3.logits(t3.text(text, guided=True), cache, prefix.length)
    return cache, start


def layers_of(model: Model) -> list[Int8Linear]:
    decoded = (model.t3.backbone, model.t3.head)
    return [layer for part in decoded for layer in part.modules() if isinstance(layer, Int8Linear)]


@pytest.mark.parametrize("kernel", FAST_KERNELS)
def test_the_kernel_multiplies_every_layer_of_every_token(demo: Callable[..., Model], kernel: str) -> None:
    model = demo("int8", kernel)
    layers = layers_of(model)
    assert len(layers) == 4 * model.spec.t3.layers + 1  # qkv, out, gate and up, down; and the head
    with torch.inference_mode():
        cache, start = prefilled(model)
    with watched() as watch:
        for token in range(TOKENS):
            x = model.t3.speech(torch.tensor([100 + token]), torch.tensor([token + 1])).expand(2, 1, -1)
            model.t3.logits(x, cache, start + token)
    assert watch.calls[OPERATORS[kernel]] == len(layers) * TOKENS
    others = ("aten::mm", "aten::addmm", "aten::linear", "aten::bmm", "aten::baddbmm")
    assert sum(watch.calls[name] for name in others) == 0


@pytest.mark.parametrize("kernel", FAST_KERNELS)
def test_a_token_allocates_less_than_one_layer(demo: Callable[..., Model], kernel: str) -> None:
    """Not even one layer's int8 weights, let alone its floats."""
    model = demo("int8", kernel)
    smallest = min(layer.in_features * layer.out_features for layer in layers_of(model))
    with torch.inference_mode():
        cache, start = prefilled(model)
    with watched() as watch:
        x = model.t3.speech(torch.tensor([100]), torch.tensor([1])).expand(2, 1, -1)
        model.t3.logits(x, cache, start)
    logits = 2 * model.spec.t3.speech_vocab * 4  # of both rows, which are no weights
    assert 0 < watch.largest <= max(smallest, logits)


def test_the_plain_path_allocates_one_layer_at_a_time(demo: Callable[..., Model]) -> None:
    model = demo("int8", "plain")
    largest = max(4 * layer.in_features * layer.out_features for layer in layers_of(model))
    with torch.inference_mode():
        cache, start = prefilled(model)
    with watched() as watch:
        x = model.t3.speech(torch.tensor([100]), torch.tensor([1])).expand(2, 1, -1)
        model.t3.logits(x, cache, start)
    assert watch.largest <= largest
    assert watch.calls["aten::_weight_int8pack_mm"] == 0


def test_a_whole_chunk_calls_the_kernel_layers_times_tokens(demo: Callable[..., Model]) -> None:
    """Through the loop that speech is made by. The text before it goes by more rows than the kernel takes."""
    if HERE.capability not in ("AVX2", "AVX512"):
        pytest.skip("no AVX2")
    model = demo("int8", "int8pack")
    voice = model.builtin_voice()
    with torch.inference_mode():
        prefix = decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5)
    with watched() as watch:
        found = decode.decode(model.t3, prefix, model.text_ids(SENTENCE), Sampling(), StageNoise(7), 20, 20)
    heads = len(found.tokens)  # of the text's last position, too, only two rows are asked for
    rest = (len(layers_of(model)) - 1) * (len(found.tokens) - 1)
    assert watch.calls["aten::_weight_int8pack_mm"] == heads + rest
