"""Speech of espeak-ng, with the phonemes it is made of and when: the library itself, no process an utterance.

espeak-ng (GPL-3.0) is a program of the system and not part of this project: `apt-get install espeak-ng`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 22_050
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 0x0001
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_LIST_TERMINATED, _PHONEME = 0, 7
_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """How something is said: a voice of espeak-ng, words a minute, pitch and its range (0 to 99, 50 is as usual)."""

    voice: str = "en-us"
    rate: int = 150
    range: int = 50


@dataclass(frozen=True)
class Spoken:
    """Samples `[n]` float32 in [-1, 1] at RATE, and each phoneme with the second it begins at."""

    samples: NDArray[np.float32]
    phonemes: tuple[tuple[str, float], ...]


@cache
def speaker() -> Speaker:
    """The one of this process: the library is a global of its own."""
    return Speaker()


class Speaker:
    """The library. Where its sound goes is set once a process, so there is one: `speaker()`.

    Raises:
        RuntimeError: espeak-ng is not installed.
    """

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise RuntimeError("espeak-ng is not installed. Try: apt-get install espeak-ng")
        self._library = ctypes.CDLL(name)
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS) != RATE:
            raise RuntimeError(f"espeak-ng does not speak at {RATE} Hz.")
        self._pieces: list[NDArray[np.int16]] = []
        self._phonemes: list[tuple[str, float]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _LIST_TERMINATED:
            if events[index].type == _PHONEME:
                name = events[index].id.string.decode("utf-8", "replace")
                self._phonemes.append((name, events[index].audio_position / 1000))
            index += 1
        return 0

    def speak(self, text: str, manner: Manner = Manner()) -> Spoken:
        """What espeak-ng makes of a text."""
        self._pieces, self._phonemes = [], []
        self._library.espeak_SetVoiceByName(manner.voice.encode())
        for name, value in (("rate", manner.rate), ("pitch", 50), ("range", manner.range)):
            self._library.espeak_SetParameter(_PARAMETERS[name], value, 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        joined = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return Spoken(joined.astype(np.float32) / 32768, tuple(self._phonemes))
