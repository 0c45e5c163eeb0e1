"""Where a default comes from, and its checks.

A value comes, in rising order, from the default below, a model's own default, `.env`, the environment, `%config`, the
call. The table is the one place where a setting is written down; the README's table, `.env.example` and the traits of
`%config` are made from it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatterbox_nb import dotenv_file
from chatterbox_nb.errors import SettingError, nearest

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")
KERNELS = ("auto", "fused", "plain", "int8pack", "dynamic")
EFFORTS = ("best", "balanced", "fast")  # rows of `engine.effort.EFFORTS`
# Rows of the int8 plan, as `precision.plan` has them: component.kind.
INT8_ROWS = (
    "t3.linear", "t3.conditioning", "t3.head", "t3.embedding", "t3.position", "t3.text",
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
    Setting(
        "precision", "MODEL_DTYPE", "auto", "str", "how numbers are stored; also float32, float16, half, bfloat16",
        choices=PRECISIONS,
    ),
    Setting("int8", "USE_INT8_QUANTIZATION", False, "bool", "int8, whatever MODEL_DTYPE says"),
    Setting("device", "DEVICE", "auto", "str", "auto, cpu, cuda, cuda:1, mps"),
    Setting("kernel", "CHATTERBOX_NB_KERNEL", "auto", "str", "what computes T3's step", choices=KERNELS),
    Setting(
        "int8_off", "INT8_ROWS_OFF", (), "list", "rows that int8 leaves as they are, with commas", choices=INT8_ROWS
    ),
    Setting("keep_encoders", "KEEP_ENCODERS", False, "bool", "keep what reads a clip in memory between voices"),
    Setting("cache", "QUANTIZED_CACHE", True, "bool", "keep the int8 form of a model on disk, for the next load"),
    Setting("cache_dir", "QUANTIZED_CACHE_DIR", _CACHE / "quantized", "path", "where the int8 form is kept"),
    Setting("cleanup_interval", "MEMORY_CLEANUP_INTERVAL", 5, "int", "takes between cleanups; 0 never", 0, 1000),
    Setting(
        "cuda_cache_interval", "CUDA_CACHE_CLEAR_INTERVAL", 3, "int",
        "takes between clearings of CUDA's cache; 0 never", 0, 1000,
    ),
    Setting("monitoring", "ENABLE_MEMORY_MONITORING", True, "bool", "measure the peak memory of each take"),
    Setting("exaggeration", "EXAGGERATION", 0.5, "float", "how much emotion, 0.5 is neutral", 0.0, 2.0),
    Setting("cfg_weight", "CFG_WEIGHT", 0.5, "float", "guidance towards the text; 0 halves the work", 0.0, 5.0),
    Setting("temperature", "TEMPERATURE", 0.8, "float", "variety; 0 always takes the likeliest", 0.0, 5.0),
    Setting("min_p", "MIN_P", 0.05, "float", "drops tokens this much less likely than the likeliest", 0.0, 1.0),
    Setting("top_p", "TOP_P", 1.0, "float", "keeps the likeliest tokens up to this sum", 0.01, 1.0),
    Setting("top_k", "TOP_K", 0, "int", "keeps so many of the likeliest tokens; 0 all", 0, 10_000),
    Setting("repetition_penalty", "REPETITION_PENALTY", 1.2, "float", "above 1 avoids repeats", 0.1, 10.0),
    Setting(
        "effort", "CHATTERBOX_NB_EFFORT", "best", "str", "what cfm_steps and voice_seconds are where they are not said",
        choices=EFFORTS,
    ),
    Setting("cfm_steps", "CFM_STEPS", None, "int", "Euler steps of the flow; unset, the effort's", 1, 100),
    Setting(
        "voice_seconds", "VOICE_SECONDS", None, "float",
        "seconds of the voice's clip that the flow reads, from its end; unset, the effort's", 0.5, 60.0,
    ),
    Setting("max_chunk", "MAX_CHUNK_LENGTH", None, "int", "characters in one go; unset, the model's own", 10, 2000),
    Setting("max_total", "MAX_TOTAL_LENGTH", 200_000, "int", "characters in one take", 1, 10_000_000),
    Setting("takes_kept", "TAKES_KEPT", 20, "int", "takes kept for tts.takes and the panels; 0 none", 0, 1000),
    Setting(
        "language", "CHATTERBOX_NB_LANGUAGE", None, "str",
        "language of a model that has several, where none is named; unset, the model's own default",
    ),
    Setting("voice", "VOICE_SAMPLE_PATH", None, "str", "voice or clip used when none is named"),
    Setting("voice_dir", "VOICE_LIBRARY_DIR", _CACHE / "voices", "path", "where kept voices live"),
    Setting("model_dir", "MODEL_CACHE_DIR", None, "path", "where downloads are kept; the hub's own cache if unset"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


# What `%config` says, by name. A plain dict: who puts it there is `notebook.config`.
configured: dict[str, Any] = {}


def value_of(name: str, called_with: Any = None, default: Any = None) -> Any:
    """The value of a setting: what the call says, else `%config`, the environment, `.env`, the default.

    Args:
        default: the model's own, where it has one.

    Raises:
        SettingError: the value is not of its kind or out of its range; the message names where it came from. Or `.env`
            was asked and cannot be read.
    """
    setting = BY_NAME[name]
    if called_with is not None:
        return check(setting, called_with, f"{name}=")
    if (said := _said(setting)) is not None:
        return check(setting, said.value, said.written)
    default = setting.default if default is None else default
    return default.expanduser() if isinstance(default, Path) else default


def configure(name: str, value: Any) -> None:
    """What `%config` says from now on; None leaves it to the lower sources again. A bad value changes nothing."""
    if value is None:
        configured.pop(name, None)
    else:
        configured[name] = check(BY_NAME[name], value, _of_config(name))


def sources() -> dict[str, tuple[Any, str]]:
    """Every setting's value, and where it is from: `default`, `.env`, `environment`, `%config`."""
    return {name: (value_of(name), source_of(name)) for name in BY_NAME}


