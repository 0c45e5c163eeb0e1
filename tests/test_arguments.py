"""How the line of a magic is read."""

from __future__ import annotations

import inspect

import pytest

from chatterbox_nb import settings
from chatterbox_nb.errors import ArgumentError
from chatterbox_nb.notebook import arguments
from chatterbox_nb.notebook.arguments import PARSERS
from chatterbox_nb.notebook.magics import TTSMagics


def read(name: str, line: str) -> dict[str, object]:
    """The options of a line that were given."""
    asked = vars(PARSERS[name]().read(line))
    return {option: value for option, value in asked.items() if value not in (None, False)}


def read_text(line: str) -> tuple[dict[str, object], str]:
    """Likewise of `%tts`, and the text."""
    asked, text = PARSERS["%tts"]().read_before_text(line)
    return {option: value for option, value in vars(asked).items() if value not in (None, False)}, text


def test_every_option_arrives_as_its_kind() -> None:
    line = (
        "--voice grandma --seed 7 --language en --exaggeration 0.7 --cfg 0.3 --temperature 1 --min-p 0.1 --top-p 0.9 "
        "--repetition-penalty 1.1 --max-chunk 200 --effort fast --steps 4 --voice-seconds 3 "
        "--expand --out take --save hello.wav --play --quiet"
    )
    assert read("%%tts", line) == {
        "voice": "grandma",
        "seed": 7,
        "language": "en",
        "exaggeration": 0.7,
        "cfg_weight": 0.3,
        "temperature": 1.0,
        "min_p": 0.1,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "max_chunk": 200,
        "effort": "fast",
        "cfm_steps": 4,
        "voice_seconds": 3.0,
        "expand": True,
        "out": "take",
        "save": "hello.wav",
        "play": True,
        "quiet": True,
    }
    assert read_text(f"{line} Hello.") == (read("%%tts", line), "Hello.")


def test_without_options_nothing_is_asked_for() -> None:
    assert read("%%tts", "") == {}
    assert read_text("Hello.") == ({}, "Hello.")
    assert read("%tts_load", "") == {}


def test_a_load_takes_a_model_and_options_in_any_order() -> None:
    wanted = {"model": "demo", "precision": "int8", "device": "cpu", "source": "owner/name", "kernel": "plain"}
    assert read("%tts_load", "demo --precision int8 --device cpu --source owner/name --kernel plain") == wanted
    assert read("%tts_load", "--kernel plain --source owner/name --device=cpu --precision=int8 demo") == wanted


@pytest.mark.parametrize(
    ("line", "voice"),
    [
        ("--voice 'my voice.wav'", "my voice.wav"),
        ('--voice "it\'s me.wav"', "it's me.wav"),
        ('--voice="my voice.wav"', "my voice.wav"),
        (r"--voice my\ voice.wav", "my voice.wav"),
        ("--voice größe.wav", "größe.wav"),
        ("--voice take#1.wav", "take#1.wav"),
        ('--voice ""', ""),
    ],
)
def test_quotes_hold_a_value_together_and_are_not_part_of_it(line: str, voice: str) -> None:
    assert PARSERS["%%tts"]().read(line).voice == voice
    asked, text = PARSERS["%tts"]().read_before_text(f"{line} Hello.")
    assert (asked.voice, text) == (voice, "Hello.")


def test_on_windows_a_backslash_is_part_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "_ESCAPE", "")
    assert read("%%tts", r"--save out\new.wav") == {"save": r"out\new.wav"}
    assert read_text(r'--save "a b\new.wav" Hello.') == ({"save": r"a b\new.wav"}, "Hello.")


@pytest.mark.parametrize(
    "text",
    [
        "Don't stop.",
        "\"Quoted,\" she said, 'twice'.",
        "It costs $5, or {x} or {{y}}.",
        r"A back\slash and \n no line break.",
        "Emoji 🙂, 中文, ünïcödé",
        "  spaces   inside",
        "ends in --seed 7 --play",
        "a # hash; a % sign",
        "-5 degrees",
        "—dash first",
    ],
)
def test_the_text_of_a_line_stays_as_it_was_written(text: str) -> None:
    assert read_text(text)[1] == text.lstrip()
    assert read_text(f"--seed 7 {text}") == ({"seed": 7}, text.lstrip())
    assert read_text(f"-- {text}") == ({}, text.lstrip())


