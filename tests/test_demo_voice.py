"""How the demo voice is made: texts, tables, the loop, what follows what. `make demo-voice-quick` trains."""

from __future__ import annotations

import random
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks import pages
from chatterbox_nb import text as text_rules
from demo_voice import card, corpus, espeak, networks, recipe, stages, store, texts, train, vocoder
from demo_voice.espeak import Manner
from demo_voice.recipe import USED_CODES, Fit

needs_espeak = pytest.mark.skipif(find_library("espeak-ng") is None, reason="espeak-ng is not installed")
SMALL = Fit(steps=12, batch=4, rate=1e-2)


# Texts


def test_the_same_seed_gives_the_same_texts() -> None:
    assert texts.training(200, 5) == texts.training(200, 5) != texts.training(200, 6)


def test_no_text_is_longer_than_a_chunk_or_trained_on_twice() -> None:
    found = texts.training(2_000, 1)
    assert len(set(found)) == 2_000 and max(map(len, found)) <= recipe.SPEC.text.max_chars


def test_texts_are_as_the_text_rules_leave_them() -> None:
    """So what is trained on is what will be asked for: lower case, words for digits."""
    for text in texts.training(500, 2):
        assert text_rules.apply_rules(text, recipe.SPEC.text) == text


def test_no_held_out_word_is_trained_on() -> None:
    said = {word.strip(".,?!") for text in texts.training(5_000, 3) for word in text.split()}
    assert len(texts.held_out()) == 118 and said.isdisjoint(texts.held_out())


def test_nothing_that_is_evaluated_is_trained_on() -> None:
    asked = {text.lower() for kind in texts.evaluation().values() for text in kind}
    assert asked.isdisjoint(texts.training(20_000, recipe.SEED))


def test_evaluation_has_so_many_of_each_kind() -> None:
    assert {kind: len(said) for kind, said in texts.evaluation().items()} == {
        "template": 50, "digits": 20, "unseen": 40, "natural": 24,
    }  # fmt: skip


def test_letters_are_the_words_that_the_text_rules_spell_with() -> None:
    spelled = text_rules.apply_rules("USB", text_rules.TextRules(abbreviations_as_words=True, lowercase=True))
    assert set(spelled.split()) <= set(texts.LETTERS)


def test_invented_words_are_no_words_that_are_held_out() -> None:
    drawn = [texts.invented(random.Random(seed)) for seed in range(200)]
    assert not set(drawn) & set(texts.held_out()) and len(set(drawn)) > 150


def test_a_batch_has_texts_of_one_length() -> None:
    lengths = [3, 4, 3, 5, 4, 3, 3]
    batches = texts.batches_by_length(lengths, 2, seed=0)
    drawn = [next(batches) for _ in range(4)]
    assert all(len({lengths[index] for index in batch}) == 1 for batch in drawn)
    assert sorted(index for batch in drawn for index in batch) == list(range(7))


# Speech of espeak-ng


@needs_espeak
def test_the_same_text_gives_the_same_utterance() -> None:
    """espeak-ng goes on from where it was, so each group of utterances has a process of its own."""
    said = []
    for _ in range(2):
        with corpus.fresh_processes() as pool:
            said.append(
                pool.map(corpus.utterance_of, [("turn on the light.", 0, 0.5), ("close it.", 1, 0.9)], chunksize=2)
            )
    for one, other in zip(*said, strict=True):
        assert np.array_equal(one.audio, other.audio) and one.phonemes == other.phonemes


@needs_espeak
def test_an_utterance_is_whole_tokens_long() -> None:
    one = corpus.utterance("turn on the light.", Manner())
    assert len(one.audio) == one.tokens * corpus.SAMPLES and one.fine.shape == (80, one.tokens * corpus.FINE)


@needs_espeak
def test_both_speakers_say_the_same_phonemes() -> None:
    by = [espeak.speaker().speak("the yellow lamp.", recipe.manner(speaker, 0.5)) for speaker in (0, 1)]
    assert [name for name, _ in by[0].phonemes] == [name for name, _ in by[1].phonemes]


@needs_espeak
def test_pitch_is_found_in_the_range_of_each_speaker() -> None:
    for speaker, bounds in enumerate(recipe.PITCH_RANGES):
        one = corpus.utterance("the yellow lamp.", recipe.manner(speaker, 0.5))
        found = corpus.pitch(one.audio, one.tokens * corpus.FRAMES, bounds)
        assert (found > 0).mean() > 0.4 and bounds[0] < np.median(found[found > 0]) < bounds[1]


@needs_espeak
def test_the_codecs_mel_is_the_packages(demo_tokenizer: nn.Module) -> None:
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    theirs = demo_tokenizer.log_mel_spectrogram(torch.tensor(samples))
    assert np.abs(theirs.numpy() - corpus.fine_mel(samples)).max() < 2e-3  # half precision


@pytest.fixture(scope="module")
def demo_tokenizer() -> nn.Module:
    from chatterbox_nb.engine import conditioning
    from demo_voice import pack

    tokenizer = networks.fresh().s3gen.tokenizer
    conditioning.own_constants(tokenizer, set(pack.OWN_CONSTANTS))
    return tokenizer


