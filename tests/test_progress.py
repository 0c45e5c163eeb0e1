"""The progress line: what it says, how often it is drawn, what is left of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from shells import Kernel

from chatterbox_nb.events import LOAD_STAGES, TAKE_STAGES, Progress
from chatterbox_nb.notebook.progress import ProgressLine
from chatterbox_nb.render import progress as drawn

WORKING = """
import time
from chatterbox_nb.events import Progress
from chatterbox_nb.notebook.progress import ProgressLine

def work(seconds, quiet=False):
    line = ProgressLine(get_ipython(), quiet)
    while line.elapsed < seconds:
        line.tick(Progress("tokens", int(100 * line.elapsed), fraction=line.elapsed / seconds))
        time.sleep(0.005)
    line.finish("Done.")
"""


@pytest.mark.parametrize(
    ("progress", "says"),
    [
        (None, "Waiting for the model, 2.5 s"),
        (Progress("import", detail="PyTorch"), "Importing PyTorch, 2.5 s"),
        (Progress("find", detail="english"), "Looking for the files of english, 2.5 s"),
        (
            Progress("download", 500_000_000, 2_000_000_000, detail="t3_cfg.safetensors"),
            "Downloading t3_cfg.safetensors, 500 MB of 2.00 GB, 2.5 s",
        ),
        (Progress("check"), "Checking the files, 2.5 s"),
        (Progress("build"), "Building the networks, 2.5 s"),
        (Progress("weights", 3_000_000, 12_000_000, detail="t3"), "Loading weights t3, 3.00 MB of 12.0 MB, 2.5 s"),
        (Progress("watermarker"), "Loading the watermarker, 2.5 s"),
        (Progress("voice", detail="grandma"), "Preparing voice grandma, 2.5 s"),
        (Progress("tokens", 50, audio_seconds=2.0), "Speech tokens, 50 tokens, 2.0 s of audio, 2.5 s"),
        (
            Progress("tokens", 50, chunk=1, chunks=9, audio_seconds=14.0),
            "Speech tokens, 50 tokens, 14.0 s of audio, chunk 2 of 9, 2.5 s",
        ),
        (Progress("mel", 3, 10, audio_seconds=2.0), "Mel spectrogram, step 3 of 10, 2.0 s of audio, 2.5 s"),
        (Progress("wave", 0, 1, audio_seconds=2.0), "Waveform, 2.0 s of audio, 2.5 s"),
        (
            Progress("watermark", 0, 1, chunk=8, chunks=9, audio_seconds=30.0),
            "Watermark, 30.0 s of audio, chunk 9 of 9, 2.5 s",
        ),
    ],
)
def test_a_stage_is_told_in_words_with_its_figures(progress: Progress | None, says: str) -> None:
    assert drawn.line(progress, 2.5) == says


@pytest.mark.parametrize("stage", (*LOAD_STAGES, *TAKE_STAGES))
def test_every_stage_has_words_of_its_own(stage: str) -> None:
    words = drawn.line(Progress(stage), 1.0).split(",")[0]
    assert words[0].isupper()
    assert words != stage


def test_time_left_takes_the_place_of_time_spent() -> None:
    progress = Progress("tokens", 50, audio_seconds=2.0, fraction=0.25)
    assert drawn.line(progress, 2.5, left=7.2) == "Speech tokens, 50 tokens, 2.0 s of audio, 8 s left"
    assert drawn.line(progress, 2.5, left=125) == "Speech tokens, 50 tokens, 2.0 s of audio, 2:05 min left"


@pytest.mark.parametrize(
    ("begun", "reached", "spent", "left"),
    [
        (0.0, 0.25, 5.0, 15.0),
        (0.0, 0.5, 5.0, 5.0),
        (0.5, 0.75, 5.0, 5.0),
        (0.0, 0.99, 99.0, 1.0),
    ],
)
def test_time_left_is_judged_by_what_the_part_that_is_done_took(
    begun: float, reached: float, spent: float, left: float
) -> None:
    assert drawn.time_left(begun, reached, spent) == pytest.approx(left)


@pytest.mark.parametrize(("begun", "reached"), [(0.0, 0.0), (0.0, 0.02), (0.5, 0.52), (0.0, 1.0), (0.5, 0.4)])
def test_time_left_is_not_guessed_from_nothing(begun: float, reached: float) -> None:
    assert drawn.time_left(begun, reached, 5.0) is None


def test_the_bar_is_filled_as_far_as_the_work_is_done() -> None:
    def filled(fraction: float | None) -> int:
        html = drawn.html(Progress("tokens", 5, fraction=fraction), 1.0)
        track, fill = (int(width) for width in re.findall(r"width:(\d+)px;height", html))
        assert 0 <= fill <= track
        return round(100 * fill / track)

    assert [filled(fraction) for fraction in (None, 0.0, 0.25, 0.5, 1.0, 1.7, -1.0)] == [0, 0, 25, 50, 100, 100, 0]


def test_the_html_says_what_the_text_says_and_escapes_it() -> None:
    html = drawn.html(Progress("voice", detail="<script>alert(1)</script>"), 1.0)
    assert "Preparing voice &lt;script&gt;alert(1)&lt;/script&gt;, 1.0 s" in html
    assert "&lt;b&gt;" in drawn.finished("<b>")


def test_it_is_drawn_at_most_five_times_a_second(kernel: Kernel) -> None:
    kernel.ok(WORKING)
    reply = kernel.ok("work(1.5)")
    assert 3 <= len(reply.drawn) <= 1.5 * 5 + 1  # and its last state


def test_in_a_notebook_it_is_one_display_that_ends_static(kernel: Kernel) -> None:
    kernel.ok(WORKING)
    reply = kernel.ok("work(0.5)")
    (line,) = reply.displays
    assert len(reply.of("display_data")) == 1
    assert line["text/plain"] == "Done."
    assert "Done." in line["text/html"]
    assert "width:" not in line["text/html"].replace("max-width:", "")  # no bar
    assert not reply.printed
    assert "Speech tokens" in reply.drawn[0]["text/plain"]


def test_what_is_done_at_once_shows_no_line(kernel: Kernel) -> None:
    kernel.ok(WORKING)
    reply = kernel.ok("work(0.1)")
    assert not reply.drawn
    assert not reply.printed


def test_quiet_shows_no_line(kernel: Kernel) -> None:
    kernel.ok(WORKING)
    reply = kernel.ok("work(0.5, quiet=True)")
    assert not reply.drawn
    assert not reply.printed


def test_in_a_terminal_it_is_one_line_that_is_overwritten() -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "get_ipython = lambda: InteractiveShell.instance(config=Config(HistoryManager={'enabled': False}))\n"
        f"{WORKING}\nwork(0.9)\nwork(0.1)\nprint('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().split() == ["after"]
    drawn_lines = done.stderr.decode().split("\r\x1b[2K")
    assert drawn_lines[0] == ""
    assert 2 <= len(drawn_lines) - 1 <= 0.9 * 5 + 1
    assert all("Speech tokens" in line and "\n" not in line for line in drawn_lines[1:-1])
    assert drawn_lines[-1] == "Done.\n"


def test_time_left_is_not_judged_by_what_came_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights are told from 0 to 1 after an import and a download that took far longer."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    line = ProgressLine(shell=None)
    for now, progress in [
        (10.0, Progress("import")),
        (20.0, Progress("download", 1, 4, fraction=0.25)),
        (30.0, Progress("download", 2, 4, fraction=0.5)),
        (100.0, Progress("download", 4, 4, fraction=1.0)),
        (101.0, Progress("weights", 1, 10, fraction=0.1)),
        (102.0, Progress("weights", 5, 10, fraction=0.5)),
    ]:
        clock[0] = now
        line.tick(progress)
    texts = capsys.readouterr().err.split("\r\x1b[2K")[1:]
    told = [text.split(", ")[-1] for text in texts]
    assert told == ["10.0 s", "20.0 s", "20 s left", "1:40 min", "1:41 min", "2 s left"]
