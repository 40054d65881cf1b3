"""Classifiers on disk: safetensors files, which run no code when they are read, with the architecture in the header."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from robustperf import nets
from robustperf.files import written_whole


def save(path: str | os.PathLike, model: nn.Module, name: str, **kwargs) -> None:
    """Writes the weights of `nets.build(name, **kwargs)` to `path`, whole or not at all."""
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    content = to_bytes(tensors, metadata={"architecture": name, "arguments": json.dumps(kwargs)})
    with written_whole(path) as partial:
        partial.write_bytes(content)


def load(path: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """The classifier in `path`, on the CPU: of the architecture that the header names, or `model` with the weights
    loaded into it.

    Raises FileNotFoundError; ValueError for a file that is not safetensors, an unknown architecture (or none, without
    `model`), or weights that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint: expected a safetensors file, got {path}: {error}") from error
    if model is None:
        if "architecture" not in header:
            raise ValueError(f"checkpoint: {path} names no architecture in its header; give the model itself")
        try:
            model = nets.build(header["architecture"], **json.loads(header.get("arguments", "{}")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"checkpoint: {path}: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"checkpoint: the weights in {path} do not fit {type(model).__name__}: {error}") from error
    return model
