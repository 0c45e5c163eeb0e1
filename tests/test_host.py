"""A guest-friendly place: whatever is called, the host is as it was before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("host")  # they share a process that took long to run

# Runs in a process of its own: importing the package is part of what must leave no trace.
PROGRAM = r"""
import json, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np
import torch

def snapshot():
    return {
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": [str(part) for part in np.random.get_state()],
        "random generator": str(random.getstate()),
        "default dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "quantized engine": torch.backends.quantized.engine,
        "sdp": [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()],
        "matmul precision": torch.get_float32_matmul_precision(),
        "warnings": [str(entry) for entry in warnings.filters],
        "showwarning": str(warnings.showwarning),
        "root logger": [logging.root.level, str(logging.root.handlers)],
        "logging": {
            name: [logger.level, str(loud(logger)), logger.propagate]
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and name in WATCHED
        },
        "environment": dict(os.environ),
        "hooks": [str(sys.excepthook), str(sys.displayhook), str(sys.stdout), str(sys.stderr)],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "locale": str(locale.getlocale()),
        "print options": str(np.get_printoptions()),
        "folder": os.getcwd(),
        "new thread's threads": new_threads(),
    }

def loud(logger):
    return [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]

def new_threads():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start(); thread.join()
    return found

WATCHED = ("transformers", "diffusers", "huggingface_hub", "urllib3", "matplotlib")
for name in WATCHED:
    logging.getLogger(name)
torch.set_num_threads(2)
torch.manual_seed(5); np.random.seed(5); random.seed(5)

def package_globals():
    if "chatterbox.models.t3.llama_configs" not in sys.modules:
        return None
    from chatterbox.models.s3gen.utils import mel
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    return [sorted(LLAMA_CONFIGS), sorted(mel.mel_basis), sorted(mel.hann_window)]

import chatterbox_nb as tts
from chatterbox_nb.errors import TTSError
calls = {
    "import and load": lambda: tts.load("demo", precision="int8"),
    "speak": lambda: tts.speak("Hello there.", seed=1),
    "speak with a clip": lambda: tts.speak("Hello.", voice=CLIP, seed=1),
    "stream": lambda: list(tts.stream("Hello there. And again.", seed=1)),
    "switch": lambda: tts.load("demo", precision="fp32"),
    "speak in fp32": lambda: tts.speak("Hello.", seed=1),
    "fail": lambda: tts.speak("Hello.", voice="missing.wav"),
    "info": lambda: (tts.info(), tts.memory()),
    "unload": lambda: tts.unload(),
}
changed = {}
for name, call in calls.items():
    before, globals_before = snapshot(), package_globals()
    try:
        call()
    except TTSError:
        assert name == "fail"
    after, globals_after = snapshot(), package_globals()
    different = [key for key in before if before[key] != after[key]]
    if globals_before is not None and globals_before != globals_after:
        different.append("the package's globals")
    if different:
        changed[name] = {key: [str(before.get(key))[:300], str(after.get(key))[:300]] for key in different}
print("CHANGED" + json.dumps(changed))
"""


@pytest.fixture(scope="module")
def outcome() -> subprocess.CompletedProcess[str]:
    from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER

    clip = str(DEMO_FOLDER / "builtin_voice.wav")
    return subprocess.run(
        [sys.executable, "-c", f"CLIP = {clip!r}\n{PROGRAM}"], capture_output=True, text=True, check=False
    )


def test_random_state_flags_threads_logging_warnings_and_environment_stay(
    outcome: subprocess.CompletedProcess[str],
) -> None:
    assert outcome.returncode == 0, outcome.stderr
    changed = json.loads(outcome.stdout.split("CHANGED")[1])
    assert changed == {}


def test_nothing_is_printed(outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.stdout.startswith("CHANGED")
    assert outcome.stderr == ""
