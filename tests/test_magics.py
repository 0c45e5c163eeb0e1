"""The magics, in a real kernel: what they show, return, keep, save and refuse."""

from __future__ import annotations

import _thread
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import OTHER_SENTENCE, SENTENCE
from shells import Kernel, Reply

import chatterbox_nb as tts
from chatterbox_nb import audio, manager
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine import vocoder
from chatterbox_nb.events import Progress
from chatterbox_nb.notebook.arguments import PARSERS
from chatterbox_nb.render import progress as drawn
from chatterbox_nb.take import Take

CLIP = DEMO_FOLDER / "builtin_voice.wav"
# Three sentences, a chunk each where a chunk has at most 30 characters.
LONG = f"{OTHER_SENTENCE} Turn on the fast lamp. Where is the window? "


@pytest.fixture
def demo_kernel(kernel: Kernel, tmp_path: Path) -> Kernel:
    """The kernel with the demo voice at int8, in a folder of its own."""
    kernel.ok("%tts_load demo --precision int8")
    kernel.shell.user_ns.pop("take", None)
    kernel.ok(f"import os\nos.chdir({str(tmp_path)!r})")
    return kernel


@pytest.fixture
def empty_kernel(kernel: Kernel) -> Kernel:
    """The kernel without a model."""
    manager.get().unload().wait()
    return kernel


def result_of(reply: Reply, kernel: Kernel) -> Take:
    """The take that a cell returned, which is `_` then."""
    assert len(reply.results) == 1
    take = kernel["_"]
    assert isinstance(take, Take)
    return take


def one_line(error: str | None) -> str:
    assert error is not None
    assert "\n" not in error
    return error


# The extension


def test_loading_the_extension_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "shell = InteractiveShell.instance(config=Config(HistoryManager={'enabled': False}))\n"
        "shell.run_line_magic('load_ext', 'chatterbox_nb')\n"
        "print([name for name in ('torch', 'chatterbox', 'ipywidgets', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_loading_it_twice_doubles_nothing(demo_kernel: Kernel) -> None:
    demo_kernel.ok("%load_ext chatterbox_nb")
    demo_kernel.ok("%reload_ext chatterbox_nb")
    transformers = demo_kernel.shell.input_transformer_manager
    for transforms in (transformers.cleanup_transforms, transformers.token_transformers):
        assert len([one for one in transforms if getattr(one, "__module__", "").startswith("chatterbox_nb")]) == 1
    reply = demo_kernel.ok("%tts --seed 1 Hello there.")
    assert len(reply.players) == 1


def test_reloading_it_keeps_the_model(demo_kernel: Kernel) -> None:
    model = manager.get().model
    assert model is not None
    demo_kernel.ok("%reload_ext chatterbox_nb")
    assert manager.get().model is model
    demo_kernel.ok("%tts --seed 1 Hello there.")


def test_unloading_it_takes_the_magics_away_and_keeps_the_model(demo_kernel: Kernel) -> None:
    model = manager.get().model
    demo_kernel.ok("%unload_ext chatterbox_nb")
    try:
        shell = demo_kernel.shell
        for name in PARSERS:
            find = shell.find_cell_magic if name.startswith("%%") else shell.find_line_magic
            assert find(name.lstrip("%")) is None
        assert "not found" in demo_kernel.run("%tts Hello there.").printed
        assert "pinfo" in shell.transform_cell("%tts Are you there?")
        assert manager.get().model is model
    finally:
        demo_kernel.ok("%load_ext chatterbox_nb")
    demo_kernel.ok("%tts --seed 1 Hello there.")


# Without a model


