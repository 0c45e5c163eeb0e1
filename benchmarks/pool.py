"""Work in two processes of one thread each, and what they made, kept for a run that goes on."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

PROCESSES = 2


def processes() -> ProcessPoolExecutor:
    fresh = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(PROCESSES, fresh, initializer=torch.set_num_threads, initargs=(1,))


def made(folder: Path, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, from the disk where an earlier run kept it."""
    path = folder / f"{name}.json"
    if not path.exists():
        found = json.dumps(work(*arguments))
        path.with_suffix(".part").write_text(found)
        path.with_suffix(".part").rename(path)
        print(name, flush=True)
    return json.loads(path.read_text())
