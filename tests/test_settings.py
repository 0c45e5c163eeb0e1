"""A setting comes from the call, else the environment, else the default; what is wrong with it is said in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from chatterbox_nb.errors import SettingError
from chatterbox_nb.settings import BY_NAME, SETTINGS, Setting, check, precision_asked, value_of

NUMBERS = [setting for setting in SETTINGS if setting.kind in ("float", "int")]
CHOICES = [setting for setting in SETTINGS if setting.choices]


def name_of(setting: Setting) -> str:
    return setting.name


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.default is not None], ids=name_of)
def test_every_default_passes_its_own_check(setting: Setting) -> None:
    checked = check(setting, setting.default, "")
    assert checked == (setting.default.expanduser() if setting.kind == "path" else setting.default)
    assert type(checked) is type(setting.default)


def test_names_and_variables_are_unique() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("setting", NUMBERS, ids=name_of)
def test_every_number_has_a_range(setting: Setting) -> None:
    assert setting.low is not None
    assert setting.high is not None
    assert setting.low < setting.high


@pytest.mark.parametrize(
    "variable",
    [
        "USE_INT8_QUANTIZATION", "MODEL_DTYPE", "DEVICE", "MAX_CHUNK_LENGTH", "MAX_TOTAL_LENGTH", "VOICE_SAMPLE_PATH",
        "VOICE_LIBRARY_DIR", "MODEL_CACHE_DIR", "EXAGGERATION", "CFG_WEIGHT", "TEMPERATURE",
    ],
)  # fmt: skip
def test_the_names_people_know_keep_working(variable: str) -> None:
    assert variable in {setting.variable for setting in SETTINGS}


def test_the_default_is_used_when_nothing_else_is_said() -> None:
    assert value_of("temperature") == 0.8


def test_the_environment_is_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "0.6")
    assert value_of("temperature") == 0.6


def test_the_call_is_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "0.6")
    assert value_of("temperature", 0.4) == 0.4


def test_a_call_with_nothing_or_zero_is_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFG_WEIGHT", "0.6")
    assert value_of("cfg_weight", 0) == 0.0


def test_a_models_own_default_is_over_the_default_and_under_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value_of("temperature", default=0.3) == 0.3
    monkeypatch.setenv("TEMPERATURE", "0.6")
    assert value_of("temperature", default=0.3) == 0.6
    assert value_of("temperature", 0.4, default=0.3) == 0.4


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
def test_a_blank_environment_value_is_no_value(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("TEMPERATURE", blank)
    assert value_of("temperature") == 0.8


def test_spaces_around_an_environment_value_are_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", " INT8 ")
    assert value_of("precision") == "int8"


@pytest.mark.parametrize("setting", NUMBERS, ids=name_of)
def test_both_ends_of_a_range_are_inside(setting: Setting) -> None:
    assert value_of(setting.name, setting.low) == setting.low
    assert value_of(setting.name, setting.high) == setting.high


@pytest.mark.parametrize("setting", NUMBERS, ids=name_of)
def test_a_number_out_of_range_is_an_error_that_names_value_and_range(setting: Setting) -> None:
    low, high = setting.low, setting.high
    assert low is not None
    assert high is not None
    for value in (low - 1, high + 1):
        with pytest.raises(SettingError) as caught:
            value_of(setting.name, value)
        assert str(caught.value).startswith(f"{setting.name}={value}")
        assert f"{setting.name} goes from {low} to {high}." in str(caught.value)


def test_an_error_names_the_environment_when_the_value_is_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAGGERATION", "7")
    with pytest.raises(SettingError) as caught:
        value_of("exaggeration")
    assert str(caught.value) == (
        "the environment's EXAGGERATION=7.0 is out of range; exaggeration goes from 0.0 to 2.0."
    )


def test_a_wrong_environment_value_is_not_looked_at_when_the_call_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAGGERATION", "a lot")
    assert value_of("exaggeration", 1.0) == 1.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exaggeration", "a lot", "exaggeration='a lot' must be a number."),
        ("exaggeration", [1], "exaggeration=[1] must be a number."),
        ("exaggeration", True, "exaggeration=True must be a number."),
        ("temperature", math.nan, "temperature=nan must be a number."),
        ("temperature", 10**400, None),
        ("max_chunk", 12.5, "max_chunk=12.5 must be a whole number."),
        ("max_chunk", True, "max_chunk=True must be a whole number."),
        ("max_chunk", "many", "max_chunk='many' must be a whole number."),
        ("max_chunk", "inf", "max_chunk='inf' must be a whole number."),
        ("max_chunk", math.nan, "max_chunk=nan must be a whole number."),
        ("int8", "maybe", "int8='maybe' must be true or false."),
        ("int8", 2, "int8=2 must be true or false."),
        ("voice_dir", 3, "voice_dir=3 must be a path."),
    ],
)
def test_a_value_of_another_kind_is_an_error_that_names_value_and_kind(
    name: str, value: Any, message: str | None
) -> None:
    with pytest.raises(SettingError) as caught:
        value_of(name, value)
    if message is not None:
        assert str(caught.value) == message


def test_infinity_is_out_of_range() -> None:
    with pytest.raises(SettingError, match=r"temperature=inf is out of range"):
        value_of("temperature", math.inf)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("exaggeration", "0.7", 0.7),
        ("exaggeration", 1, 1.0),
        ("max_chunk", "120", 120),
        ("max_chunk", 120.0, 120),
        ("max_total", "1e6", 1_000_000),
        ("int8", "TRUE", True),
        ("int8", "on", True),
        ("int8", 1, True),
        ("int8", "No", False),
        ("int8", 0, False),
        ("model_dir", "/models", Path("/models")),
        ("device", "cuda:1", "cuda:1"),
    ],
)
def test_a_value_becomes_its_kind(name: str, value: Any, read: Any) -> None:
    found = value_of(name, value)
    assert found == read
    assert type(found) is type(read)


def test_a_path_is_expanded_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("VOICE_LIBRARY_DIR")
    assert value_of("voice_dir") == tmp_path / ".cache/chatterbox-nb/voices"
    assert value_of("voice_dir", "~/mine") == tmp_path / "mine"
    monkeypatch.setenv("VOICE_LIBRARY_DIR", "~/other")
    assert value_of("voice_dir") == tmp_path / "other"


@pytest.mark.parametrize("setting", CHOICES, ids=name_of)
def test_every_choice_can_be_chosen_in_any_case(setting: Setting) -> None:
    for choice in setting.choices:
        assert value_of(setting.name, choice) == choice
        assert value_of(setting.name, choice.upper()) == choice


@pytest.mark.parametrize("setting", CHOICES, ids=name_of)
def test_an_unknown_choice_is_an_error_with_every_choice_and_the_nearest(setting: Setting) -> None:
    wrong = setting.choices[-1] + "x"
    with pytest.raises(SettingError) as caught:
        value_of(setting.name, wrong)
    message = str(caught.value)
    assert message.startswith(f"{setting.name}={wrong} is not a {setting.name}; choose {', '.join(setting.choices)}.")
    assert message.endswith(f"Did you mean {setting.choices[-1]}?")


def test_an_unknown_choice_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "Float64")
    with pytest.raises(SettingError, match=r"the environment's MODEL_DTYPE=Float64 is not a precision"):
        value_of("precision")


@pytest.mark.parametrize("alias", ["float32", "Float32", "float", "fp32"])
def test_float32_is_fp32(alias: str) -> None:
    assert value_of("precision", alias) == "fp32"


def test_a_setting_that_does_not_exist_is_a_mistake_in_this_package() -> None:
    with pytest.raises(KeyError):
        value_of("tempo")


def test_every_setting_can_be_found_by_name() -> None:
    assert tuple(BY_NAME.values()) == SETTINGS


def test_precision_by_default() -> None:
    assert precision_asked() == ("auto", "the default")


def test_precision_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("fp32", "MODEL_DTYPE is set")


def test_precision_from_the_call_is_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    assert precision_asked("float32") == ("fp32", "asked for")


def test_int8_wins_over_model_dtype_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set, over MODEL_DTYPE=float32")


def test_int8_wins_over_a_model_dtype_that_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` with float16 and int8, as people have it, means int8."""
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    monkeypatch.setenv("MODEL_DTYPE", "complex64")
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set, over MODEL_DTYPE=complex64")


@pytest.mark.parametrize("dtype", ["", "auto", "int8"])
def test_int8_says_nothing_of_a_model_dtype_that_does_not_differ(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "yes")
    monkeypatch.setenv("MODEL_DTYPE", dtype)
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set")


def test_int8_set_to_false_leaves_model_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "false")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("fp32", "MODEL_DTYPE is set")
