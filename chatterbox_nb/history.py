"""The takes of this kernel, so that panels show what a magic spoke, and a person finds what a panel spoke."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import overload

from chatterbox_nb import manager
from chatterbox_nb.take import ConversionRequest, Take

_KEPT_BYTES = 200_000_000  # of samples: half an hour of audio


class TakeHistory(Sequence[Take]):
    """Takes, the newest first: as many as `TAKES_KEPT` says, and of long ones fewer.

    >>> tts.takes[0].save("hello.mp3")
    """

    def __init__(self) -> None:
        self._takes: list[Take] = []
        self._lock = threading.Lock()

    def add(self, take: Take, most: int) -> None:
        """Keeps a take. The oldest go when there are more than `most`, or 200 MB of samples; the newest stays."""
        with self._lock:
            kept = [take, *self._takes][:most]
            while len(kept) > 1 and sum(map(_bytes, kept)) > _KEPT_BYTES:
                kept.pop()
            self._takes = kept
        manager.get().changed()

    def remove(self, take: Take) -> None:
        """Forgets a take. One that is not here is as good as forgotten."""
        with self._lock:
            self._takes = [kept for kept in self._takes if kept is not take]
        manager.get().changed()

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._takes = []
        manager.get().changed()

    @overload
    def __getitem__(self, index: int) -> Take: ...

    @overload
    def __getitem__(self, index: slice) -> list[Take]: ...

    def __getitem__(self, index: int | slice) -> Take | list[Take]:
        return self._takes[index]

    def __iter__(self) -> Iterator[Take]:
        return iter(tuple(self._takes))

    def __len__(self) -> int:
        return len(self._takes)

    def __repr__(self) -> str:
        return f"TakeHistory({len(self)} takes, {sum(take.duration for take in self):.1f} s)"


def _bytes(take: Take) -> int:
    """Samples of a take, and of the clip that it was made of."""
    given = take.request.samples.nbytes if isinstance(take.request, ConversionRequest) else 0
    return take.samples.nbytes + given


takes = TakeHistory()
