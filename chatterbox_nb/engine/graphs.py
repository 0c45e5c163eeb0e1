"""CUDA graphs: work that is always the same, recorded once and launched as one.

A step of T3 is some 150 kernels and a step of the flow a thousand; launched one by one they cost more than they take.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


class Recorder:
    """Records work on one device, where that can be; elsewhere, and after a failure, work is done a call at a time.

    Args:
        device: where it is done; only on CUDA is anything recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.problem = ""  # why nothing is recorded any more

    @property
    def records(self) -> bool:
        return self.device.type == "cuda" and not self.problem

    def pool(self) -> Any:
        """Memory that several graphs share, for as long as one of them is there; they are launched in turn."""
        return torch.cuda.graph_pool_handle() if self.records else None

    def recorded(self, work: Callable[[], None], pool: Any = None) -> Callable[[], None]:
        """What does the same as `work`, which has been done at least once before and reads nothing back.

        Args:
            work: the addresses that it uses must stay: they are its graph's.
            pool: what it allocates is from there.
        """
        if not self.records:
            return work
        graph = torch.cuda.CUDAGraph()
        problem: BaseException | None = None
        try:
            self._record(graph, work, pool)
        except RuntimeError as error:
            problem = error
        if problem is None:
            return graph.replay
        if isinstance(problem, torch.OutOfMemoryError):
            raise problem
        self.problem = next(iter(str(problem).splitlines()), type(problem).__name__)
        return work

    def _record(self, graph: torch.cuda.CUDAGraph, work: Callable[[], None], pool: Any) -> None:
        stream, here = _side(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(here)
        with _no_collection(), torch.cuda.stream(stream):
            # Other threads of the kernel may use the device meanwhile: only this one's calls are held to the rules.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        here.wait_stream(stream)


@cache
def _side(device: torch.device) -> Any:
    """The stream that work is recorded on: one for all models, since cuBLAS keeps 35 MB for each that it meets."""
    return torch.cuda.Stream(device)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A graph that is collected while another is recorded would break it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
