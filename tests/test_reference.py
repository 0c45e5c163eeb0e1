"""The package's classes, borrowed: the host stays as it was, nothing is allocated, drawn, printed or left behind."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint import catalog, reference
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.spec import ModelSpec, RopeScaling, S3GenDims, T3Dims
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine.oracle import quiet

pytestmark = pytest.mark.xdist_group("reference")

# A process of its own, in which nothing is imported yet, and which has no `pkg_resources`, like a fresh Python 3.12.

HIDE = """
import json, logging, os, random, sys, threading, warnings
from importlib.machinery import PathFinder

hidden = {"pkg_resources"}
facts = {}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]

def forget_perth():
    for name in [name for name in sys.modules if name.split(".")[0] == "perth"]:
        del sys.modules[name]

import perth
facts["without us"] = str(perth.PerthImplicitWatermarker)
forget_perth()
"""
HOST = """
import numpy, torch
from chatterbox_nb.checkpoint import reference
from chatterbox_nb.checkpoint.synthetic import TINY

class Handler(logging.NullHandler):
    pass

logging.root.setLevel(logging.INFO)  # and no handler: the first one to log would add one
for name, level in (("transformers", 5), ("diffusers", 15), ("huggingface_hub", 25)):
    logging.getLogger(name).setLevel(level)
    logging.getLogger(name).addHandler(Handler())
    logging.getLogger(name).propagate = False
os.environ.update(HOST_OWN="1", TRANSFORMERS_VERBOSITY="info", KMP_DUPLICATE_LIB_OK="False")
warnings.simplefilter("error")
random.seed(1); numpy.random.seed(2); torch.manual_seed(3)
torch.set_num_threads(1)

def logger(name):
    found = logging.getLogger(name)
    handlers = [repr(handler) for handler in found.handlers]
    return [found.level, handlers, found.propagate, found.disabled, repr(found.filters)]

def host():
    return {
        "random": repr(random.getstate()),
        "numpy random": repr(numpy.random.get_state()),
        "torch random": torch.get_rng_state().tolist(),
        "warning filters": repr(warnings.filters),
        "showwarning": repr(warnings.showwarning),
        "environment": dict(os.environ),
        "logging": {name: logger(name) for name in ("", "transformers", "diffusers", "huggingface_hub", "py.warnings")},
        "logging disabled": logging.root.manager.disable,
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "gradients": torch.is_grad_enabled(),
        "flags": [
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
        ],
        "numpy errors": numpy.geterr(),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(threading.excepthook)],
        "folder": os.getcwd(),
    }

facts["before"] = host()
facts["there before"] = "chatterbox" in sys.modules
reference.import_package()
facts["imported"] = host()
facts["there"] = "chatterbox.tts" in sys.modules
reference.build(TINY)
facts["built"] = host()
warnings.simplefilter("ignore")  # at exit torch cleans up a folder, with a warning
"""
STATES = (
    "random", "numpy random", "torch random", "warning filters", "showwarning", "environment", "logging",
    "logging disabled", "default dtype", "default device", "threads", "gradients", "flags", "numpy errors", "hooks",
    "folder",
)  # fmt: skip
PERTH = """
from pathlib import Path
from chatterbox_nb.errors import CheckpointError

import perth
facts["with us"] = str(perth.PerthImplicitWatermarker)
from perth.perth_net import PREPACKAGED_MODELS_DIR
facts["its weights"] = sorted(path.name for path in Path(PREPACKAGED_MODELS_DIR).iterdir())
facts["stand-in"] = "pkg_resources" in sys.modules

forget_perth()
import perth
facts["imported by the host"] = str(perth.PerthImplicitWatermarker)
reference.import_package()
facts["mended"] = str(perth.PerthImplicitWatermarker)

forget_perth()
hidden.add("perth.perth_net.perth_net_implicit")
facts["errors"] = []
for _ in range(2):
    try:
        reference.import_package()
    except CheckpointError as error:
        facts["errors"].append(str(error))
