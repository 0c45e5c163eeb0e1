"""Where a default comes from, and its checks.

A value comes, in rising order, from the default below, the environment, the call. The table is the one place
where a setting is written down; the README's table is made from it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatterbox_nb.errors import SettingError, nearest

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")
KERNELS = ("auto", "plain", "int8pack", "dynamic")
# Rows of the int8 plan, as `precision.plan` has them: component.kind.
INT8_ROWS = (
    "t3.linear", "t3.conditioning", "t3.head", "t3.embedding", "t3.position",
    "flow.linear", "flow.embedding", "flow.conv", "vocoder.conv", "voice_encoder.lstm",
)  # fmt: skip
DTYPE_ALIASES = {"float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Setting:
    """One row: its name in a call, its name in the environment, its default, and what it may be.

    Args:
        kind: float, int, str, path, bool, list.
        low, high: the range of a number, both ends included; None leaves that end open.
        choices: for a str, what it may be; empty means anything.
    """

    name: str
    variable: str
    default: Any
    kind: str
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


_CACHE = Path("~/.cache/chatterbox-nb")

SETTINGS: tuple[Setting, ...] = (
    Setting("model", "CHATTERBOX_NB_MODEL", "demo", "str", "model that is loaded when none is named"),
    Setting("precision", "MODEL_DTYPE", "auto", "str", "how numbers are stored; also float32", choices=PRECISIONS),
    Setting("int8", "USE_INT8_QUANTIZATION", False, "bool", "int8, whatever MODEL_DTYPE says"),
    Setting("device", "DEVICE", "auto", "str", "auto, cpu, cuda, cuda:1, mps"),
    Setting("kernel", "CHATTERBOX_NB_KERNEL", "auto", "str", "how int8 is multiplied", choices=KERNELS),
    Setting(
        "int8_off", "INT8_ROWS_OFF", (), "list", "rows that int8 leaves as they are, with commas", choices=INT8_ROWS
    ),
    Setting("keep_encoders", "KEEP_ENCODERS", False, "bool", "keep what reads a clip in memory between voices"),
    Setting("cache", "QUANTIZED_CACHE", True, "bool", "keep the int8 form of a model on disk, for the next load"),
    Setting("cache_dir", "QUANTIZED_CACHE_DIR", _CACHE / "quantized", "path", "where that is kept"),
    Setting("cleanup_interval", "MEMORY_CLEANUP_INTERVAL", 5, "int", "takes between cleanups; 0 never", 0, 1000),
    Setting(
        "cuda_cache_interval", "CUDA_CACHE_CLEAR_INTERVAL", 3, "int", "takes between clearings; 0 never", 0, 1000
    ),
    Setting("monitoring", "ENABLE_MEMORY_MONITORING", True, "bool", "measure the peak memory of each take"),
    Setting("exaggeration", "EXAGGERATION", 0.5, "float", "how much emotion, 0.5 is neutral", 0.0, 2.0),
    Setting("cfg_weight", "CFG_WEIGHT", 0.5, "float", "guidance towards the text; 0 halves the work", 0.0, 5.0),
    Setting("temperature", "TEMPERATURE", 0.8, "float", "variety; 0 always takes the likeliest", 0.0, 5.0),
    Setting("min_p", "MIN_P", 0.05, "float", "drops tokens this much less likely than the likeliest", 0.0, 1.0),
    Setting("top_p", "TOP_P", 1.0, "float", "keeps the likeliest tokens up to this sum", 0.01, 1.0),
    Setting("repetition_penalty", "REPETITION_PENALTY", 1.2, "float", "above 1 avoids repeats", 0.1, 10.0),
    Setting("max_chunk", "MAX_CHUNK_LENGTH", None, "int", "characters in one go; unset, the model's own", 10, 2000),
    Setting("max_total", "MAX_TOTAL_LENGTH", 200_000, "int", "characters in one take", 1, 10_000_000),
    Setting("voice", "VOICE_SAMPLE_PATH", None, "str", "voice or clip used when none is named"),
    Setting("voice_dir", "VOICE_LIBRARY_DIR", _CACHE / "voices", "path", "where kept voices live"),
    Setting("model_dir", "MODEL_CACHE_DIR", None, "path", "where downloads are kept; the hub's own cache if unset"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def value_of(name: str, called_with: Any = None, default: Any = None) -> Any:
    """The value of a setting: what the call says, or the environment, or the default (a model may have its own).

    Raises:
        SettingError: the value is not of its kind or out of its range; the message names where it came from.
    """
    setting = BY_NAME[name]
    if called_with is not None:
        return check(setting, called_with, f"{name}=")
    if setting.variable in os.environ and os.environ[setting.variable].strip():
        return check(setting, os.environ[setting.variable].strip(), f"the environment's {setting.variable}=")
    default = setting.default if default is None else default
    return default.expanduser() if isinstance(default, Path) else default


def check(setting: Setting, value: Any, source: str) -> Any:
    """The value as its kind, or SettingError."""
    given, problem = value, ""
    try:
        value = _CONVERT[setting.kind](value)
    except (TypeError, ValueError, OverflowError):
        problem = _MUST_BE[setting.kind]
    if problem:
        raise SettingError(f"{source}{given!r} must be {problem}.")
    if setting.kind in ("float", "int"):
        low = -math.inf if setting.low is None else setting.low
        high = math.inf if setting.high is None else setting.high
        if not low <= value <= high:
            raise SettingError(
                f"{source}{value} is out of range; {setting.name} goes from {setting.low} to {setting.high}."
            )
    if setting.kind == "list":
        for entry in value:
            if entry not in setting.choices:
                near = nearest(entry, setting.choices)
                raise SettingError(
                    f"{source}{given}: there is no '{entry}'; choose {', '.join(setting.choices)}.{near}"
                )
    elif setting.choices:
        value = DTYPE_ALIASES.get(value.lower(), value.lower())
        if value not in setting.choices:
            near = nearest(value, setting.choices)
            raise SettingError(f"{source}{given} is not a {setting.name}; choose {', '.join(setting.choices)}.{near}")
    return value


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if (word := str(value).lower()) in _TRUE + _FALSE:
        return word in _TRUE
    raise ValueError(value)


def _int(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError(value)
    return int(float(value))


def _float(value: Any) -> float:
    if isinstance(value, bool) or math.isnan(number := float(value)):
        raise ValueError(value)
    return number


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": str,
    "path": lambda value: Path(value).expanduser(),
    "list": lambda value: (
        tuple(word for word in re.split(r"[,\s]+", value) if word) if isinstance(value, str) else tuple(map(str, value))
    ),
}
_MUST_BE = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "list": "names",
}


def precision_asked(called_with: str | None = None) -> tuple[str, str]:
    """The precision to use, and why: the call, else USE_INT8_QUANTIZATION, else MODEL_DTYPE, else auto."""
    if called_with is not None:
        return value_of("precision", called_with), "asked for"
    if value_of("int8"):
        dtype = os.environ.get(BY_NAME["precision"].variable, "").strip()
        over = f", over MODEL_DTYPE={dtype}" if dtype.lower() not in ("", "auto", "int8") else ""
        return "int8", f"USE_INT8_QUANTIZATION is set{over}"
    dtype = value_of("precision")
    return dtype, "MODEL_DTYPE is set" if dtype != "auto" else "the default"