def test_a_frame_is_mapped_to_where_the_other_says_the_same() -> None:
    own, other = (("a", 0.0), ("b", 0.4), ("c", 0.8)), (("a", 0.0), ("b", 0.5), ("c", 1.0))
    assert list(corpus.warp(own, other, 41, 100)[[0, 10, 20, 40]]) == [0, 12, 25, 50]


def test_each_frame_has_its_phoneme() -> None:
    assert list(corpus.labels((("a", 0.0), ("b", 0.04)), {"a": 7, "b": 9}, 4)) == [7, 7, 9, 9]


# Tables and optimizers


def test_a_table_is_folded_into_what_it_was_trained_as() -> None:
    layer = nn.Embedding(networks.CODES + networks.SPECIAL, 8)
    networks.train_table(layer, spread=0.2, scale=0.1)
    trained = layer.weight.detach().clone()
    networks.fold_tables(layer)
    assert torch.equal(layer.weight, trained) and isinstance(layer.weight, nn.Parameter)


def test_unused_codes_share_one_row() -> None:
    layer = nn.Embedding(networks.CODES + networks.SPECIAL, 8)
    networks.train_table(layer, spread=0.2, scale=0.1)
    unused = layer.weight[USED_CODES : networks.CODES]
    assert torch.equal(unused, unused[:1].expand_as(unused))
    assert len(torch.unique(layer.weight, dim=0)) == USED_CODES + 1 + networks.SPECIAL


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_an_orthogonal_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    found = torch.linalg.svdvals(train.orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert found.min() > 0.6 and found.max() < 1.3


def test_a_kernel_moves_as_one_matrix_of_all_but_its_first_axis() -> None:
    kernel, matrix = (nn.Parameter(torch.zeros(shape)) for shape in ((4, 3, 5), (4, 15)))
    gradient = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    kernel.grad, matrix.grad = gradient, gradient.flatten(1)
    train.Muon([kernel, matrix], 1e-2).step()
    assert kernel.abs().max() > 0 and torch.equal(kernel.flatten(1), matrix)


def test_a_vocoder_is_trained_without_its_norms_and_kept_with_them() -> None:
    module = networks.fresh().s3gen.mel2wav
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    layers = vocoder.without_norms(module)
    assert layers and not [name for name in module.state_dict() if "parametrizations" in name]
    for layer in layers:
        weight_norm(layer)
    assert module.state_dict().keys() == before.keys()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


# The loop


def learned(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> nn.Module:
    """A line fitted to noise, with a run that breaks at a step if asked."""
    monkeypatch.setattr(train, "_KEPT", 4)
    torch.manual_seed(0)
    module = nn.Linear(3, 2)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.tensor(random.standard_normal((4, 3)), dtype=torch.float32)
        return {"loss": (module(x) - torch.randn(4, 2)).square().mean()}

    optimizers = [train.Muon([module.weight], 1e-2), torch.optim.AdamW([module.bias], 1e-2)]
    train.fit("line", module, losses, Fit(steps, 4, 1e-2), folder, optimizers)
    return module


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (learned(tmp_path, 12, monkeypatch) for _ in range(2))
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_a_broken_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learned(tmp_path, 12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path, 12, monkeypatch, stop_at=6)
    assert (tmp_path / "line.kept.pt").exists()
    resumed = learned(tmp_path, 12, monkeypatch)
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="non-finite"):
        train.fit(
            "nan", module, lambda step, random: {"loss": module(torch.full((1, 1), torch.nan)).sum()}, SMALL, tmp_path,
            train.adamw(module, 1e-2),
        )  # fmt: skip


# The card


def test_the_card_is_made_from_the_results() -> None:
    assert card.PAGE.read_text(encoding="utf-8") == card.page(pages.committed(card.RESULTS))


# Stages


def test_each_stage_comes_after_those_it_needs() -> None:
    done: set[str] = set()
    for stage in stages.STAGES:
        assert set(stage.after) <= done, stage.name
        assert callable(stage.work())
        done.add(stage.name)


def test_a_stage_that_is_done_is_not_started_again(tmp_path: Path) -> None:
    first = stages.STAGES[0]
    assert stages.may_start(tmp_path, first, {})
    store.save_json(stages.report(tmp_path, first), {})
    assert not stages.may_start(tmp_path, first, {})


def test_a_stage_waits_for_what_it_needs(tmp_path: Path) -> None:
    codec = next(stage for stage in stages.STAGES if stage.name == "codec")
    assert not stages.may_start(tmp_path, codec, {})
    store.save_json(tmp_path / "sound.json", {})
    assert stages.may_start(tmp_path, codec, {}) and not stages.may_start(tmp_path, codec, {"a": None, "b": None})


def test_what_a_broken_stage_was_writing_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        store.save_json(tmp_path / "report.json", {"a": object()})
    assert not (tmp_path / "report.json").exists()
