"""A setting comes from the call, `%config`, the environment, `.env` or the default; what is wrong is said in a line."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest

from chatterbox_nb.errors import SettingError
from chatterbox_nb.precision.plan import STORAGE
from chatterbox_nb.settings import (
    BY_NAME,
    DTYPE_ALIASES,
    INT8_ROWS,
    SETTINGS,
    Setting,
    check,
    configure,
    precision_asked,
    source_of,
    sources,
    value_of,
)

NUMBERS = [setting for setting in SETTINGS if setting.kind in ("float", "int")]
CHOICES = [setting for setting in SETTINGS if setting.choices and setting.kind == "str"]


class DotEnv:
    """A folder that is the current one, and the `.env` in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".env"

    def write(self, text: str | bytes) -> None:
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DotEnv:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("PYTHON_DOTENV_DISABLED", raising=False)
    monkeypatch.chdir(tmp_path)
    return DotEnv(tmp_path)


def said_by(source: str, name: str, value: str, dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a setting there."""
    if source == "%config":
        configure(name, value)
    elif source == "environment":
        monkeypatch.setenv(BY_NAME[name].variable, value)
    else:
        dotenv.write(f"{BY_NAME[name].variable}={value}\n")


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
        ("int8_off", 3, "int8_off=3 must be names, with commas between them."),
        ("int8_off", b"t3.head", "int8_off=b't3.head' must be names, with commas between them."),
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
        ("cfm_steps", "4", 4),
        ("voice_seconds", 3, 3.0),
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
        ("int8_off", "t3.head", ("t3.head",)),
        ("int8_off", "t3.head,flow.conv", ("t3.head", "flow.conv")),
        ("int8_off", " T3.head,\tflow.conv , ", ("t3.head", "flow.conv")),
        ("int8_off", ["t3.head", " flow.conv"], ("t3.head", "flow.conv")),
        ("int8_off", {"t3.head"}, ("t3.head",)),
        ("int8_off", "flow.conv t3.head flow.conv", ("t3.head", "flow.conv")),
        ("int8_off", (), ()),
        ("int8_off", "", ()),
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
    article = "an" if setting.name == "effort" else "a"
    assert message.startswith(
        f"{setting.name}={wrong} is not {article} {setting.name}; choose {', '.join(setting.choices)}."
    )
    assert message.endswith(f"Did you mean {setting.choices[-1]}?")


@pytest.mark.parametrize("given", ["t3.head, flow.cnov", ("t3.head", "flow.cnov")])
def test_an_unknown_name_in_a_list_is_an_error_with_every_name_and_the_nearest(given: Any) -> None:
    with pytest.raises(SettingError) as caught:
        value_of("int8_off", given)
    assert str(caught.value) == (
        f"int8_off=t3.head, flow.cnov: there is no 'flow.cnov'; choose {', '.join(INT8_ROWS)}. Did you mean flow.conv?"
    )


def test_every_int8_row_can_be_left_off() -> None:
    assert value_of("int8_off", ",".join(reversed(INT8_ROWS))) == INT8_ROWS


def test_the_int8_rows_are_those_of_the_plan() -> None:
    planned = {
        f"{component}.{kind}"
        for component, kinds in STORAGE["int8"].items()
        for kind, stored in kinds.items()
        if stored == "int8"
    }
    assert planned == set(INT8_ROWS)


def test_an_unknown_choice_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "Float64")
    with pytest.raises(SettingError, match=r"the environment's MODEL_DTYPE=Float64 is not a precision"):
        value_of("precision")


@pytest.mark.parametrize("alias", ["float32", "Float32", "float", "fp32"])
def test_float32_is_fp32(alias: str) -> None:
    assert value_of("precision", alias) == "fp32"


@pytest.mark.parametrize("source", [".env", "environment", "%config"])
@pytest.mark.parametrize(("alias", "precision"), [*DTYPE_ALIASES.items(), ("BFloat16", "bf16"), ("fp16", "fp16")])
def test_other_names_of_a_precision_work_from_everywhere(
    alias: str, precision: str, source: str, dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_by(source, "precision", alias, dotenv, monkeypatch)
    assert precision_asked()[0] == precision


def test_a_setting_that_does_not_exist_is_a_mistake_in_this_package() -> None:
    with pytest.raises(KeyError):
        value_of("tempo")


def test_every_setting_can_be_found_by_name() -> None:
    assert tuple(BY_NAME.values()) == SETTINGS


def test_each_source_is_over_the_one_before(dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (value_of("temperature"), source_of("temperature")) == (0.8, "default")
    for source, value in ((".env", 0.1), ("environment", 0.2), ("%config", 0.3)):
        said_by(source, "temperature", str(value), dotenv, monkeypatch)
        assert (value_of("temperature", default=0.9), source_of("temperature")) == (value, source)
    assert value_of("temperature", 0.4) == 0.4


def test_every_setting_can_say_where_it_is_from(dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write("MIN_P=0.1\nTOP_P=0.9\n")
    monkeypatch.setenv("TOP_P", "0.8")
    configure("int8_off", "t3.head")
    found = sources()
    assert list(found) == list(BY_NAME)
    assert {name: said for name, said in found.items() if said[1] != "default"} == {
        "min_p": (0.1, ".env"), "top_p": (0.8, "environment"), "int8_off": (("t3.head",), "%config"),
    }  # fmt: skip
    assert found["max_chunk"] == (None, "default")


def test_a_configured_value_is_taken_back_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "0.6")
    configure("temperature", 0.4)
    configure("temperature", None)
    assert value_of("temperature") == 0.6
    configure("temperature", None)


def test_a_bad_configured_value_changes_nothing() -> None:
    configure("temperature", 0.4)
    with pytest.raises(SettingError, match=r"^%config ChatterboxNB.temperature=9.0 is out of range; temperature goes"):
        configure("temperature", 9)
    assert value_of("temperature") == 0.4


def test_zero_false_and_an_empty_list_can_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, variable, written, value in (
        ("cfg_weight", "CFG_WEIGHT", "0.6", 0.0),
        ("cache", "QUANTIZED_CACHE", "true", False),
        ("int8_off", "INT8_ROWS_OFF", "t3.head", ()),
    ):
        monkeypatch.setenv(variable, written)
        configure(name, value)
        assert value_of(name) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("TEMPERATURE=0.6", 0.6),
        ("TEMPERATURE = 0.6\n", 0.6),
        ("export TEMPERATURE=0.6\n", 0.6),
        ("TEMPERATURE='0.6'\n", 0.6),
        ('TEMPERATURE=" 0.6 "  # a comment\n', 0.6),
        ("# TEMPERATURE=0.5\n\nTEMPERATURE=0.6\n", 0.6),
        ("TEMPERATURE=0.5\r\nTEMPERATURE=0.6\r\nMIN_P=0.1\r\n", 0.6),
        ("\ufeffTEMPERATURE=0.6\r\n", 0.6),
        ("HALF=0.3\nTEMPERATURE=${HALF}\n", 0.3),
        ("TEMPERATURE=\n", 0.8),
        ("TEMPERATURE=' '\n", 0.8),
        ("TEMPERATURE\n", 0.8),
        ("temperature=0.6\n", 0.8),
        ("", 0.8),
    ],
)
def test_a_dotenv_file_is_read_as_people_write_it(dotenv: DotEnv, text: str, value: float) -> None:
    dotenv.write(text)
    assert value_of("temperature") == value


def test_what_is_no_setting_of_ours_in_a_dotenv_file_is_somebody_elses(dotenv: DotEnv) -> None:
    dotenv.write("DATABASE=postgres://x\nTEMPERATUR=9\nMIN_P=0.1\n")
    assert {name for name, (_, source) in sources().items() if source == ".env"} == {"min_p"}


def test_a_dotenv_file_does_not_touch_the_environment(dotenv: DotEnv) -> None:
    dotenv.write("TEMPERATURE=0.6\nSOMEBODY_ELSES=1\n")
    before = dict(os.environ)
    assert value_of("temperature") == 0.6
    assert dict(os.environ) == before


def test_a_dotenv_file_of_a_folder_above_is_found_and_the_nearest_counts(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write("TEMPERATURE=0.6\nMIN_P=0.1\n")
    below = dotenv.path.parent / "notebooks" / "mine"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert value_of("temperature") == 0.6
    (below / ".env").write_text("TEMPERATURE=0.7\n")
    assert (value_of("temperature"), value_of("min_p")) == (0.7, 0.05)


def test_a_folder_called_dotenv_is_passed_over(dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a virtual environment may be."""
    dotenv.write("TEMPERATURE=0.6\n")
    (dotenv.path.parent / "below" / ".env").mkdir(parents=True)
    monkeypatch.chdir(dotenv.path.parent / "below")
    assert value_of("temperature") == 0.6


def test_a_dotenv_file_that_changed_is_read_again(dotenv: DotEnv) -> None:
    dotenv.write("TEMPERATURE=0.6\n")
    assert value_of("temperature") == 0.6
    dotenv.write("TEMPERATURE=0.75\n")
    assert value_of("temperature") == 0.75
    dotenv.write("TEMPERATURE=0.45\n")  # of the same size
    os.utime(dotenv.path, (1, 1))
    assert value_of("temperature") == 0.45
    dotenv.path.unlink()
    assert value_of("temperature") == 0.8


def test_a_dotenv_file_that_did_not_change_is_not_read_again(dotenv: DotEnv) -> None:
    dotenv.write("TEMPERATURE=0.6\n")
    os.utime(dotenv.path, (1, 1))
    assert value_of("temperature") == 0.6
    with dotenv.path.open("r+") as file:
        file.write("TEMPERATURE=0.7\n")
    os.utime(dotenv.path, (1, 1))
    assert value_of("temperature") == 0.6


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("MIN_P=0.1\nTWO WORDS=secret\nTOP_P=0.9\n", 2),
        ("MIN_P=0.1\r\n\r\n\r\n  TWO WORDS=secret\r\n", 4),
        ("TEMPERATURE='0.6\n", 1),
        ("# Größe\nNAME=gr\u00fc\u00dfe\nTEMPERATURE=secret\n".encode("latin-1"), 1),
        (b"MIN_P=0.1\nNAME=secret\xff\n", 2),
        ("\ufeffMIN_P=0.1\n".encode("utf-16-le"), 1),
    ],
)
def test_a_broken_dotenv_file_is_an_error_with_file_and_line_but_not_what_stands_there(
    dotenv: DotEnv, caplog: pytest.LogCaptureFixture, text: str | bytes, line: int
) -> None:
    dotenv.write(text)
    with caplog.at_level(logging.DEBUG), pytest.raises(SettingError) as caught:
        value_of("temperature")
    assert str(caught.value).startswith(f"{dotenv.path}, line {line}: ")
    assert "secret" not in str(caught.value)
    assert not caplog.records


