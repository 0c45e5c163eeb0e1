"""The Speak panel: a text, a voice, how it is to sound; Speak and Stop."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from chatterbox_nb import library, settings, speech
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine import effort
from chatterbox_nb.errors import SettingError, TTSError
from chatterbox_nb.jobs import Job
from chatterbox_nb.notebook.panels import widgets
from chatterbox_nb.notebook.panels.part import Part, Whole
from chatterbox_nb.notebook.panels.state import State
from chatterbox_nb.render import panels as drawn
from chatterbox_nb.take import SpeechRequest, Take

# Setting, label, and the range and step of its control; a default beyond the range widens it.
_SLIDERS = (
    ("exaggeration", "Exaggeration", 0.0, 2.0, 0.05),
    ("cfg_weight", "Guidance", 0.0, 1.0, 0.05),
    ("temperature", "Temperature", 0.0, 1.5, 0.05),
)
_NUMBERS = (
    ("min_p", "Min p", 0.01),
    ("top_p", "Top p", 0.01),
    ("repetition_penalty", "Repetition", 0.05),
)
_NOT_LOADED = "No model is loaded. Load one in the Precision panel, or run %tts_load demo."


class Speak(Part):
    """
    Args:
        player: the newest take that was spoken here is shown here too.
    """

    name = "speak"
    title = "Speak"

    def __init__(self, panel: Whole, player: bool = True) -> None:
        super().__init__(panel)
        self.text = widgets.textarea("Text", "Type what is to be said.")
        self._voices = _first_voices()
        self.voice = widgets.dropdown("Voice", self._voices, self._voices[0])
        self.upload = widgets.upload(
            ".wav,.flac,.mp3,.ogg",
            self._uploaded,
            "Keep a clip as a voice; up to 10 MB, which is what Jupyter lets through",
        )
        self.language = widgets.dropdown("Language", ["en"], "en")
        defaults = _defaults(None)
        self.options = {
            name: widgets.slider(label, defaults[name], low, high, step) for name, label, low, high, step in _SLIDERS
        } | {
            name: widgets.number(label, defaults[name], rule.low or 0.0, rule.high or 0.0, step)
            for name, label, step in _NUMBERS
            for rule in (settings.BY_NAME[name],)
        }
        self.effort = widgets.dropdown("Effort", settings.EFFORTS, _first_effort())
        # Numbers that are typed: an empty one is not said.
        self.typed = {
            "max_chunk": widgets.text("Max chunk", "the model's own; in characters"),
            "cfm_steps": widgets.text("Flow steps", "the effort's"),
            "voice_seconds": widgets.text("Reference", "the effort's; in seconds of the voice"),
        }
        self.seed = widgets.text("Seed", "a new one each time")
        self.die = widgets.button("", self.guarded(self._roll), "Draw a seed", icon="random")
        self.speak = widgets.button("Speak", self.settled(self._speak), "Speak the text", main=True)
        self.stop = widgets.button("Stop", self.stops("take"), "Stop within a token; finished chunks are kept")
        self.play = widgets.checkbox("Play when ready", True)
        self.player = widgets.html()
        self.with_player = player
        self.widget = self.card(
            self.text,
            widgets.row(self.voice, self.upload),
            self.language,
            *(self.options[name] for name, *_ in _SLIDERS),
            self.effort,
            widgets.row(self.seed, self.die),
            widgets.folded("Advanced", *(self.options[name] for name, *_ in _NUMBERS), *self.typed.values()),
            widgets.row(self.speak, self.stop, self.play),
            below=[self.player],
        )
        for field in (self.voice, self.seed):
            field.add_class("cbnb-wide")
        controls = (*self.options.values(), *self.typed.values())
        self.read_from(self.text, self.voice, self.language, self.effort, self.seed, *controls)
        widgets.show(self.language, False)
        self._mine: Job[Take] | None = None
        self._spec: ModelSpec | None = None  # whose defaults and languages are shown
        self._picked = ""  # a voice that is to be chosen when the list has it

    def _speak(self) -> None:
        chosen: dict[str, Any] = {name: control.value for name, control in self.options.items()}
        chosen |= {name: number for name, field in self.typed.items() if (number := field.value.strip())}
        chosen["effort"] = self.effort.value
        if len(self.language.options) > 1:
            chosen["language"] = self.language.value
        self._mine = speech.submit(self.text.value, self.voice.value, self._seed(), **chosen)

    def _seed(self) -> int | None:
        written = self.seed.value.strip()
        if not written:
            return None
        if not written.isdecimal():
            raise SettingError(f"The seed is a whole number, not '{written}'. Leave it empty for a new one each time.")
        return int(written)

    def _roll(self) -> None:
        from chatterbox_nb.engine.noise import new_seed

        self.seed.value = str(new_seed())

    def _uploaded(self, file: str, content: bytes) -> None:
        self.guarded(lambda: self._keep(file, content))()

    def _keep(self, file: str, content: bytes) -> None:
        """Keeps a clip in the library, under its file's name; a voice that is there stays as it is."""
        stem = " ".join(re.sub(r"[^\w-]+", " ", Path(file).stem).strip("- ").split())[:48] or "voice"
        name, count = stem, 1
        while name in library.voices or name == "builtin":
            count += 1
            name = f"{stem} {count}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip{Path(file).suffix}"
            path.write_bytes(content)
            library.voices.add(name, path)
        self._picked = name
        self.tell(f"Kept as voice {name}.", "done")

    def fill(self, request: SpeechRequest) -> None:
        """Puts a request into the form."""
        self.text.value, self.seed.value = request.text, str(request.seed)
        for name, control in self.options.items():
            control.value = getattr(request, name)
        known = self._spec and effort.of(request.cfm_steps, request.voice_seconds, self._spec)
        self.effort.value = known or "best"
        for name, field in self.typed.items():
            number = None if known and name != "max_chunk" else getattr(request, name)
            field.value = "" if number is None else f"{number:g}"
        if request.language in self.language.options:
            self.language.value = request.language
        voice = request.voice.name if request.voice else "builtin"
        self.voice.value = voice if voice in self.voice.options else "builtin"

    def draw(self, state: State) -> None:
        self._follow(state.spec)
        widgets.offer(self.voice, [*self._voices, *(name for name in state.voices if name not in self._voices)])
        if self._picked in self.voice.options:
            self.voice.value, self._picked = self._picked, ""
        taking = state.running("take") is not None
        self.speak.disabled = state.busy or state.report is None
        self.stop.disabled = not taking
        self.show_progress(state, "take", "voice")
        self.show_outcome(state, "take", "voice")
        if state.report is None and not state.activity.running:
            self.status.value = drawn.hint(_NOT_LOADED)
        mine = self._mine
        if mine is not None and mine.done:
            self._mine = None  # before it is shown: the next may be asked for meanwhile
            self._show(mine)

    def _follow(self, spec: ModelSpec | None) -> None:
        """Takes over another model's own defaults, where a control stands at the old ones, and its languages."""
        if spec is self._spec:
            return
        before, after = _defaults(self._spec), _defaults(spec)
        for option, control in self.options.items():
            if control.value == before[option]:
                control.value = after[option]
        languages = list(spec.languages) if spec else ["en"]
        widgets.offer(self.language, languages)
        widgets.show(self.language, len(languages) > 1)
        self._spec = spec

    def _show(self, job: Job[Take]) -> None:
        """Plays the take that was asked for here."""
        try:
            take = job.result()
        except TTSError:
            return  # the outcome tells
        kept = drawn.take(take) if self.with_player else ""
        if self.play.value and len(take):
            playing = drawn.take(take, autoplay=True) if self.with_player else drawn.sound(take)
            widgets.play_once(self.player, playing, kept)
        else:
            self.player.value = kept


def _first_voices() -> list[str]:
    """What there is besides the library; what is used when none is named stands first."""
    try:
        own = settings.value_of("voice")
    except SettingError:  # told when it is used
        own = None
    return ["builtin"] if own in (None, "builtin") else [own, "builtin"]


def _first_effort() -> str:
    try:
        return str(settings.value_of("effort"))
    except SettingError:  # told when it is used
        return settings.EFFORTS[0]


def _defaults(spec: ModelSpec | None) -> dict[str, Any]:
    """What the controls stand at: the settings', over the model's own."""
    own = spec.defaults if spec else {}
    found = {}
    for name in [name for name, *_ in _SLIDERS] + [name for name, *_ in _NUMBERS]:
        try:
            found[name] = settings.value_of(name, None, own.get(name))
        except SettingError:  # told when it is used
            found[name] = settings.BY_NAME[name].default
    return found
