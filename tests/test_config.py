"""`%config ChatterboxNB`: the settings where IPython keeps its own, in a real kernel."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import Kernel
from traitlets.config import Configurable

from chatterbox_nb import notebook, settings
from chatterbox_nb.errors import SettingError
from chatterbox_nb.settings import SETTINGS, value_of


def value(kernel: Kernel, name: str) -> str:
    """What `%config` shows of a setting."""
    return kernel.ok(f"%config ChatterboxNB.{name}").results[0]["text/plain"]


@pytest.fixture
def reloaded(kernel: Kernel) -> Iterator[Kernel]:
    """A kernel whose extension is loaded anew behind the test, whatever the test did to it."""
    yield kernel
    kernel.shell.config.pop("ChatterboxNB", None)
    kernel.ok("%reload_ext chatterbox_nb")
    kernel.ok("%load_ext chatterbox_nb")


def test_the_settings_are_listed_with_ipythons_own(kernel: Kernel) -> None:
    listed = kernel.ok("%config").printed.split()
    assert listed.count("ChatterboxNB") == 1
    assert "IPCompleter" in listed


def test_every_setting_is_shown_with_its_meaning_and_value(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP_P", "0.9")
    shown = kernel.ok("%config ChatterboxNB").printed
    words = " ".join(shown.split())
    for setting in SETTINGS:
        assert f"ChatterboxNB.{setting.name}=<{setting.kind.capitalize()}>" in shown
        assert setting.about in words
        assert setting.variable in words
        assert f"Current: {value_of(setting.name)!r}" in shown


def test_no_setting_hides_what_a_configurable_has() -> None:
    assert not {setting.name for setting in SETTINGS} & {name for name, _ in inspect.getmembers(Configurable)}


def test_the_value_in_force_is_shown_wherever_it_is_from(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(kernel, "temperature") == "0.8"
    monkeypatch.setenv("TEMPERATURE", "0.6")
    assert value(kernel, "temperature") == "0.6"
    kernel.ok("%config ChatterboxNB.temperature = 0.4")
    assert value(kernel, "temperature") == "0.4"


def test_a_value_that_is_set_counts_for_what_comes(kernel: Kernel) -> None:
    kernel.ok("%config ChatterboxNB.temperature = 0.6")
    kernel.ok("%config ChatterboxNB.precision='half'")
    kernel.ok("%config   ChatterboxNB.int8_off = ['t3.head', 'flow.conv']  ")
    kernel.ok("%config ChatterboxNB.voice_dir = '~/voices'")
    assert settings.configured == {
        "temperature": 0.6, "precision": "fp16", "int8_off": ("t3.head", "flow.conv"),
        "voice_dir": Path("~/voices").expanduser(),
    }  # fmt: skip


def test_a_value_may_be_an_expression_of_the_notebook(kernel: Kernel) -> None:
    kernel.ok("tenths = 3")
    kernel.ok("%config ChatterboxNB.min_p = tenths / 10")
    assert value_of("min_p") == 0.3
    assert "said" not in kernel


def test_none_leaves_it_to_the_lower_sources(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "0.5")
    kernel.ok("%config ChatterboxNB.temperature = 0.6")
    kernel.ok("%config ChatterboxNB.temperature = None")
    assert value(kernel, "temperature") == "0.5"
    assert settings.configured == {}


def test_deleting_leaves_it_to_the_lower_sources(kernel: Kernel) -> None:
    kernel.ok("%config ChatterboxNB.temperature = 0.6")
    kernel.ok("own = next(c for c in get_ipython().configurables if type(c).__name__ == 'ChatterboxNB')")
    kernel.ok("del own.temperature")
    assert value(kernel, "temperature") == "0.8"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("temperature=9", "temperature=9.0 is out of range; temperature goes from 0.0 to 5.0."),
        ("temperature = 'hot'", "temperature='hot' must be a number."),
        (
            "kernel = 'plane'",
            "kernel=plane is not a kernel; choose auto, fused, plain, int8pack, dynamic. Did you mean plain?",
        ),
        ("int8 = 'maybe'", "int8='maybe' must be true or false."),
    ],
)
def test_a_bad_value_is_one_line_and_the_old_one_stays(kernel: Kernel, said: str, message: str) -> None:
    settings.configured.update(temperature=0.6, kernel="dynamic", int8=True)
    before = dict(settings.configured)
    reply = kernel.run(f"%config ChatterboxNB.{said}")
    assert reply.error == f"SettingError: %config ChatterboxNB.{message}"
    assert not reply.printed
    assert settings.configured == before


@pytest.mark.parametrize("line", ["ChatterboxNB.temprature", "ChatterboxNB.temprature = 0.6"])
def test_a_name_that_is_none_is_an_error_with_the_nearest(kernel: Kernel, line: str) -> None:
    reply = kernel.run(f"%config {line}")
    assert reply.error == "SettingError: There is no setting ChatterboxNB.temprature. Did you mean temperature?"


def test_a_bad_value_from_below_is_an_error_where_it_is_shown(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPERATURE", "9")
    error = "SettingError: the environment's TEMPERATURE=9.0 is out of range; temperature goes from 0.0 to 5.0."
    assert kernel.run("%config ChatterboxNB.temperature").error == error
    assert kernel.run("%config ChatterboxNB").error == error


def test_what_is_not_ours_is_ipythons(kernel: Kernel) -> None:
    before = kernel.ok("%config IPCompleter.greedy").results[0]["text/plain"]
    kernel.ok("%config IPCompleter.greedy = True")
    assert kernel.ok("%config IPCompleter.greedy").results[0]["text/plain"] == "True"
    kernel.ok(f"%config IPCompleter.greedy = {before}")
    assert "configure IPython" in kernel.ok("%config?").help


def test_tab_offers_the_settings(kernel: Kernel) -> None:
    assert any(match.endswith("ChatterboxNB.temperature") for match in kernel.complete("%config ChatterboxNB.temp"))


def test_registering_again_is_the_same_as_once(kernel: Kernel) -> None:
    magic = kernel.shell.find_line_magic("config")
    kernel.ok("%config ChatterboxNB.temperature = 0.6")
    notebook.register(kernel.shell)
    assert value_of("temperature") == 0.6
    assert kernel.shell.find_line_magic("config") == magic
    assert kernel.ok("%config").printed.split().count("ChatterboxNB") == 1


def test_unloading_the_extension_takes_it_away(reloaded: Kernel) -> None:
    reloaded.ok("%config ChatterboxNB.temperature = 0.6")
    reloaded.ok("%unload_ext chatterbox_nb")
    assert value_of("temperature") == 0.8
    assert "ChatterboxNB" not in reloaded.ok("%config").printed
    assert not hasattr(reloaded.shell.find_line_magic("config"), "before_chatterbox_nb")


def test_a_value_of_the_profile_counts_until_config_says_another(
    reloaded: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPERATURE", "0.5")
    reloaded.shell.config.ChatterboxNB.temperature = 0.6
    reloaded.ok("%reload_ext chatterbox_nb")
    assert value(reloaded, "temperature") == "0.6"
    reloaded.ok("%config ChatterboxNB.temperature = 0.7")
    reloaded.ok("%config ChatterboxNB.min_p = 0.1")
    assert value(reloaded, "temperature") == "0.7"
    reloaded.ok("%config ChatterboxNB.temperature = None")
    assert value(reloaded, "temperature") == "0.5"


def test_a_bad_value_of_the_profile_is_refused_and_nothing_is_loaded(reloaded: Kernel) -> None:
    reloaded.ok("%unload_ext chatterbox_nb")
    reloaded.shell.config.ChatterboxNB.min_p = 0.1
    reloaded.shell.config.ChatterboxNB.temperature = 9
    with pytest.raises(SettingError) as caught:
        notebook.register(reloaded.shell)
    assert str(caught.value).startswith("In the IPython profile: %config ChatterboxNB.temperature=9.0 is out of range")
    assert settings.configured == {}
    assert reloaded.shell.find_line_magic("tts_load") is None


def test_the_file_of_a_profile_is_kept_to(tmp_path: Path) -> None:
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_config.py").write_text("c = get_config()\nc.ChatterboxNB.temperature = 0.6\n")
    found = subprocess.run(
        [
            sys.executable, "-m", "IPython", "--colors=NoColor", "--HistoryManager.enabled=False", "-c",
            "%load_ext chatterbox_nb\nfrom chatterbox_nb import settings\nprint(settings.sources()['temperature'])",
        ],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "IPYTHONDIR": str(tmp_path)},
    )  # fmt: skip
    assert "(0.6, '%config')" in found.stdout, found.stderr
