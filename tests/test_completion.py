"""What Tab offers behind the magics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shells import Kernel

import chatterbox_nb as tts
from chatterbox_nb import settings
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.notebook import completion
from chatterbox_nb.notebook.arguments import PARSERS
from chatterbox_nb.notebook.completion import complete


def keep(*names: str) -> None:
    """Voices of these names."""
    clip = np.sin(np.arange(48_000) / 20).astype(np.float32), 24_000
    for name in names:
        tts.voices.add(name, clip)


@pytest.mark.parametrize("name", PARSERS)
def test_tab_offers_every_option_of_a_magic(kernel: Kernel, name: str) -> None:
    assert set(PARSERS[name]().options()) <= set(kernel.complete(f"{name} --"))


def test_tab_goes_on_with_what_is_begun(kernel: Kernel) -> None:
    assert kernel.complete("%%tts --s") == ["--seed", "--steps", "--save"]
    assert kernel.complete("%tts --vo") == ["--voice", "--voice-seconds"]
    assert kernel.complete("%tts_load demo --prec") == ["--precision"]


def test_tab_offers_the_models(kernel: Kernel) -> None:
    assert set(catalog.names()) <= set(kernel.complete("%tts_load "))
    assert kernel.complete("%tts_load de") == ["demo"]
    assert "demo" in kernel.complete("%tts_load --precision int8 ")


@pytest.mark.parametrize(("option", "values"), [("--precision", settings.PRECISIONS), ("--kernel", settings.KERNELS)])
def test_tab_offers_the_values_of_an_option(kernel: Kernel, option: str, values: tuple[str, ...]) -> None:
    assert kernel.complete(f"%tts_load demo {option} ") == list(values)
    assert kernel.complete(f"%tts_load {option} {values[-1][:3]}") == [values[-1]]


def test_tab_offers_the_efforts(kernel: Kernel) -> None:
    assert kernel.complete("%%tts --effort ") == list(settings.EFFORTS)
    assert kernel.complete("%tts --seed 7 --effort ba") == ["balanced"]


def test_tab_offers_audio_files_and_folders_to_convert(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in ("hello.wav", "hell.FLAC", "help.txt", "clips/one.mp3", "clips/of me.ogg"):
        (tmp_path / name).touch()
    assert kernel.complete("%tts_convert ")[:3] == ["clips", "hell.FLAC", "hello.wav"]
    assert kernel.complete("%tts_convert hel") == ["hell.FLAC", "hello.wav"]
    assert complete("%tts_convert clips/") == ["clips/one.mp3"]  # a name in quotes begins with a quote
    assert complete("%tts_convert nowhere/") == []
    assert kernel.complete("%tts_convert hello.wav --vo") == ["--voice", "--voice-seconds"]
    assert kernel.complete("%tts_convert hello.wav --effort ba") == ["balanced"]


def test_tab_offers_the_devices(kernel: Kernel) -> None:
    assert {"auto", "cpu"} <= set(kernel.complete("%tts_load --device "))


def test_tab_offers_the_voices_of_the_library(kernel: Kernel) -> None:
    keep("grandma", "grandpa", "zoe")
    assert kernel.complete("%%tts --voice ") == ["builtin", "grandma", "grandpa", "zoe"]
    assert kernel.complete("%tts --seed 7 --voice gr") == ["grandma", "grandpa"]


def test_a_voice_with_a_space_is_offered_in_quotes() -> None:
    keep("my voice")
    assert complete("%%tts --voice ") == ["builtin", "'my voice'"]
    asked, text = PARSERS["%tts"]().read_before_text("--voice 'my voice' Hello.")
    assert (asked.voice, text) == ("my voice", "Hello.")


def test_tab_still_completes_the_names_of_the_magics(kernel: Kernel) -> None:
    assert {"%tts", "%tts_load", "%tts_info"} <= set(kernel.complete("%tts"))


def test_tab_works_in_a_later_line_of_a_cell(kernel: Kernel) -> None:
    assert kernel.complete("x = 1\n%tts --see") == ["--seed"]


@pytest.mark.parametrize(
    ("line", "absent"),
    [
        ("%%tts --seed 7 --", "--seed"),
        ("%tts_load demo ", "demo"),
        ("%tts_load --precision int8 demo ", "english"),
        ("%tts_load --precision ", "--device"),
    ],
)
def test_what_cannot_follow_is_not_offered(line: str, absent: str) -> None:
    assert complete(line)
    assert absent not in complete(line)


@pytest.mark.parametrize(
    "line",
    [
        "%%tts --seed ",
        "%%tts --save he",
        "%tts Hello the",
        "%tts Hello --s",
        "%tts -- --s",
        "%ls --",
        "tts --s",
        "%tts",
        "",
    ],
)
def test_where_only_the_user_knows_nothing_is_offered(line: str) -> None:
    assert complete(line) == []


def test_tab_imports_no_torch() -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
shell.run_line_magic("load_ext", "chatterbox_nb")
for line in ("%tts_load ", "%tts_load --device ", "%tts_load --precision ", "%%tts --voice ", "%%tts --"):
    assert shell.complete(None, line, len(line))[1], line
print([name for name in ("torch", "chatterbox", "ipywidgets") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_after_the_extension_is_gone_nothing_is_offered(kernel: Kernel) -> None:
    kernel.ok("%unload_ext chatterbox_nb")
    try:
        assert "--voice" not in kernel.complete("%tts --vo")
        assert kernel.complete("%tts_load de") != ["demo"]
    finally:
        kernel.ok("%load_ext chatterbox_nb")


def test_loading_the_extension_again_leaves_one_completer(kernel: Kernel) -> None:
    before = len(kernel.shell.Completer.custom_matchers)
    for _ in range(3):
        kernel.ok("%reload_ext chatterbox_nb")
    assert len(kernel.shell.Completer.custom_matchers) == before


def test_an_old_ipython_is_told_by_its_hooks(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython 7.34, which Colab has, knows no such matchers; its hooks work to this day."""
    monkeypatch.setattr(kernel.shell.Completer, "use_jedi", False)  # as Colab has it
    with monkeypatch.context() as old:
        old.delattr("IPython.core.completer.context_matcher", raising=False)
        for _ in range(2):
            completion.register(kernel.shell)
    try:
        for name in PARSERS:
            assert len(list(kernel.shell.strdispatchers["complete_command"].s_matches(name))) == 1
        assert kernel.complete("%tts --vo") == ["--voice", "--voice-seconds"]
        assert kernel.complete("%tts_load de") == ["demo"]
        completion.unregister(kernel.shell)
        assert not list(kernel.shell.strdispatchers["complete_command"].s_matches("%tts"))
    finally:
        completion.register(kernel.shell)
