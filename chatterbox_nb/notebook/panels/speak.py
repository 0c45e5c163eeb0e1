"""The Speak panel: a text, a voice, how it is to sound; Speak and Stop."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatterbox_nb import languages, library, making, manager, settings, speech
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
_INTEGERS = (("top_k", "Top k"),)
_NAMES = tuple(name for name, *_ in (*_SLIDERS, *_NUMBERS, *_INTEGERS))
_ADVANCED = tuple(name for name, *_ in (*_NUMBERS, *_INTEGERS))
# Numbers that are typed: an empty one is not said. Label, and what stands in an empty one.
_TYPED = {
    "max_chunk": ("Max chunk", "the model's own; in characters"),
    "cfm_steps": ("Flow steps", "the effort's"),
    "voice_seconds": ("Reference", "the effort's; in seconds of the voice"),
}
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
        self._own_language = "en"  # the one that is spoken where none is named
        self.language = widgets.dropdown("Language", _listed(tuple(languages.LANGUAGES), "en"), "en")
        self.options = _controls()
        self.effort = widgets.dropdown("Effort", settings.EFFORTS, _first_effort())
        self.typed = {name: widgets.text(label, empty) for name, (label, empty) in _TYPED.items()}
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
            widgets.folded("Advanced", *(self.options[name] for name in _ADVANCED), *self.typed.values()),
            widgets.row(self.speak, self.stop, self.play),
            below=[self.player],
        )
        for field in (self.voice, self.seed):
            field.add_class("cbnb-wide")
        controls = (*self.options.values(), *self.typed.values())
        self.read_from(self.text, self.voice, self.language, self.effort, self.seed, *controls)
        for field in (self.effort, self.language):
            field.observe(lambda change: self.panel.wake(), "value")
        self._mine: Job[Take] | None = None
        self._spec: ModelSpec | None = None  # whose options, defaults and languages are shown
        self._show_spec(None)
        self._picked = ""  # a voice that is to be chosen when the list has it

    def _speak(self) -> None:
        spec = manager.get().loaded().spec
        shown = {name: control for name, control in self.options.items() if name not in spec.ignores}
        chosen: dict[str, Any] = {name: control.value for name, control in shown.items()}
        chosen |= {name: number for name, field in self.typed.items() if (number := field.value.strip())}
        chosen["effort"] = self.effort.value
        if len(spec.languages) > 1:
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
            widgets.put(control, getattr(request, name))
        known = self._spec and effort.of(request.cfm_steps, request.voice_seconds, self._spec)
        self.effort.value = known or "best"
        for name, field in self.typed.items():
            number = None if known and name != "max_chunk" else getattr(request, name)
            field.value = "" if number is None else f"{number:g}"
        voice = request.voice.name if request.voice else "builtin"
        self.voice.value = voice if voice in self.voice.options else "builtin"
        self._fill_language(request.language)

    def _fill_language(self, code: str | None) -> None:
        """Picks a request's language, and tells when the model that is loaded speaks another; None is the model's."""
        if code is None:
            self.language.value = self._own_language
            return
        if code in [offered for _, offered in self.language.options]:
            self.language.value = code
        spec = self._spec
        if spec is not None and code not in spec.languages:
            self.tell(f"{spec.name} does not speak {languages.name_of(code)}, which this was said in.", "low")

    def draw(self, state: State) -> None:
        self._follow(state)
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

    def _follow(self, state: State) -> None:
        """Shows what another model has: its options and languages, and its own defaults where the old ones stood."""
        spec = state.spec
        if spec is not self._spec:
            before, after = _defaults(self._spec), _defaults(spec)
            for option, control in self.options.items():
                if control.value == before[option]:
                    widgets.put(control, after[option])
            self._show_spec(spec)
        if spec is not None and state.language is not None and len(spec.languages) > 1:
            self._follow_language(spec, state.language)
        self._say_what_is_empty()

    def _show_spec(self, spec: ModelSpec | None) -> None:
        """Shows the controls of which something comes with a model; without one, those that most models have."""
        ignored = (spec or ModelSpec).ignores
        for option, control in self.options.items():
            widgets.show(control, option not in ignored)
        widgets.show(self.language, spec is not None and len(spec.languages) > 1)
        self._spec = spec

    def _follow_language(self, spec: ModelSpec, own: str) -> None:
        """Offers a model's languages. What was picked stays picked, also while a model of one language is loaded."""
        picked = self.language.value != self._own_language
        widgets.offer(self.language, _listed(spec.languages, own))
        if not picked:
            self.language.value = own
        self._own_language = own

    def _say_what_is_empty(self) -> None:
        """Says in the fields of typed numbers what they are while nothing is typed."""
        said = {name: empty for name, (_, empty) in _TYPED.items()}
        if self._spec is not None:
            said |= _unsaid(self._spec, self.effort.value, self.language.value)
        for name, field in self.typed.items():
            field.placeholder = said[name]

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


def _controls() -> dict[str, Any]:
    """What an option of a take is set with, by its name."""
    defaults, rules = _defaults(None), settings.BY_NAME
    made = {name: widgets.slider(label, defaults[name], low, high, step) for name, label, low, high, step in _SLIDERS}
    for name, label, step in _NUMBERS:
        made[name] = widgets.number(label, defaults[name], rules[name].low or 0.0, rules[name].high or 0.0, step)
    for name, label in _INTEGERS:
        made[name] = widgets.whole(label, defaults[name], int(rules[name].low or 0), int(rules[name].high or 0))
    return made


def _defaults(spec: ModelSpec | None) -> dict[str, Any]:
    """What the controls stand at: the settings', over the model's own."""
    own = spec.defaults if spec else {}
    found = {}
    for name in _NAMES:
        try:
            found[name] = settings.value_of(name, None, own.get(name))
        except SettingError:  # told when it is used
            found[name] = settings.BY_NAME[name].default
    return found


def _listed(codes: Sequence[str], first: str) -> list[tuple[str, str]]:
    """Languages by their English names, and their codes; one stands first."""
    named = sorted((languages.name_of(code), code) for code in codes)
    return sorted(named, key=lambda pair: pair[1] != first)


def _unsaid(spec: ModelSpec, chosen_effort: str, picked: str) -> dict[str, str]:
    """What a model makes of numbers that nobody types, in words; nothing where a setting is wrong."""
    try:
        values = making.read_options({"effort": chosen_effort}, tuple(_TYPED), ("effort",), spec)
    except SettingError:  # told when it is used
        return {}
    language = picked if picked in spec.languages else spec.text.language
    chars = values["max_chunk"] or languages.rules_of(spec.text, language).max_chars
    seconds = values["voice_seconds"]
    return {
        "max_chunk": f"{chars} characters",
        "cfm_steps": f"{values['cfm_steps']} steps",
        "voice_seconds": "all of the voice" if seconds is None else f"the last {seconds:g} s of the voice",
    }