def test_two_dashes_end_the_options() -> None:
    assert read_text("--seed 7 -- --play is an option.") == ({"seed": 7}, "--play is an option.")


def test_a_tab_separates_like_a_space() -> None:
    assert read_text("--seed\t7\tHello\tthere.") == ({"seed": 7}, "Hello\tthere.")


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("%%tts", "--seed", "--seed: expected one argument"),
        ("%%tts", "--voice --seed 7", "--voice: expected one argument"),
        ("%%tts", "--seed seven", "--seed: invalid int value: 'seven'"),
        ("%%tts", "--seed 1.5", "--seed: invalid int value: '1.5'"),
        ("%%tts", "--cfg much", "--cfg: invalid float value: 'much'"),
        ("%%tts", "--max-chunk 1e2", "--max-chunk: invalid int value: '1e2'"),
        ("%%tts", "--steps 2.5", "--steps: invalid int value: '2.5'"),
        ("%%tts", "--play=yes", "--play: ignored explicit argument 'yes'"),
        ("%%tts", "--sede 7", "no option '--sede'. Did you mean --seed?"),
        ("%%tts", "--temprature=1", "no option '--temprature'. Did you mean --temperature?"),
        ("%%tts", "--xyzzy", "no option '--xyzzy'. See %%tts --help"),
        ("%%tts", "--exag 1", "no option '--exag'"),
        ("%%tts", "-s 7", "no option '-s'"),
        ("%%tts", "Hello there.", "'Hello' is no option; the text goes below this line"),
        ("%%tts", "Don't", "no closing quotation in: Don't"),
        ("%%tts", '--voice "grandma', 'no closing quotation in: --voice "grandma'),
        ("%tts_load", "demo english", "'english' is one word too many"),
        ("%tts_load", "--precison int8", "no option '--precison'. Did you mean --precision?"),
        ("%tts_info", "all", "'all' is one word too many"),
        ("%tts_memory", "--all", "no option '--all'"),
        ("%tts_unload", "demo", "'demo' is one word too many"),
    ],
)
def test_a_line_that_cannot_be_read_says_why_and_where_help_is(name: str, line: str, says: str) -> None:
    with pytest.raises(ArgumentError) as found:
        read(name, line)
    assert says in str(found.value)
    assert str(found.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--sede 7 Hello.", "no option '--sede'. Did you mean --seed?"),
        ("--seed Hello.", "--seed: invalid int value: 'Hello.'"),
        ("--seed", "--seed: expected one argument"),
        ("--voice --seed 7 Hello.", "--voice: expected one argument"),
        ('--voice "grandma Hello.', "no closing quotation"),
    ],
)
def test_a_line_with_text_is_checked_like_one_without(line: str, says: str) -> None:
    with pytest.raises(ArgumentError) as found:
        read_text(line)
    assert says in str(found.value)


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_an_option_of_every_magic_and_names_them_all(name: str) -> None:
    parser = PARSERS[name]()
    assert parser.read("--help").help
    text = parser.format_help()
    assert f"usage: {name}" in text
    for option in parser.options():
        assert option in text


@pytest.mark.parametrize("name", ["%tts", "%%tts"])
def test_help_tells_the_range_of_every_number(name: str) -> None:
    text = " ".join(PARSERS[name]().format_help().split())
    for row in settings.SETTINGS:
        if row.name in vars(PARSERS[name]().read("")) and row.low is not None:
            assert f"({row.low:g} to {row.high:g})" in text


@pytest.mark.parametrize("name", ["%tts", "%%tts"])
def test_help_names_every_effort(name: str) -> None:
    text = PARSERS[name]().format_help()
    assert all(effort in text for effort in settings.EFFORTS)


def test_help_names_every_precision_and_kernel() -> None:
    text = PARSERS["%tts_load"]().format_help()
    for choice in (*settings.PRECISIONS, *settings.KERNELS):
        assert choice in text


def test_a_magic_has_its_help_as_its_docstring() -> None:
    documented = {inspect.getdoc(function) for _, function in inspect.getmembers(TTSMagics, inspect.isfunction)}
    for parser in PARSERS.values():
        assert inspect.cleandoc(parser().format_help()) in documented
