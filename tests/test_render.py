"""How results show themselves: as text, and as HTML that plays and stays whole in a sanitizer."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from conftest import SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import choices, manager
from chatterbox_nb.engine.report import LoadReport
from chatterbox_nb.manager import ModelInfo
from chatterbox_nb.render import elements, takes
from chatterbox_nb.render.units import part, seconds, size, whole_seconds
from chatterbox_nb.shown import RENDERERS, Shown
from chatterbox_nb.take import Take
from chatterbox_nb.usage import MemoryReading

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&amp;"
KINDS = ("LoadReport", "MemoryReading", "ModelTable", "ModelInfo", "Take")
# What trusted and untrusted notebooks both let through.
ELEMENTS = {"div", "span", "b", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "img", "audio"}
ATTRIBUTES = {"style", "alt", "width", "height", "src", "controls", "preload", "autoplay"}

pytestmark = pytest.mark.xdist_group("render")  # they share their takes


class Page(HTMLParser):
    """The elements of an HTML fragment, which must be whole."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def take() -> Take:
    manager.get().load("demo", "int8").wait()
    return tts.speak(SENTENCE, seed=7)


@pytest.fixture(scope="module")
def report(take: Take) -> LoadReport:
    return manager.get().load("demo", "int8").wait()


@pytest.fixture(scope="module")
def results(take: Take, report: LoadReport) -> dict[str, Shown]:
    shown: dict[str, Shown] = {"Take": take, "LoadReport": report, "ModelInfo": tts.info()}
    return {**shown, "MemoryReading": tts.memory(), "ModelTable": choices.models("cpu")}


def html_of(result: Shown) -> str:
    html = result._repr_html_()
    assert html is not None
    return html