facts["stand-in after an error"] = "pkg_resources" in sys.modules
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def process() -> tuple[dict[str, Any], str]:
    """What the scripts found out, and what was printed besides."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE + HOST + PERTH], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    said, _, facts = done.stdout.strip().rpartition("\n")
    return json.loads(facts), said + done.stderr


@pytest.fixture(scope="module")
def facts(process: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return process[0]


# The host before, after `import_package`, and after `build`


def test_the_package_was_imported(facts: dict[str, Any]) -> None:
    assert not facts["there before"]
    assert facts["there"]


@pytest.mark.parametrize("state", STATES)
def test_the_import_leaves_the_host_as_it_was(facts: dict[str, Any], state: str) -> None:
    assert facts["imported"][state] == facts["before"][state]


@pytest.mark.parametrize("state", STATES)
def test_a_build_leaves_the_host_as_it_was(facts: dict[str, Any], state: str) -> None:
    assert facts["built"][state] == facts["before"][state]


def test_no_state_of_the_host_is_left_out(facts: dict[str, Any]) -> None:
    assert tuple(facts["before"]) == STATES


def test_import_and_build_say_nothing(process: tuple[dict[str, Any], str]) -> None:
    """Every warning would have been an error there, too."""
    assert process[1] == ""


# Without `pkg_resources`


def test_perth_alone_has_no_watermarker_without_pkg_resources(facts: dict[str, Any]) -> None:
    assert facts["without us"] == "None"


def test_with_our_import_it_has_one_and_finds_its_weights(facts: dict[str, Any]) -> None:
    assert "PerthImplicitWatermarker" in facts["with us"]
    assert "implicit" in facts["its weights"]


def test_the_stand_in_for_pkg_resources_does_not_stay(facts: dict[str, Any]) -> None:
    assert facts["stand-in"] is False
    assert facts["stand-in after an error"] is False


def test_a_perth_that_the_host_had_imported_without_it_is_mended(facts: dict[str, Any]) -> None:
    assert facts["imported by the host"] == "None"
    assert "PerthImplicitWatermarker" in facts["mended"]


def test_a_watermarker_that_does_not_import_is_an_error_every_time(facts: dict[str, Any]) -> None:
    message = "chatterbox-tts does not import (perth, its watermarker, did not import). Try: pip install chatterbox-tts"
    assert facts["errors"] == [message, message]


# Building


@pytest.fixture(scope="module")
def english() -> reference.Modules:
    return reference.build(ENGLISH)


def every_tensor(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and tensors that are plain attributes, wherever they hang."""
    for name, child in module.named_modules():
        for held in (child._parameters, child._buffers, vars(child)):
            for key, value in held.items():
                if isinstance(value, Tensor):
                    yield f"{name}.{key}", value


def parts(modules: reference.Modules) -> list[nn.Module]:
    return [getattr(modules, field.name) for field in fields(modules)]


def test_nothing_is_allocated(english: reference.Modules) -> None:
    allocated = [name for part in parts(english) for name, tensor in every_tensor(part) if not tensor.is_meta]
    assert allocated == []


def test_the_walk_finds_the_packages_plain_attributes(english: reference.Modules) -> None:
    """Those that a state dict does not have: the last test would pass without looking at them."""
    found = {name.rpartition(".")[2] for part in parts(english) for name, _ in every_tensor(part)}
    assert {"stft_window", "freqs_cis", "inv_freq", "trim_fade"} <= found


def test_modules_are_in_evaluation_mode(english: reference.Modules) -> None:
    assert [child for part in parts(english) for child in part.modules() if child.training] == []


def test_no_random_numbers_are_drawn() -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    reference.build(TINY)
    assert random.getstate() == before[0]
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])


def test_nothing_is_printed_and_warned(capfd: pytest.CaptureFixture[str]) -> None:
    """The tests make an error of every warning."""
    before = list(warnings.filters)
    reference.build(TINY)
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == before


def test_default_dtype_and_device_stay() -> None:
    before = torch.get_default_dtype(), torch.get_default_device()
    reference.build(TINY)
    assert (torch.get_default_dtype(), torch.get_default_device()) == before
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"


def test_initial_values_are_drawn_again_after_a_build() -> None:
    reference.build(TINY)
    torch.manual_seed(0)
    assert torch.nn.Linear(4, 4).weight.std() > 0.1


def test_the_packages_configurations_stay_as_they_are() -> None:
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS

    before = copy.deepcopy(LLAMA_CONFIGS)
    reference.build(TINY)
    assert before == LLAMA_CONFIGS


def test_they_stay_when_a_build_fails() -> None:
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS

    before = copy.deepcopy(LLAMA_CONFIGS)
    with pytest.raises(RuntimeError):
        reference.build(replace(TINY, t3=replace(TINY.t3, perceiver_queries=-1)))
    assert before == LLAMA_CONFIGS


# The sizes of a spec arrive

T3_SIZES = {
    "width": 96, "ffn": 100, "layers": 3, "text_vocab": 110, "speech_vocab": 6580, "text_positions": 60,
    "speech_positions": 99, "perceiver_queries": 5, "speaker_width": 40,
}  # fmt: skip
S3GEN_SIZES = {
    "tokenizer_mels": 100, "tokenizer_width": 128, "tokenizer_layers": 2, "encoder_width": 64, "encoder_heads": 4,
    "encoder_ffn": 100, "encoder_blocks": 2, "encoder_up_blocks": 2, "estimator_width": 48, "estimator_heads": 4,
    "estimator_head_width": 8, "estimator_blocks": 2, "estimator_middle": 2, "vocoder_width": 64, "f0_width": 40,
    "speaker_growth": 4, "speaker_init": 32,
}  # fmt: skip
# No tensor's shape tells these.
T3_OTHERS = {
    "heads", "start_text", "stop_text", "start_speech", "stop_speech", "prompt_tokens", "perceiver_heads", "norm_eps",
    "rope_theta", "rope_scaling", "backbone", "positions", "emotion",
}  # fmt: skip
S3GEN_OTHERS = {"codes", "tokenizer_heads", "cfm_steps", "meanflow"}


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in inventory(spec, reference.build(spec))}


@pytest.fixture(scope="module")
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    return shapes(TINY)