def source_of(name: str) -> str:
    """Where a setting's value is from, as in `sources`, whether it is a good one or not."""
    said = _said(BY_NAME[name])
    return "default" if said is None else said.source


@dataclass(frozen=True)
class _Said:
    """A value as somebody wrote it: where, and how an error quotes that."""

    value: Any
    source: str
    written: str


def _said(setting: Setting) -> _Said | None:
    """What the highest source under the call says."""
    variable = setting.variable
    if (value := configured.get(setting.name)) is not None:
        return _Said(value, "%config", _of_config(setting.name))
    if value := os.environ.get(variable, "").strip():
        return _Said(value, "environment", f"the environment's {variable}=")
    path, values = dotenv_file.read()
    return _Said(values[variable], ".env", f"{path}: {variable}=") if variable in values else None


def _of_config(name: str) -> str:
    return f"%config ChatterboxNB.{name}="


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
                raise SettingError(f"{source}{', '.join(value)}: there is no '{entry}'; {_choose(setting, entry)}")
        value = tuple(choice for choice in setting.choices if choice in value)  # in one order, each once
    elif setting.choices:
        value = DTYPE_ALIASES.get(value.lower(), value.lower())
        if value not in setting.choices:
            article = "an" if setting.name[0] in "aeiou" else "a"
            raise SettingError(f"{source}{given} is not {article} {setting.name}; {_choose(setting, value)}")
    return value


def _choose(setting: Setting, wrong: str) -> str:
    return f"choose {', '.join(setting.choices)}.{nearest(wrong, setting.choices)}"


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


def _list(value: Any) -> tuple[str, ...]:
    if isinstance(value, (bytes, dict)):
        raise TypeError(value)
    words = re.split(r"[,\s]+", value) if isinstance(value, str) else map(str, value)
    return tuple(word.strip().lower() for word in words if word.strip())


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": str,
    "path": lambda value: Path(value).expanduser(),
    "list": _list,
}
_MUST_BE = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "list": "names, with commas between them",
}


def precision_asked(called_with: str | None = None) -> tuple[str, str]:
    """The precision to use, and why.

    The call is over everything. USE_INT8_QUANTIZATION is over MODEL_DTYPE wherever the two are set, since a `.env` with
    both, as people have it, means int8. Only a precision by `%config`, without an int8 there, is over that again.
    """
    if called_with is not None:
        return value_of("precision", called_with), "asked for"
    by_hand = "precision" in configured and "int8" not in configured
    if not by_hand and value_of("int8"):
        said = _said(BY_NAME["precision"])
        written = "" if said is None else str(said.value)
        differs = DTYPE_ALIASES.get(written.lower(), written.lower()) not in ("", "auto", "int8")
        return "int8", _is_set("int8") + (f", over MODEL_DTYPE={written}" if differs else "")
    precision = value_of("precision")
    return precision, _is_set("precision") if precision != "auto" else "the default"


def _is_set(name: str) -> str:
    if (source := source_of(name)) == "%config":
        return f"%config ChatterboxNB.{name} is set"
    return f"{BY_NAME[name].variable} is set in {'the ' * (source == 'environment')}{source}"