def sound_of(html: str) -> tuple[np.ndarray, int]:
    """What a browser would play."""
    (player,) = Page(html).of("audio")
    kind, data = (player["src"] or "").split(",", 1)
    assert kind == "data:audio/mpeg;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data, validate=True)), dtype="float32")
    return samples, rate


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_every_kind_of_result_has_a_renderer() -> None:
    kinds = {kind.__name__ for kind in Shown.__subclasses__() if kind.__module__.startswith("chatterbox_nb")}
    assert kinds == set(RENDERERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_shown_as_text_and_as_html(results: dict[str, Shown], kind: str) -> None:
    result = results[kind]
    assert repr(result).strip()
    assert "object at 0x" not in repr(result)
    assert Page(html_of(result)).text.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_html_is_made_of_what_sanitizers_let_through(results: dict[str, Shown], kind: str) -> None:
    page = Page(html_of(results[kind]))
    assert {name for name, _ in page.elements} <= ELEMENTS
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    for attributes in page.of("img"):
        assert attributes["alt"]


@pytest.mark.parametrize("kind", KINDS)
def test_html_takes_the_colours_of_the_notebook(results: dict[str, Shown], kind: str) -> None:
    styles = " ".join(attributes.get("style") or "" for _, attributes in Page(html_of(results[kind])).elements)
    assert not re.search(r"(?<!-)\bcolor:|background:(?!rgba)", styles)
    assert "tabular-nums" in styles


def test_text_from_outside_cannot_break_out(take: Take, report: LoadReport, results: dict[str, Shown]) -> None:
    model = manager.get().loaded()
    voice = replace(model.builtin_voice(), name=HOSTILE)
    info = results["ModelInfo"]
    reading = results["MemoryReading"]
    assert isinstance(info, ModelInfo)
    assert isinstance(reading, MemoryReading)
    for result in (
        replace(take, request=replace(take.request, text=HOSTILE, voice=voice), model=HOSTILE, warnings=(HOSTILE,)),
        replace(report, title=HOSTILE, source=HOSTILE, warnings=(HOSTILE,), plan=replace(report.plan, why=HOSTILE)),
        replace(info, title=HOSTILE, source=HOSTILE, reason=HOSTILE, bytes_by_component={HOSTILE: 5}),
        replace(reading, device=HOSTILE),
    ):
        page = Page(html_of(result))
        assert {name for name, _ in page.elements} <= ELEMENTS
        assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
        assert HOSTILE in page.text


@pytest.mark.parametrize(
    "html",
    [
        elements.strong(HOSTILE),
        elements.line(HOSTILE),
        elements.muted(HOSTILE),
        elements.warnings([HOSTILE]),
        elements.table([(HOSTILE,)]),
        elements.table([("x",)], (HOSTILE,)),
        elements.folded(HOSTILE, ""),
    ],
)
def test_every_element_escapes_its_text(html: str) -> None:
    page = Page(html)
    assert HOSTILE in page.text
    assert not page.of("script")
    assert not page.of("img")


def test_the_player_carries_its_sound_itself(take: Take) -> None:
    page = Page(html_of(take))
    (player,) = page.of("audio")
    assert "controls" in player
    assert not page.of("source")
    assert '<audio controls preload="metadata"' in html_of(take)


def test_it_plays_by_itself_only_when_asked(take: Take) -> None:
    assert "autoplay" not in Page(takes.take(take)).of("audio")[0]
    assert "autoplay" in Page(takes.take(take, autoplay=True)).of("audio")[0]


@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_the_sound_is_the_takes_at_its_own_level(take: Take, gain: float) -> None:
    quiet = replace(take, samples=take.samples * np.float32(gain))
    played, rate = sound_of(html_of(quiet))
    assert rate == take.sample_rate
    assert len(played) == len(take)
    assert level(played) == pytest.approx(level(quiet.samples), rel=0.01)
    assert np.abs(played).max() == pytest.approx(np.abs(quiet.samples).max(), rel=0.1)


def test_silence_plays_and_stays_silent(take: Take) -> None:
    silent = replace(take, samples=np.zeros(24_000, np.float32))
    played, _ = sound_of(html_of(silent))
    assert len(played) == 24_000
    assert np.abs(played).max() < 1e-4


def test_an_empty_take_says_so(take: Take) -> None:
    empty = replace(take, samples=np.zeros(0, np.float32), chunks=(), finish="budget")
    page = Page(html_of(empty))
    assert "No sound came out." in page.text
    assert not page.of("audio")
    assert not page.of("img")
    assert repr(empty) == "Take: 0.00 s · demo int8 · voice builtin · seed 7 · ended by budget"


@pytest.fixture(scope="module")
def long_take(take: Take) -> Take:
    """More than ten seconds."""
    return tts.speak(f"{SENTENCE} The early music takes the hard house. " * 2 + SENTENCE, seed=7)


@pytest.mark.parametrize("seconds_of_speech", [1, 3, 10])
def test_a_notebook_grows_by_at_most_15_kb_a_second_of_speech(long_take: Take, seconds_of_speech: int) -> None:
    """All of what is saved for one take: its text, its HTML and the sound in that; a page has a thousand bytes free."""
    speech = replace(long_take, samples=long_take.samples[: seconds_of_speech * 24_000])
    assert speech.duration == seconds_of_speech
    saved = len(repr(speech).encode()) + len(html_of(speech).encode())
    print(f"{seconds_of_speech} s: {saved} bytes, {saved / seconds_of_speech / 1e3:.1f} kB a second")
    assert saved <= 15_000 * seconds_of_speech + 1_000


def picture_of(html: str) -> ElementTree.Element:
    (picture,) = Page(html).of("img")
    kind, data = (picture["src"] or "").split(",", 1)
    assert kind == "data:image/svg+xml"
    assert re.fullmatch(r"[\w%,.=:/'~()*!&;?@#$+-]+", data)
    return ElementTree.fromstring(unquote(data))


def strokes_of(picture: ElementTree.Element) -> list[tuple[int, int]]:
    """Top and bottom of each stroke, in the picture's units, walked as a browser walks the path."""
    (path,) = picture
    found, at = [], 0
    for down, length in re.findall(r"m1,?(-?\d+)v(\d+)", path.attrib["d"]):
        top = at + int(down)
        at = top + int(length)
        found.append((top, at))
    return found


def test_the_waveform_is_the_extent_of_the_samples(take: Take) -> None:
    ramp = np.linspace(0, 1, 48_000, dtype=np.float32) * np.where(np.arange(48_000) % 2, 1, -1).astype(np.float32)
    picture = picture_of(html_of(replace(take, samples=ramp)))
    strokes = strokes_of(picture)
    _, _, width, height = (float(number) for number in picture.attrib["viewBox"].split())
    assert len(strokes) == width == 96
    assert strokes[0][0] in (47, 48)
    assert strokes[-1] == (0, height)
    for index, (top, bottom) in enumerate(strokes):
        extent = (index + 1) / len(strokes)
        assert (bottom - top) / height == pytest.approx(extent, abs=0.03)
        assert top + bottom == pytest.approx(height, abs=2)


def test_the_waveform_is_at_full_scale_not_at_the_takes_own(take: Take) -> None:
    def tallest(gain: float) -> int:
        picture = picture_of(html_of(replace(take, samples=take.samples * np.float32(gain))))
        return max(bottom - top for top, bottom in strokes_of(picture))

    assert tallest(0.5) == pytest.approx(tallest(1.0) / 2, abs=2)


def test_the_waveform_of_silence_is_a_line(take: Take) -> None:
    for samples in (np.zeros(24_000, np.float32), np.zeros(1, np.float32)):
        strokes = strokes_of(picture_of(html_of(replace(take, samples=samples))))
        assert set(strokes) == {(48, 49)}


def test_the_alternative_text_says_how_long_it_is(take: Take) -> None:
    (picture,) = Page(html_of(take)).of("img")
    assert picture["alt"] == f"Waveform of {take.duration:.1f} seconds of speech"


def test_a_takes_caption_is_its_length_model_voice_seed_and_speed(take: Take) -> None:
    caption = (
        f"{take.duration:.1f} s · demo int8 · voice builtin · seed 7 · real-time factor {take.real_time_factor:.2f}"
    )
    assert repr(take) == f"Take: {caption}"
    assert Page(html_of(take)).text == caption


def test_a_takes_caption_tells_chunks_and_how_it_ended(take: Take) -> None:
    cut = replace(take, chunks=take.chunks * 3, finish="cancelled", warnings=("Too loud.", "Too long."))
    assert repr(cut).splitlines()[1:] == ["  warning: Too loud.", "  warning: Too long."]
    for text in (repr(cut), Page(html_of(cut)).text):
        assert f"{take.duration:.1f} s · 3 chunks · demo int8" in text
        assert "ended by cancelled" in text
        assert "Too loud." in text
        assert "Too long." in text


def test_a_load_report_names_its_three_denominators_and_their_bytes(report: LoadReport) -> None:
    for name, count in {
        "of what the package loads in fp32": report.shipped_bytes,
        "of our own fp32": report.own_fp32_bytes,
        "of our own fp16": report.own_fp16_bytes,
    }.items():
        ratio = part(report.bytes / count)
        assert f"{ratio}  {name} ({size(count)})" in repr(report)
        assert f"{ratio}{name}{size(count)}" in Page(html_of(report)).text


def test_a_load_report_says_bytes_reason_source_memory_and_time(report: LoadReport) -> None:
    for text in (repr(report), Page(html_of(report)).text):
        assert f"{size(report.bytes)} in memory" in text
        assert report.plan.reason in text
        assert report.source in text
        assert size(report.process_growth_bytes) in text
        assert size(report.process_peak_bytes) in text
        assert size(report.watermarker_bytes) in text
        for stage, spent in report.seconds.items():
            assert f"{stage} {seconds(spent)}" in text
        for name, count in report.bytes_by_component.items():
            assert (name in text and size(count) in text) or not count


def test_a_load_reports_html_holds_every_row_folded_away(report: LoadReport) -> None:
    html = html_of(report)
    kinds, rows = (part.partition("</details>")[0] for part in html.split("<details>")[1:])
    assert rows.count("<tr>") == len(report.rows) + 1
    assert kinds.count("<tr>") == len(report.by_kind) + 1
    assert "<summary>" in rows


def test_a_load_report_counts_layers_in_int8_and_not(report: LoadReport) -> None:
    converted, kept = (sum(counts[index] for counts in report.by_kind.values()) for index in (0, 2))
    assert converted > 0
    assert f"layers: {converted} in int8, {kept} not" in repr(report)
    assert sum(small + rest for _, small, _, rest in report.by_kind.values()) == report.bytes


@pytest.mark.parametrize("state", ["read", "written", "not written"])
def test_a_load_report_says_what_the_disk_did(report: LoadReport, state: str) -> None:
    told = replace(report, cache=state)
    assert "int8 form" in repr(told)
    assert "int8 form" in Page(html_of(told)).text
    assert "int8 form" not in repr(replace(report, cache="off"))


@pytest.mark.parametrize(
    ("shared", "says"),
    [
        ((), None),
        (("vocoder",), "vocoder was"),
        (("flow", "vocoder"), "flow and vocoder were"),
        (("t3", "flow", "vocoder"), "t3, flow and vocoder were"),
    ],
)
def test_a_load_report_says_what_was_in_memory(report: LoadReport, shared: tuple[str, ...], says: str | None) -> None:
    told = replace(report, shared=shared)
    shown = (repr(told), Page(html_of(told)).text)
    if says is None:
        assert not any("in memory already" in text for text in shown)
        return
    saved = size(sum(report.bytes_by_component[component] for component in shared))
    assert all(f"{says} in memory already: {saved} less to load" in text for text in shown)


def test_warnings_of_a_load_are_shown(report: LoadReport) -> None:
    warned = replace(report, warnings=("This licence is not free.",))
    assert "warning: This licence is not free." in repr(warned)
    assert "This licence is not free." in Page(html_of(warned)).text


def test_model_info_says_what_is_loaded(results: dict[str, Shown]) -> None:
    info = results["ModelInfo"]
    assert isinstance(info, ModelInfo)
    for text in (repr(info), Page(html_of(info)).text):
        for fact in (info.title, "int8", "cpu", info.dtype, info.kernel, info.source, info.weights[:16], info.reason):
            assert fact in text
        assert size(info.bytes) in text
        assert "unverified" not in text


def test_a_device_that_was_never_tried_says_so(results: dict[str, Shown]) -> None:
    info = results["ModelInfo"]
    assert isinstance(info, ModelInfo)
    elsewhere = replace(info, device="cuda:0", verified=False, kernel="")
    for text in (repr(elsewhere), Page(html_of(elsewhere)).text):
        assert "not run on this kind of cuda yet: unverified on hardware" in text


def test_memory_says_what_each_figure_counts() -> None:
    reading = MemoryReading("cpu", 1_000_000_000, 7_000_000, None, 1_200_000_000, 6_000_000_000, 16_000_000_000)
    assert repr(reading).splitlines() == [
        "Memory on cpu",
        "   7.00 MB  allocated: the model's tensors",
        "   1.20 GB  peak: this process, in the last load or take",
        "   1.00 GB  process: resident memory, imports included",
        "   6.00 GB  used in the machine by everyone",
        "   10.0 GB  free",
        "   16.0 GB  in all",
    ]
    assert "10.0 GBfree" in Page(html_of(reading)).text


def test_memory_leaves_out_what_the_device_does_not_tell() -> None:
    assert repr(MemoryReading("mps", 5)) == "Memory on mps\n       5 B  process: resident memory, imports included"


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (412_000, "412 kB"),
        (999_600, "1.00 MB"),
        (1_000_000, "1.00 MB"),
        (28_900_000, "28.9 MB"),
        (999_700_000, "1.00 GB"),
        (10**9, "1.00 GB"),
        (2**30, "1.07 GB"),
        (3_200_000_000_000, "3200 GB"),
        (-5_000_000, "-5.00 MB"),
    ],
)
def test_sizes_have_three_figures_and_a_gb_is_a_billion_bytes(count: float | None, says: str) -> None:
    assert size(count) == says


