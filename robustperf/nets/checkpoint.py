"""Classifiers on disk: safetensors files, which run no code when they are read, with the architecture in the header."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from robustperf import nets
from robustperf.files import written_whole


def save(path: str | os.PathLike, model: nn.Module) -> None:
    """Writes the weights to `path`, whole or not at all, and what `nets.build` was called with, where it made the
    model."""
    # copies: the format has no room for two tensors in one memory, as tied weights are
    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()
    }
    name, arguments = getattr(model, "architecture", (None, None))
    header = {} if name is None else {"architecture": name, "arguments": json.dumps(arguments)}
    content = to_bytes(tensors, metadata=header)
    with written_whole(path) as partial:
        partial.write_bytes(content)


def read(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(weights, header) of a safetensors file.

    Raises FileNotFoundError; ValueError for a file that is not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return load_file(path), header
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint: expected a safetensors file, got {path}: {_pickled(path) or error}") from error


def load(path: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """The classifier in `path`, on the CPU: of the architecture that the header names, or `model` with the weights
    loaded into it.

    Raises FileNotFoundError; ValueError for a file that is not safetensors, an unknown architecture (or none, without
    `model`), or weights that do not fit.
    """
    weights, header = read(path)
    if model is None:
        if "architecture" not in header:
            raise ValueError(f"checkpoint: {path} names no architecture in its header, as a state_dict alone does not: "
                             "pass model=NETWORK, which the weights are of, or write the file with "
                             "robustperf.nets.checkpoint.save(path, model) of a model of robustperf.nets.build")
        try:
            model = nets.build(header["architecture"], **json.loads(header.get("arguments", "{}")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"checkpoint: {path}: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"checkpoint: the weights in {path} do not fit {type(model).__name__}: {error}") from error
    return model


def _pickled(path: Path) -> str:
    """How to convert a file that torch.save wrote; nothing for another."""
    with open(path, "rb") as file:
        begin = file.read(4)
    if begin != b"PK\x03\x04" and begin[:1] != b"\x80":  # a zip archive, or a bare pickle
        return ""
    return (f"torch.save wrote it. If it holds a state_dict, this converts it: python -c \"import torch; from "
            f"safetensors.torch import save_file; save_file({{name: value.contiguous().clone() for name, value in "
            f"torch.load({str(path)!r}, weights_only=True).items()}}, {str(path.with_suffix('.safetensors'))!r})\"; "
            "otherwise load the model and write it with robustperf.nets.checkpoint.save(path, model)")