@pytest.mark.parametrize(
    "cell", ["%tts Hello there.", "%tts Are you there?", "%%tts\nHello there.", "%tts_info", "take = %tts Hello."]
)
def test_without_a_model_the_command_that_loads_one_is_named(empty_kernel: Kernel, cell: str) -> None:
    reply = empty_kernel.run(cell)
    assert reply.error_name == "NotLoaded"
    assert one_line(reply.error) == (
        "NotLoaded: No model is loaded. Load one first: %tts_load demo, or tts.load('demo')"
    )
    assert not reply.drawn
    assert not reply.printed


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_printed_and_nothing_is_done(empty_kernel: Kernel, name: str) -> None:
    reply = empty_kernel.ok(f"{name} --help")
    assert reply.printed.startswith(f"usage: {name}")
    assert not reply.results
    assert not reply.drawn
    assert manager.get().model is None


def test_memory_is_read_without_a_model(empty_kernel: Kernel) -> None:
    reply = empty_kernel.ok("%tts_memory")
    assert "process: resident memory" in reply.results[0]["text/plain"]
    assert "  0 B  allocated" in reply.results[0]["text/plain"]


def test_unloading_nothing_says_so(empty_kernel: Kernel) -> None:
    assert empty_kernel.ok("%tts_unload").printed == "There was no model to unload.\n"


# Loading


def test_a_load_returns_its_report_and_shows_it_once(empty_kernel: Kernel) -> None:
    reply = empty_kernel.ok("%tts_load demo --precision int8")
    (shown,) = reply.results
    assert "at int8 on cpu" in shown["text/plain"]
    assert "of what the package loads in fp32" in shown["text/html"]
    assert empty_kernel["_"].bytes == sum(tts.info().bytes_by_component.values())
    assert len(reply.displays) <= 1  # the progress line, where it took long enough for one
    for line in reply.displays:
        assert re.fullmatch(r"Loaded demo in [\d.]+ s\.", line["text/plain"])
    assert not reply.printed


def test_loading_what_is_loaded_is_done_at_once(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("%tts_load demo --precision int8")
    assert len(reply.results) == 1
    assert not reply.displays


def test_a_load_can_be_assigned_and_shows_nothing_then(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("report = %tts_load demo --precision int8")
    assert not reply.results
    assert demo_kernel["report"].model == "demo"


def test_a_kernel_and_a_source_folder_can_be_named(demo_kernel: Kernel, tiny_folder: Path) -> None:
    demo_kernel.ok("%tts_load demo --precision int8 --kernel plain --device cpu")
    assert tts.info().kernel == "plain"
    demo_kernel.ok(f"%tts_load --source '{tiny_folder}' --precision fp32")
    assert tts.info().precision == "fp32"
    assert str(tiny_folder) in tts.info().source


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nope", "CheckpointError: There is no model 'nope'; there are english, turbo, nano, multilingual-v2,"),
        ("demo --precision int7", "SettingError: precision=int7 is not a precision; choose auto, fp32, fp16, bf16,"),
        ("demo --kernel magic", "SettingError: kernel=magic is not a kernel;"),
        ("demo --device tpu", "PrecisionError: This machine has no device 'tpu';"),
        ("dmo --precision", "ArgumentError: %tts_load: argument --precision: expected one argument."),
        ("demo english", "ArgumentError: %tts_load: 'english' is one word too many."),
        ("--source /no/such/folder", "SourceError: "),
    ],
)
def test_a_load_that_cannot_be_keeps_the_old_model(demo_kernel: Kernel, line: str, error: str) -> None:
    model = manager.get().model
    reply = demo_kernel.run(f"%tts_load {line}")
    assert one_line(reply.error).startswith(error)
    assert not reply.results
    assert manager.get().model is model


# Speaking