@pytest.mark.parametrize(
    ("count", "says"),
    [(0, "0.00 s"), (0.42, "0.42 s"), (0.999, "1.0 s"), (7.31, "7.3 s"), (59.97, "1:00 min"), (125.2, "2:06 min")],
)
def test_seconds_are_short(count: float, says: str) -> None:
    assert seconds(count) == says


@pytest.mark.parametrize(
    ("count", "says"), [(0.01, "1 s"), (7.2, "8 s"), (59.5, "1:00 min"), (125, "2:05 min"), (3_600, "60:00 min")]
)
def test_guessed_seconds_are_whole_and_rounded_up(count: float, says: str) -> None:
    assert whole_seconds(count) == says


def test_parts_are_percent_with_one_decimal() -> None:
    assert [part(0.2089), part(1), part(0)] == ["20.9 %", "100.0 %", "0.0 %"]


def test_columns_of_figures_are_aligned_right_and_words_left() -> None:
    html = elements.table([("12 kB", "t3", ""), ("9.10 MB", "2nd", "x")], ("bytes", "part", "note"))
    heads = [attributes["style"] or "" for attributes in Page(html).of("th")]
    assert ["right" in style for style in heads] == [True, False, False]


def test_a_table_without_rows_is_empty_but_whole() -> None:
    assert Page(elements.table([])).text == ""
