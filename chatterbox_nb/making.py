"""What speaking a text and converting a clip share: options, a seed, and a take of what came out or was finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chatterbox_nb import audio, history, manager, settings
from chatterbox_nb.engine import effort
from chatterbox_nb.errors import Cancelled, SettingError, nearest
from chatterbox_nb.events import Observer, Progress
from chatterbox_nb.take import Request, Take, TakeChunk, now
from chatterbox_nb.usage import PeakMeter

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.spec import ModelSpec
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.engine.pipeline import SpokenChunk

# How a take ended is how its least happy chunk ended.
_WORST = ("stop", "budget", "limit", "cancelled")


def read_options(given: dict[str, Any], names: Sequence[str], others: Sequence[str], spec: ModelSpec) -> dict[str, Any]:
    """Values of options: what the call says, else the settings, the effort, the model.

    Args:
        names: settings that are options of a take.
        others: options that are not; `effort` is one.

    Raises:
        SettingError: an option that is not there, or a value out of its range.
    """
    known = (*names, *others)
    for name in given:
        if name not in known:
            raise SettingError(f"There is no option '{name}'; there are {', '.join(known)}.{nearest(name, known)}")
    defaults = effort.defaults(settings.value_of("effort", given.get("effort")), spec)
    return {name: settings.value_of(name, given.get(name), defaults.get(name)) for name in names}


def read_seed(seed: int | None) -> int:
    """A seed that was given, or a new one."""
    from chatterbox_nb.engine.noise import LARGEST_SEED, new_seed

    if seed is None:
        return new_seed()
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= LARGEST_SEED:
        raise SettingError(f"seed={seed!r} is not a whole number from 0 to {LARGEST_SEED}.")
    return int(seed)


@dataclass(frozen=True)
class Keeping:
    """What the settings said of memory and takes when a take was asked for."""

    monitored: bool
    takes_kept: int
    cleanup: tuple[int, int]


def keeping() -> Keeping:
    intervals = settings.value_of("cleanup_interval"), settings.value_of("cuda_cache_interval")
    return Keeping(settings.value_of("monitoring"), settings.value_of("takes_kept"), intervals)


def collect(
    chunks: Iterable[SpokenChunk], on_chunk: Callable[[int, SpokenChunk], None] | None = None
) -> tuple[list[SpokenChunk], bool]:
    """The chunks that came out, and whether it was stopped before there were all.

    Args:
        on_chunk: told the index of each and the chunk, as soon as it is there.
    """
    made: list[SpokenChunk] = []
    try:
        for chunk in chunks:
            made.append(chunk)
            if on_chunk is not None:
                on_chunk(len(made) - 1, chunk)
    except Cancelled:
        return made, True
    return made, False


def finish(
    made: list[SpokenChunk], wanted: int, stopped: bool, compose: Composer, kept: Keeping, tell: Observer
) -> Take:
    """The take of all chunks, which the history keeps.

    Raises:
        Cancelled: it was stopped; what was finished is in its `take`, and in the history.
    """
    manager.get().took(compose.meter.peak or None, *kept.cleanup)
    if stopped:
        part = compose(made, cancelled=True) if made else None
        if part is not None:
            history.takes.add(part, kept.takes_kept)
        seconds = f" ({part.duration:.1f} s)" if part else ""
        raise Cancelled(f"Stopped. {len(made)} of {wanted} chunks were finished{seconds}.", part)
    tell(Progress("spoken", len(made), len(made), fraction=1.0))
    take = compose(made)
    history.takes.add(take, kept.takes_kept)
    return take


class Composer:
    """Makes takes of chunks.

    Args:
        pauses: seconds of silence after each chunk.
        warn: what there is to say of chunks, of which the first has this index.
    """

    def __init__(
        self,
        model: Model,
        request: Request,
        pauses: Sequence[float],
        meter: PeakMeter,
        warn: Callable[[list[SpokenChunk], int], list[str]] = lambda made, first: [],
    ) -> None:
        self.model, self.request, self.pauses, self.meter, self.warn = model, request, pauses, meter, warn

    def __call__(self, made: list[SpokenChunk], first: int = 0, cancelled: bool = False) -> Take:
        spec = self.model.spec
        pauses = [self.pauses[index] if chunk.finish is not None else 0.0 for index, chunk in enumerate(made, first)]
        samples, starts = audio.join([chunk.samples for chunk in made], pauses, spec.sample_rate)
        samples.setflags(write=False)
        finishes = [chunk.finish or "stop" for chunk in made] + (["cancelled"] if cancelled else [])
        stages = dict.fromkeys(stage for chunk in made for stage in chunk.seconds)
        voiced = self.request.voice.warnings if self.request.voice else ()
        return Take(
            request=self.request,
            samples=samples,
            sample_rate=spec.sample_rate,
            chunks=tuple(
                TakeChunk(chunk.text, start, chunk.tokens, chunk.finish or "stop")
                for chunk, start in zip(made, starts, strict=True)
            ),
            finish=max(finishes, key=_WORST.index),
            seconds={stage: sum(chunk.seconds.get(stage, 0.0) for chunk in made) for stage in stages},
            peak_bytes=self.meter.growth,
            warnings=(*voiced, *self.warn(made, first)),
            model=spec.name,
            precision=self.model.plan.precision,
            device=self.model.plan.device,
            weights=self.model.report.weights,
            created=now(),
        )
