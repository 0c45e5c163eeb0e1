"""The tensors of a `.pt`, as `torch.load` gives them with `weights_only`: nothing that the file asks for is run.

The file is mapped, so that a tensor's numbers are read when they are used and not before. Mapped pages stay counted as
the process's memory until the file is closed; a safetensors file, which is read piece by piece, has none.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.errors import SourceError, TensorError, summary

_WRAPPERS = ("model", "state_dict")  # keys behind which programs that train put a state dict


def tensors(path: Path, dtypes: Mapping[torch.dtype, str]) -> dict[str, Tensor]:
    """The tensors of a state dict by name, in the order it has them.

    Args:
        path: of `{name: tensor}`, or of `{"model": [...]}`, as the package itself takes T3, or `{"state_dict": ...}`
            around it.
        dtypes: those that are known.

    Raises:
        SourceError: there is no such file.
        TensorError: it is cut off, or holds code or anything but plain tensors.
    """
    if not path.is_file():
        raise SourceError(f"There is no file {path}. Load again to fetch it, or name the right folder.")
    problem = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch means to change
            # Before torch 1.6 a file was no archive, and cannot be mapped.
            root = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        return {name: _plain(name, tensor, dtypes) for name, tensor in _state_dict(root).items()}
    except pickle.UnpicklingError:  # torch's own words advise to trust it
        problem = "it asks for what is no plain tensor, and nothing was run"
    except ValueError as error:
        problem = str(error)
    except Exception as error:  # torch.load raises whatever a damaged file makes it raise
        problem = f"it is cut off or damaged, {summary(error)}".rstrip(".")
    raise TensorError(
        f"{path} is no whole file of plain tensors: {problem}. "
        f"Put {path.stem}.safetensors beside it, or delete it and load again."
    )


def _state_dict(root: Any) -> Mapping[Any, Any]:
    for key in _WRAPPERS:
        if isinstance(root, dict) and isinstance(root.get(key), (dict, list)):
            root = root[key]
            root = root[0] if isinstance(root, list) else root
    if not isinstance(root, dict):
        raise ValueError(f"it holds {_kind(root)} and no tensors by name")
    return root


def _plain(name: Any, tensor: Any, dtypes: Mapping[torch.dtype, str]) -> Tensor:
    if not isinstance(name, str):
        raise ValueError(f"a name in it is {_kind(name)} and no text")
    if not isinstance(tensor, Tensor):
        raise ValueError(f"'{name}' holds {_kind(tensor)} and no tensor")
    if tensor.layout is not torch.strided or tensor.dtype not in dtypes:
        raise ValueError(f"'{name}' is {tensor.layout} of {tensor.dtype}, which no file of weights here is")
    return tensor.detach()


def _kind(value: Any) -> str:
    return "one tensor" if isinstance(value, Tensor) else f"the type {type(value).__name__}"
