"""Chatterbox TTS in a notebook, at the precision you choose, with the memory measured.

    %load_ext chatterbox_nb          import chatterbox_nb as tts
    %tts_load demo                   tts.load("demo")
    %tts Hello there.                take = tts.speak("Hello there.", seed=7)

Importing this imports neither torch, nor the package, nor IPython: names come on first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatterbox_nb.choices import models
    from chatterbox_nb.conversion import convert
    from chatterbox_nb.errors import TTSError
    from chatterbox_nb.events import CancelToken, Progress
    from chatterbox_nb.history import takes
    from chatterbox_nb.library import voices
    from chatterbox_nb.notebook.panels import panel
    from chatterbox_nb.speech import info, load, memory, speak, stream, submit, unload
    from chatterbox_nb.take import ConversionRequest, SpeechRequest, Take

try:
    __version__ = version("chatterbox-nb")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0+unknown"

_HOME = {
    "load": "speech",
    "unload": "speech",
    "speak": "speech",
    "submit": "speech",
    "stream": "speech",
    "convert": "conversion",
    "info": "speech",
    "memory": "speech",
    "models": "choices",
    "voices": "library",
    "takes": "history",
    "panel": "notebook.panels",
    "Take": "take",
    "SpeechRequest": "take",
    "ConversionRequest": "take",
    "CancelToken": "events",
    "Progress": "events",
    "TTSError": "errors",
}
__all__ = [  # noqa: RUF022  in the order people meet them
    "load", "speak", "stream", "submit", "convert", "info", "memory", "models", "voices", "takes", "panel", "unload",
    "Take", "SpeechRequest", "ConversionRequest", "CancelToken", "Progress", "TTSError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'chatterbox_nb' has no attribute '{name}'")
    import_module("chatterbox_nb.render")  # teaches results how to show themselves
    value = getattr(import_module(f"chatterbox_nb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext chatterbox_nb`: registers the magics. The model, if one is loaded, stays."""
    import_module("chatterbox_nb.notebook").register(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext chatterbox_nb`: takes the magics away. The model, if one is loaded, stays."""
    import_module("chatterbox_nb.notebook").unregister(shell)