def test_a_cell_is_spoken_returned_and_shown_once(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok(f"%%tts --seed 7\n{LONG}")
    take = result_of(reply, demo_kernel)
    (shown,) = reply.results
    assert shown["text/plain"] == repr(take)
    assert reply.players == [shown["text/html"]]
    assert "autoplay" not in shown["text/html"]
    assert [line["text/plain"] for line in reply.displays] in (
        [],
        [line["text/plain"] for line in reply.displays if f"{take.tokens} tokens" in line["text/plain"]],
    )
    assert not reply.printed
    assert take.request.seed == 7
    assert take.request.text == f"{LONG}\n"


def test_a_line_is_spoken_returned_and_shown_once(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("%tts --seed 7 Are you there?")
    take = result_of(reply, demo_kernel)
    assert len(reply.players) == 1
    assert take.request.text == "Are you there?"


def test_a_line_can_be_assigned_and_shows_nothing_then(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("take = %tts --seed 7 Are you there?")
    assert not reply.players
    assert demo_kernel["take"].request.text == "Are you there?"


def test_lines_can_be_spoken_in_a_loop(demo_kernel: Kernel) -> None:
    demo_kernel.ok(
        "found = []\nfor seed in (1, 2):\n    take = %tts --max-chunk 100 Is it you?\n    found.append(take)"
    )
    assert [take.request.text for take in demo_kernel["found"]] == ["Is it you?"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "Don't \"go\", 'Ann'.",
        "$5, {x}, {{y}}, 50%.",
        r"A \n, a $HOME.",
        "🙂 中文 café.",
        "a  b,\tc; # d",
        "--not-an-option",
    ],
)
def test_the_text_arrives_as_it_was_written(demo_kernel: Kernel, text: str) -> None:
    demo_kernel.shell.user_ns["x"] = "expanded"
    take = result_of(demo_kernel.ok(f"%tts --seed 7 -- {text}"), demo_kernel)
    assert take.request.text == text
    cell = f"{text}\n\n  Two?\n%tts no\n"
    take = result_of(demo_kernel.ok(f"%%tts --seed 7\n{cell}"), demo_kernel)
    assert take.request.text == cell


def test_every_option_reaches_the_request(demo_kernel: Kernel) -> None:
    line = (
        "--seed 9 --exaggeration 0.7 --cfg 0.3 --temperature 0.9 --min-p 0.1 --top-p 0.95 --top-k 50 "
        "--repetition-penalty 1.3 --max-chunk 60 --language en --effort fast --steps 3 --voice-seconds 1.5"
    )
    request = result_of(demo_kernel.ok(f"%%tts {line}\nHello there."), demo_kernel).request
    assert request.options() == {
        "seed": 9,
        "voice": "builtin",
        "language": "en",
        "exaggeration": 0.7,
        "cfg_weight": 0.3,
        "temperature": 0.9,
        "min_p": 0.1,
        "top_p": 0.95,
        "top_k": 50,
        "repetition_penalty": 1.3,
        "max_chunk": 60,
        "cfm_steps": 3,
        "voice_seconds": 1.5,
    }
    assert result_of(demo_kernel.ok(f"%tts {line} Hello there."), demo_kernel).request.options() == request.options()


def test_a_seed_says_the_same_again_and_none_draws_a_new_one(demo_kernel: Kernel) -> None:
    first, again = (result_of(demo_kernel.ok("%%tts --seed 7\nHello there."), demo_kernel).samples for _ in range(2))
    assert np.array_equal(first, again)
    drawn = {result_of(demo_kernel.ok("%%tts\nHello there."), demo_kernel).request.seed for _ in range(3)}
    assert len(drawn) == 3
    assert np.array_equal(tts.speak("Hello there.\n", seed=7).samples, first)


def test_out_keeps_the_take_in_a_variable_and_shows_it(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("%%tts --seed 7 --out take\nHello there.")
    assert demo_kernel["take"] is result_of(reply, demo_kernel)
    assert len(reply.players) == 1


@pytest.mark.parametrize("ending", list(audio.FORMATS))
def test_save_writes_the_file_and_says_so(demo_kernel: Kernel, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "my folder" / f"hello.{ending}"
    reply = demo_kernel.ok(f"%%tts --seed 7 --save '{path}'\nHello there.")
    assert re.fullmatch(rf"Saved {re.escape(str(path))}, [\d.]+ kB\.\n", reply.printed)
    take = result_of(reply, demo_kernel)
    assert soundfile.info(path).frames == len(take)
    comment = json.loads(audio.read_tags(path)["comment"])
    assert (comment["seed"], comment["text"]) == (7, "Hello there.\n")
    assert len(reply.players) == 1


def test_save_is_relative_to_the_notebook(demo_kernel: Kernel, tmp_path: Path) -> None:
    demo_kernel.ok("%tts --seed 7 --save hello.wav Hello there.")
    assert (tmp_path / "hello.wav").exists()


def test_play_starts_by_itself_and_is_shown_once(demo_kernel: Kernel) -> None:
    reply = demo_kernel.ok("%%tts --seed 7 --play --out take\nHello there.")
    assert not reply.results
    (player,) = reply.players
    assert "<audio controls autoplay" in player
    assert repr(demo_kernel["take"]) in [bundle["text/plain"] for bundle in reply.displays]


def test_quiet_shows_and_returns_nothing(demo_kernel: Kernel, tmp_path: Path) -> None:
    reply = demo_kernel.ok(f"%%tts --seed 7 --quiet --out take --save hello.flac\n{LONG}")
    assert not reply.results
    assert not reply.drawn
    assert not reply.printed
    assert soundfile.info(tmp_path / "hello.flac").frames == len(demo_kernel["take"])


def test_a_voice_is_a_clip_or_a_name_of_the_library(demo_kernel: Kernel, tmp_path: Path) -> None:
    clip = tmp_path / "it's me.wav"
    clip.write_bytes(CLIP.read_bytes())
    from_clip = result_of(demo_kernel.ok(f'%%tts --seed 7 --voice "{clip}"\nHello there.'), demo_kernel)
    assert from_clip.request.voice is not None
    assert from_clip.request.voice.name == "it's me.wav"
    samples, rate = soundfile.read(CLIP)
    tts.voices.add("my grandma", (samples[: 3 * rate // 2], rate))
    from_name = result_of(demo_kernel.ok("%tts --seed 7 --voice 'my grandma' Hello there."), demo_kernel)
    assert from_name.request.voice is not None
    assert from_name.request.voice.name == "my grandma"
    builtin = result_of(demo_kernel.ok("%tts --seed 7 --voice builtin Hello there."), demo_kernel)
    assert np.array_equal(builtin.samples, tts.speak("Hello there.", seed=7).samples)


def test_expand_puts_values_into_the_text(demo_kernel: Kernel) -> None:
    demo_kernel.ok("name, count = 'Ann', 3")
    cell = "%%tts --seed 7 --expand\n{name}, {{is}} it { count }, $x?"
    assert result_of(demo_kernel.ok(cell), demo_kernel).request.text == "Ann, {is} it 3, $x?\n"
    line = "%tts --expand Is it you, {name}?"
    assert result_of(demo_kernel.ok(line), demo_kernel).request.text == "Is it you, Ann?"


# What is refused


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--sede 7", "ArgumentError: {}: there is no option '--sede'. Did you mean --seed?"),
        ("--seed seven", "ArgumentError: {}: argument --seed: invalid int value: 'seven'."),
        ("--seed -1", "SettingError: seed=-1 is not a whole number from 0 to 9223372036854775807."),
        ("--exaggeration 9", "SettingError: exaggeration=9.0 is out of range; exaggeration goes from 0.0 to 2.0."),
        ("--cfg -1", "SettingError: cfg_weight=-1.0 is out of range;"),
        ("--temperature nan", "SettingError: temperature=nan must be a number."),
        ("--max-chunk 5", "SettingError: max_chunk=5 is out of range;"),
        ("--steps 0", "SettingError: cfm_steps=0 is out of range; cfm_steps goes from 1 to 100."),
        ("--voice-seconds 0", "SettingError: voice_seconds=0.0 is out of range;"),
        ("--effort fsat", "SettingError: effort=fsat is not an effort; choose best, balanced, fast."),
        ("--language xx", "SettingError: demo does not speak 'xx';"),
        ("--voice nobody", "VoiceError: There is no voice 'nobody'; the library is empty."),
        ("--voice no/such.wav", "VoiceError: There is no file no/such.wav."),
        ("--save hello.waw", "SettingError: A take is saved as .wav, .flac, .mp3, .ogg;"),
        ("--out not-a-name", "ArgumentError: --out not-a-name is not the name of a variable."),
        ("--out class", "ArgumentError: --out class is not the name of a variable."),
        ("--voice 'nobody", "ArgumentError: {}: no closing quotation in: "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(demo_kernel: Kernel, options: str, error: str) -> None:
    for name, cell in (("%%tts", f"%%tts {options}\nHello there."), ("%tts", f"%tts {options} Hello there.")):
        reply = demo_kernel.run(cell)
        assert one_line(reply.error).startswith(error.format(name))
        assert reply.error_name == error.split(":")[0]
        assert not reply.results
        assert [line["text/plain"] for line in reply.displays] in ([], ["Nothing was spoken."])


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("%tts", "TextError: There is no text to speak."),
        ("%%tts", "TextError: There is no text to speak."),
        ("%%tts --seed 7\n\n", "TextError: There is no text to speak."),
        ("%tts ...", "TextError: Nothing in '...' can be spoken"),
        ("%tts --expand Hello {nobody}.", "TextError: There is no variable 'nobody' to put into the text."),
        ("%tts --expand Hello { there.", "TextError: A single '{' in the text."),
        ("%%tts Hello there.\nBye.", "ArgumentError: %%tts: 'Hello' is no option; the text goes below this line."),
        ("%tts_info all", "ArgumentError: %tts_info: 'all' is one word too many."),
        ("%tts_unload demo", "ArgumentError: %tts_unload: 'demo' is one word too many."),
    ],
)
def test_a_cell_that_says_nothing_or_too_much_is_a_real_error(demo_kernel: Kernel, cell: str, error: str) -> None:
    reply = demo_kernel.run(cell)
    assert one_line(reply.error).startswith(error)
    assert not reply.results


def test_an_error_stops_the_cell_and_the_next_one_works(demo_kernel: Kernel) -> None:
    demo_kernel.run("reached = False\n%tts --seed x Hello.\nreached = True")
    assert demo_kernel["reached"] is False
    demo_kernel.ok("%tts --seed 1 Hello there.")


def test_an_error_can_be_caught_like_any_other(demo_kernel: Kernel) -> None:
    demo_kernel.ok(
        "import chatterbox_nb as tts\n"
        "try:\n    %tts --exaggeration 9 Hello.\n"
        "except (tts.TTSError, ValueError) as error:\n    caught = error"
    )
    assert "out of range" in str(demo_kernel["caught"])


def test_a_file_that_cannot_be_written_leaves_the_take_in_out(demo_kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reply = demo_kernel.run("%%tts --seed 7 --out take --save file/hello.wav\nHello there.")
    assert one_line(reply.error).startswith("SettingError: file/hello.wav cannot be written: ".replace("/", os.sep))
    assert len(demo_kernel["take"]) > 0


# What is loaded


def test_a_clip_is_converted_returned_and_shown_once(demo_kernel: Kernel, tmp_path: Path) -> None:
    reply = demo_kernel.ok(
        f"%tts_convert {CLIP} --voice builtin --seed 7 --steps 2 --voice-seconds 1 --out kept --save made.flac"
    )
    take = result_of(reply, demo_kernel)
    assert len(reply.players) == 1
    assert take.text == "builtin_voice.wav, in the voice of builtin"
    assert take is demo_kernel["kept"]
    assert (take.request.seed, take.request.options()["cfm_steps"]) == (7, 2)
    assert take.request.options()["voice_seconds"] == 1.0
    assert soundfile.info(tmp_path / "made.flac").frames == len(take)
    assert reply.printed.startswith("Saved made.flac")


def test_a_clip_to_convert_can_be_a_variable_where_no_file_has_its_name(demo_kernel: Kernel, tmp_path: Path) -> None:
    demo_kernel.ok("%tts --seed 1 --out spoken --quiet Hello there.")
    demo_kernel.ok("%tts_convert spoken --effort fast --out made --quiet")
    assert demo_kernel["made"].text == "Hello there., in the voice of builtin"
    demo_kernel.ok("array = spoken.samples, spoken.sample_rate\n%tts_convert array --effort fast --out made --quiet")
    assert demo_kernel["made"].text == "array, in the voice of builtin"
    (tmp_path / "spoken").write_bytes(CLIP.read_bytes())
    demo_kernel.ok("%tts_convert spoken --effort fast --out made --quiet")
    assert demo_kernel["made"].duration == pytest.approx(audio.read_clip(CLIP).seconds, abs=0.04)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "ArgumentError: %tts_convert: name an audio file, or a variable with a Take. See %tts_convert --help"),
        ("spokn", "ArgumentError: %tts_convert: there is no file spokn and no variable spokn. Did you mean spoken?"),
        ("number", "there is no file number, and the variable number holds int, not a Take or (samples, sample_rate)."),
        ("spoken --temperature 1", "there is no option '--temperature'."),
        ("spoken --out 1x", "ArgumentError: --out 1x is not the name of a variable."),
        ("spoken --save take.waw", "ends in none of them. Did you mean wav?"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(demo_kernel: Kernel, line: str, error: str) -> None:
    demo_kernel.ok("%tts --seed 1 --effort fast --out spoken --quiet Hello there.\nnumber = 7")
    assert error in one_line(demo_kernel.run(f"%tts_convert {line}").error)


def test_info_and_memory_are_returned_and_shown_once(demo_kernel: Kernel) -> None:
    info, memory = demo_kernel.ok("%tts_info"), demo_kernel.ok("%tts_memory")
    assert [bundle["text/plain"] for bundle in info.results] == [repr(tts.info())]
    assert "quantization int8" in info.results[0]["text/plain"]
    assert "allocated: the model's tensors" in memory.results[0]["text/plain"]
    for reply in (info, memory):
        assert set(reply.results[0]) == {"text/plain", "text/html"}
        assert not reply.displays
        assert not reply.printed


def test_unloading_says_what_it_gave_back(demo_kernel: Kernel) -> None:
    held = tts.info().bytes
    reply = demo_kernel.ok("%tts_unload")
    assert reply.printed == f"Unloaded; {held / 1e6:.2f} MB of tensors given back.\n"
    assert not reply.results
    assert demo_kernel.run("%tts_info").error_name == "NotLoaded"


# Interrupts


@contextmanager
def watched(interrupt: Callable[[Progress], bool], how: Callable[[], None]) -> Iterator[list[Progress]]:
    """Interrupts the notebook at the first event that is asked for, as its stop button does. Gives the events since."""
    after: list[Progress] = []
    done = False

    def observe(progress: Progress) -> None:
        nonlocal done
        if done:
            after.append(progress)
        elif interrupt(progress):
            done = True
            how()
            time.sleep(0.3)  # so that the waiting thread is first

    forget = manager.get().observe(observe)
    try:
        yield after
    finally:
        forget()


def send_sigint() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("stage", "how"), [("tokens", _thread.interrupt_main), ("mel", send_sigint), ("wave", _thread.interrupt_main)]
)
def test_an_interrupt_stops_at_the_next_step_and_keeps_what_is_finished(
    demo_kernel: Kernel, stage: str, how: Callable[[], None]
) -> None:
    if how is send_sigint and sys.platform == "win32":
        pytest.skip("there it ends the process")
    undisturbed = tts.speak(LONG, seed=7, max_chunk=30)
    with watched(lambda progress: (progress.stage, progress.chunk) == (stage, 1), how) as after:
        reply = demo_kernel.run(f"%%tts --seed 7 --max-chunk 30 --out take --save kept.wav\n{LONG}")
    assert not after
    take = demo_kernel["take"]
    assert reply.error_name == "Cancelled"
    assert one_line(reply.error) == (f"Cancelled: Stopped. 1 of 3 chunks were finished ({take.duration:.1f} s).")
    assert take.finish == "cancelled"
    assert len(take.chunks) == 1
    assert np.array_equal(take.samples, undisturbed.samples[: len(take)])
    assert len(reply.players) == 1
    assert not reply.results
    assert soundfile.info("kept.wav").frames == len(take)
    again = tts.speak(LONG, seed=7, max_chunk=30)
    assert np.array_equal(again.samples, undisturbed.samples)


def test_an_interrupt_before_anything_is_finished_keeps_nothing(demo_kernel: Kernel, tmp_path: Path) -> None:
    with watched(lambda progress: progress.stage == "tokens", _thread.interrupt_main) as after:
        reply = demo_kernel.run(f"%%tts --seed 7 --max-chunk 30 --out take --save kept.wav\n{LONG}")
    assert not after
    assert one_line(reply.error) == "Cancelled: Stopped. 0 of 3 chunks were finished."
    assert not reply.players
    assert "take" not in demo_kernel
    assert not list(tmp_path.glob("*.wav"))


def test_an_interrupt_is_quiet_when_asked(demo_kernel: Kernel) -> None:
    with watched(lambda progress: progress.chunk == 1, _thread.interrupt_main):
        reply = demo_kernel.run(f"%%tts --seed 7 --max-chunk 30 --out take --quiet\n{LONG}")
    assert reply.error_name == "Cancelled"
    assert not reply.drawn
    assert not reply.printed
    assert demo_kernel["take"].finish == "cancelled"


def test_an_interrupted_load_leaves_the_old_model_speaking(demo_kernel: Kernel) -> None:
    before = tts.speak(SENTENCE, seed=7)
    with watched(lambda progress: progress.stage == "weights", _thread.interrupt_main) as after:
        reply = demo_kernel.run("%tts_load demo --precision fp32")
    assert not after
    assert one_line(reply.error) == "Cancelled: Stopped."
    assert not reply.results
    assert tts.info().precision == "int8"
    assert np.array_equal(tts.speak(SENTENCE, seed=7).samples, before.samples)


def test_an_interrupt_that_lands_while_the_line_is_drawn_is_no_other(
    demo_kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, interrupted = drawn.line, False

    def draw_and_interrupt(progress: Progress | None, elapsed: float, left: float | None = None) -> str:
        nonlocal interrupted
        if not interrupted and progress is not None and progress.chunk >= 1:
            interrupted = True
            signal.raise_signal(signal.SIGINT)
        return draw(progress, elapsed, left)

    monkeypatch.setattr(drawn, "line", draw_and_interrupt)
    reply = demo_kernel.run(f"%%tts --seed 7 --max-chunk 30 --out take\n{LONG * 4}")
    assert interrupted
    assert re.fullmatch(r"Cancelled: Stopped\. \d+ of 12 chunks were finished \([\d.]+ s\)\.", one_line(reply.error))
    assert demo_kernel["take"].finish == "cancelled"
    assert manager.get().busy is None


def test_a_notebook_keeps_no_tensor_of_a_cell_that_ran_out_of_memory(
    demo_kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPython keeps the last error; with its frames it would keep their tensors, until another error."""
    held: list[weakref.ref[torch.Tensor]] = []

    def run_out(*_: object) -> None:
        mine = torch.zeros(1000)
        held.append(weakref.ref(mine))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 120.00 MiB.")

    with monkeypatch.context() as patched:
        patched.setattr(vocoder, "mel_to_wave", run_out)
        reply = demo_kernel.run(f"%tts {SENTENCE}")
    assert reply.error_name == "OutOfMemory"
    assert "0.126 GB more were asked for" in one_line(reply.error)
    gc.collect()
    assert [ref() for ref in held] == [None]
    assert len(result_of(demo_kernel.ok(f"%tts --seed 1 {SENTENCE}"), demo_kernel)) > 0