def test_every_size_is_tried_below() -> None:
    assert {field.name for field in fields(T3Dims)} == set(T3_SIZES) | T3_OTHERS
    assert {field.name for field in fields(S3GenDims)} == set(S3GEN_SIZES) | S3GEN_OTHERS


@pytest.mark.parametrize("size", T3_SIZES)
def test_a_size_of_t3_changes_its_tensors(size: str, tiny_shapes: dict[str, tuple[int, ...]]) -> None:
    changed: Any = {size: T3_SIZES[size]}
    assert shapes(replace(TINY, t3=replace(TINY.t3, **changed))) != tiny_shapes


@pytest.mark.parametrize("size", S3GEN_SIZES)
def test_a_size_of_s3gen_changes_its_tensors(size: str, tiny_shapes: dict[str, tuple[int, ...]]) -> None:
    changed: Any = {size: S3GEN_SIZES[size]}
    if size == "tokenizer_width":  # its rotary table wants heads of 64
        changed["tokenizer_heads"] = 2
    assert shapes(replace(TINY, s3gen=replace(TINY.s3gen, **changed))) != tiny_shapes


def test_the_voice_encoders_width_changes_its_tensors(tiny_shapes: dict[str, tuple[int, ...]]) -> None:
    assert shapes(replace(TINY, voice_encoder_width=24)) != tiny_shapes


def test_what_no_shape_tells_arrives_too() -> None:
    spec = replace(
        TINY,
        t3=replace(
            TINY.t3,
            heads=2,
            start_text=5,
            stop_text=6,
            start_speech=6562,
            stop_speech=6563,
            prompt_tokens=31,
            perceiver_heads=3,
            norm_eps=1e-3,
            rope_theta=123.0,
            rope_scaling=RopeScaling(2.0, 0.5, 3.0, 77),
        ),
        s3gen=replace(TINY.s3gen, tokenizer_width=128, tokenizer_heads=2),
    )
    modules: Any = reference.build(spec)
    hp, config = modules.t3.hp, modules.t3.cfg
    assert (hp.start_text_token, hp.stop_text_token, hp.start_speech_token, hp.stop_speech_token) == (5, 6, 6562, 6563)
    assert hp.speech_cond_prompt_len == 31
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 2, 24)
    assert config.rms_norm_eps == 1e-3
    assert modules.t3.cond_enc.perceiver.attn.num_heads == 3
    assert modules.s3gen.tokenizer.encoder.blocks[0].attn.n_head == 2
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta, **config.rope_scaling}
    assert (rope["rope_theta"], rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]) == (123, 2, 0.5, 3)
    assert rope["original_max_position_embeddings"] == 77


def test_english_has_the_packages_own_settings(english: reference.Modules) -> None:
    """Beyond the shapes, which test_inventory compares: every number of T3's configuration."""
    from chatterbox.models.t3 import T3

    with torch.device("meta"):
        theirs: Any = T3()
    ours: Any = english.t3
    assert {**vars(theirs.hp), "llama_config_name": ours.hp.llama_config_name} == vars(ours.hp)
    assert {**theirs.cfg.to_dict(), "dtype": "float32"} == ours.cfg.to_dict()  # the package loads in float32, too


def test_turbo_has_the_packages_own_tensors_and_settings() -> None:
    """Those that `ChatterboxTurboTTS.from_local` builds."""
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.t3_config import T3Config

    hp = T3Config(text_tokens_dict_size=50276)
    hp.llama_config_name, hp.speech_tokens_dict_size, hp.speech_cond_prompt_len = "GPT2_medium", 6563, 375
    hp.input_pos_emb, hp.use_perceiver_resampler, hp.emotion_adv = None, False, False
    with torch.device("meta"), quiet():
        theirs: Any = T3(hp)
        decoder: Any = S3Gen(meanflow=True).flow.decoder
    ours: Any = reference.build(catalog.spec("turbo"))
    not_told = {"llama_config_name", "max_text_tokens", "max_speech_tokens"}
    assert {name: value for name, value in vars(hp).items() if name not in not_told} == {
        name: value for name, value in vars(ours.t3.hp).items() if name not in not_told
    }
    apart = {
        name
        for name, value in theirs.cfg.to_dict().items()
        if name not in ("n_inner", "hidden_size", "dtype") and ours.t3.cfg.to_dict()[name] != value
    }
    assert apart == set()
    for mine, published in ((ours.t3, theirs), (ours.s3gen.flow.decoder, decoder)):
        assert {name: tensor.shape for name, tensor in mine.state_dict().items()} == {
            name: tensor.shape for name, tensor in published.state_dict().items()
        }
    assert ours.s3gen.meanflow


def test_the_fade_is_the_packages() -> None:
    package_fade = torch.zeros(960)
    package_fade[480:] = (torch.cos(torch.linspace(torch.pi, 0, 480)) + 1) / 2
    assert torch.equal(reference.trim_fade(24_000), package_fade)


def test_the_demo_builds_too() -> None:
    spec = catalog.spec("demo")
    modules: Any = reference.build(spec)
    assert modules.t3.text_emb.weight.shape == (spec.t3.text_vocab, spec.t3.width)