def test_a_mended_dotenv_file_is_read(dotenv: DotEnv) -> None:
    dotenv.write("TWO WORDS=1\n")
    for _ in range(2):
        with pytest.raises(SettingError, match="cannot be parsed"):
            value_of("temperature")
    dotenv.write("TEMPERATURE=0.6\n")
    assert value_of("temperature") == 0.6


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read, as Linux has one")
def test_a_dotenv_file_that_cannot_be_read_is_an_error(dotenv: DotEnv) -> None:
    dotenv.path.symlink_to("/proc/self/mem")
    with pytest.raises(SettingError) as caught:
        value_of("temperature")
    assert str(caught.value).startswith(f"{dotenv.path} cannot be read: Input/output error.")


def test_a_broken_dotenv_file_is_not_asked_when_something_above_it_says_the_value(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write("TWO WORDS=1\n")
    monkeypatch.setenv("TEMPERATURE", "0.6")
    configure("min_p", 0.1)
    assert (value_of("temperature"), value_of("min_p"), value_of("top_p", 0.9)) == (0.6, 0.1, 0.9)


def test_an_error_names_the_dotenv_file_when_the_value_is_from_there(dotenv: DotEnv) -> None:
    dotenv.write("EXAGGERATION=7\n")
    with pytest.raises(SettingError) as caught:
        value_of("exaggeration")
    assert str(caught.value) == f"{dotenv.path}: EXAGGERATION=7.0 is out of range; exaggeration goes from 0.0 to 2.0."


def test_dotenv_files_can_be_turned_off_as_python_dotenv_has_it(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write("TEMPERATURE=0.6\n")
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "True")
    assert value_of("temperature") == 0.8


def test_without_a_current_folder_there_is_no_dotenv_file(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    try:
        gone.rmdir()
    except OSError:
        pytest.skip("this system keeps the current folder")
    assert value_of("temperature") == 0.8


def test_precision_by_default() -> None:
    assert precision_asked() == ("auto", "the default")


def test_precision_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("fp32", "MODEL_DTYPE is set in the environment")


def test_precision_from_the_call_is_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    assert precision_asked("float32") == ("fp32", "asked for")


def test_int8_wins_over_model_dtype_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set in the environment, over MODEL_DTYPE=float32")


def test_int8_wins_over_a_model_dtype_that_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` with float16 and int8, as people have it, means int8."""
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    monkeypatch.setenv("MODEL_DTYPE", "complex64")
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set in the environment, over MODEL_DTYPE=complex64")


@pytest.mark.parametrize("dtype", ["", "auto", "int8"])
def test_int8_says_nothing_of_a_model_dtype_that_does_not_differ(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "yes")
    monkeypatch.setenv("MODEL_DTYPE", dtype)
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set in the environment")


def test_int8_set_to_false_leaves_model_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "false")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("fp32", "MODEL_DTYPE is set in the environment")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("MODEL_DTYPE=half", ("fp16", "MODEL_DTYPE is set in .env")),
        ("USE_INT8_QUANTIZATION=true", ("int8", "USE_INT8_QUANTIZATION is set in .env")),
        (
            "MODEL_DTYPE=float16\nUSE_INT8_QUANTIZATION=true",
            ("int8", "USE_INT8_QUANTIZATION is set in .env, over MODEL_DTYPE=float16"),
        ),
    ],
)
def test_precision_from_a_dotenv_file(dotenv: DotEnv, text: str, asked: tuple[str, str]) -> None:
    dotenv.write(text)
    assert precision_asked() == asked


def test_int8_in_a_dotenv_file_wins_over_model_dtype_in_the_environment(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write("USE_INT8_QUANTIZATION=true\n")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    assert precision_asked() == ("int8", "USE_INT8_QUANTIZATION is set in .env, over MODEL_DTYPE=float32")


def test_int8_off_in_the_environment_is_over_int8_in_a_dotenv_file(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write("USE_INT8_QUANTIZATION=true\nMODEL_DTYPE=float16\n")
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "false")
    assert precision_asked() == ("fp16", "MODEL_DTYPE is set in .env")


@pytest.mark.parametrize("source", [".env", "environment"])
def test_a_configured_precision_is_over_int8_from_below(
    dotenv: DotEnv, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    said_by(source, "int8", "true", dotenv, monkeypatch)
    configure("precision", "fp32")
    assert precision_asked() == ("fp32", "%config ChatterboxNB.precision is set")
    configure("precision", "auto")
    assert precision_asked() == ("auto", "the default")


def test_a_configured_int8_is_over_every_precision_but_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DTYPE", "float16")
    configure("int8", True)
    assert precision_asked() == ("int8", "%config ChatterboxNB.int8 is set, over MODEL_DTYPE=float16")
    configure("precision", "bfloat16")
    assert precision_asked() == ("int8", "%config ChatterboxNB.int8 is set, over MODEL_DTYPE=bf16")
    assert precision_asked("bf16") == ("bf16", "asked for")


def test_a_configured_no_to_int8_leaves_model_dtype(dotenv: DotEnv) -> None:
    dotenv.write("USE_INT8_QUANTIZATION=true\nMODEL_DTYPE=float16\n")
    configure("int8", False)
    assert precision_asked() == ("fp16", "MODEL_DTYPE is set in .env")
