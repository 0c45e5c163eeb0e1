"""Arrays and reports of a run's folder; written whole or not at all: a broken stage leaves nothing half done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def _moved(path: Path, temporary: Path) -> None:
    temporary.replace(path)


def save_array(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, array)
    _moved(path, temporary)


def save_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    _moved(path, temporary)


def save_tensors(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save(data, temporary)
    _moved(path, temporary)


def load_json(path: Path) -> Any:
    return json.loads(path.read_text())


def load_tensors(path: Path) -> Any:
    return torch.load(path, weights_only=True)
