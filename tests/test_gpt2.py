"""Our GPT-2 is transformers' GPT-2: the package's own `T3.tfmr` in turbo, with the weights of the same checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_llama import CHUNKS, DEVICE, TOLERANCE, embeddings, ours
from torch import Tensor

from chatterbox_nb.checkpoint import reference
from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.checkpoint.synthetic import TINY_TURBO
from chatterbox_nb.engine import decode
from chatterbox_nb.engine.nets import t3 as t3_net
from chatterbox_nb.engine.nets.gpt2 import GPT2
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.oracle import quiet
from chatterbox_nb.errors import TextError

DIMS = TINY_TURBO.t3


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The package's T3, with random weights."""
    t3: Any = reference.build(TINY_TURBO).t3.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in t3.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return t3


@pytest.fixture(scope="module")
def t3(theirs: Any) -> T3:
    """Ours, filled as a load fills it."""
    net = T3(DIMS, reference.build(TINY_TURBO).t3.cond_enc.to_empty(device="cpu")).eval().requires_grad_(False)
    state = theirs.state_dict()
    for fill in t3_net.fills(DIMS, net.conditioning_encoder):
        layer, _, name = fill.target.rpartition(".")
        value = state[fill.sources[0]]
        getattr(net.get_submodule(layer), name).data[fill.index] = value.t() if fill.transposed else value
    return net


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_hidden_states_are_transformers(t3: T3, theirs: Any, chunks: list[int]) -> None:
    x, net = embeddings(2, 40, DIMS.width), t3.backbone
    assert isinstance(net, GPT2)
    positioned = x + t3.position(torch.arange(40))
    with torch.inference_mode():
        wanted = theirs.tfmr(inputs_embeds=x, use_cache=False).last_hidden_state
        assert (ours(net, positioned, DIMS, chunks) - wanted).abs().max() <= TOLERANCE


def test_what_t3_reads_before_its_first_token_is_the_packages(t3: T3, theirs: Any) -> None:
    """Conditionals, text and begin-of-speech, in one row: there is no guidance."""
    from chatterbox.models.t3.modules.cond_enc import T3Cond

    speaker, prompt = embeddings(1, 1, DIMS.speaker_width)[0], torch.arange(40)[None]
    ids = torch.tensor([5, 9, 9, 200])
    with torch.inference_mode(), quiet():
        condition = T3Cond(speaker_emb=speaker, cond_prompt_speech_tokens=prompt, emotion_adv=None)
        begin = torch.tensor([[DIMS.start_speech]])
        embedded, _ = theirs.prepare_input_embeds(t3_cond=condition, text_tokens=ids[None], speech_tokens=begin)
        wanted = embedded + theirs.tfmr.wpe(torch.arange(embedded.shape[1]))
        prefix = t3.conditioning(speaker, prompt, 0.5)
        found = torch.cat([prefix, t3.text(ids, False, prefix.shape[1])], dim=1)
    assert prefix.shape[1] == DIMS.prefix_length == 41
    assert (found - wanted).abs().max() <= TOLERANCE


def test_a_token_has_the_position_after_all_that_was_read(t3: T3) -> None:
    tokens = torch.tensor([7, 7])
    places = torch.tensor([t3.place(60, 1), t3.place(60, 3)])
    assert places.tolist() == [60, 62]
    wanted = t3.speech_embedding(tokens) + t3.position(torch.tensor([60, 62]))
    assert torch.equal(t3.speech(tokens, places), wanted)


def test_the_cache_of_a_gpt2_turns_nothing() -> None:
    cache = Cache.empty(DIMS, 1, 9, DEVICE, torch.float32)
    assert torch.equal(cache.cosine, torch.ones(9, DIMS.head_width))
    assert not cache.sine.any()


def extent_of(text: int, limit: int = 1000, dims: T3Dims = DIMS) -> tuple[int, int, str]:
    empty = torch.empty(dims.layers, 1, dims.heads, dims.prefix_length, dims.head_width)
    return decode.extent(decode.Prefix(empty, empty), torch.zeros(text, dtype=torch.long), limit, limit, dims)


def test_a_chunk_ends_where_the_positions_do() -> None:
    start, wanted, ends = extent_of(100)
    assert start == DIMS.prefix_length + 100 + 1
    assert (start + wanted, ends) == (DIMS.positions, "limit")


def test_a_text_that_leaves_no_room_for_speech_is_refused() -> None:
    with pytest.raises(TextError, match="600 text tokens and the model has 459 positions"):
        extent_of(600)


def test_positions_and_text_tables_of_a_llama_are_not_there(t3: T3) -> None:
    names: dict[str, Tensor] = t3.state_dict()
    assert "position.weight" in names
    assert not {"text_position.weight", "speech_position.weight"} & names.keys()
