"""What follows what. A stage is done when its report is there; two run side by side, a process of one thread each.

`python -m demo_voice [--recipe quick] [--only STAGE] [--install]`
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from demo_voice import store
from demo_voice.recipe import RECIPES

_SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Stage:
    """A function of a module, `function(folder, recipe)`, which gives what it tells; whether it takes both cores."""

    name: str
    function: str
    after: tuple[str, ...] = ()
    alone: bool = False

    def work(self) -> Callable[..., Any]:
        module, _, name = self.function.partition(":")
        return getattr(import_module(f"demo_voice.{module}"), name)


STAGES = (
    Stage("sound", "corpus:make_sound", alone=True),
    Stage("codec", "codec:train_codec", ("sound",)),
    Stage("speakers", "speakers:train_speakers"),
    Stage("vocoder", "vocoder:train_vocoder", ("sound",)),
    Stage("speech", "corpus:make_speech", ("codec",)),
    Stage("t3", "t3:train_t3", ("speech", "speakers")),
    Stage("flow", "flow:train_flow", ("codec", "speakers")),
    Stage("checkpoint", "pack:pack", ("codec", "vocoder", "speakers", "t3", "flow")),
    Stage("held_out", "held:write", ("checkpoint",)),
    Stage("evaluation", "evaluate:evaluate", ("checkpoint", "held_out"), alone=True),
)


def report(folder: Path, stage: Stage) -> Path:
    return folder / f"{stage.name}.json"


def run(folder: Path, recipe: str, stage: Stage) -> None:
    """One stage, in this process."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    started = time.perf_counter()
    told = stage.work()(folder, RECIPES[recipe])
    seconds = max(round(time.perf_counter() - started), told.get("seconds", 0))  # of a run that broke, all of it
    store.save_json(report(folder, stage), {**told, "stage_seconds": seconds})


def run_all(folder: Path, recipe: str) -> None:
    """Every stage that is not done yet, as soon as what it needs is there.

    Raises:
        RuntimeError: a stage failed; what it printed is in its `.out` file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    while running or not all(report(folder, stage).exists() for stage in STAGES):
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            if process.returncode:
                _end(running)
                raise RuntimeError(f"Stage {name} failed: {_last_lines(folder / f'{name}.out')}")
            print(f"{name}: {_in_short(store.load_json(folder / f'{name}.json'))}", flush=True)
        for stage in STAGES:
            if may_start(folder, stage, running):
                running[stage.name] = _start(folder, recipe, stage)
        time.sleep(0.5)


def may_start(folder: Path, stage: Stage, running: dict[str, Any]) -> bool:
    busy = any(one.alone for one in STAGES if one.name in running)
    if stage.name in running or busy or len(running) >= (1 if stage.alone else _SIDE_BY_SIDE):
        return False
    ready = all((folder / f"{name}.json").exists() for name in stage.after)
    return ready and not report(folder, stage).exists()


def _start(folder: Path, recipe: str, stage: Stage) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "demo_voice", "--folder", str(folder), "--recipe", recipe]
    output = (folder / f"{stage.name}.out").open("wb")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--only", stage.name], stdout=output, stderr=subprocess.STDOUT, env=environment)


def _end(running: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in running.values():
        process.terminate()
        process.wait()


def _last_lines(path: Path) -> str:
    return " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])


def _in_short(told: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in told.items() if isinstance(value, int | float | str))
