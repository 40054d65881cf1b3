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
    """Writes the weights to `path`, whole or not at all, under the network's own names (`weights_of`), and what
    `nets.build` was called with, where it made the model."""
    # copies: the format has no room for two tensors in one memory, as tied weights are
    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights_of(model).items()
    }
    name, arguments = getattr(network_of(model), "architecture", (None, None))
    header = {} if name is None else {"architecture": name, "arguments": json.dumps(arguments)}
    content = to_bytes(tensors, metadata=header)
    with written_whole(path) as partial:
        partial.write_bytes(content)


def network_of(model: nn.Module) -> nn.Module:
    """The network itself, within torch.compile's, DataParallel's and DistributedDataParallel's modules."""
    while (attribute := _inside(model)) is not None:
        model = model._modules[attribute]
    return model


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """`model.state_dict()` under the network's own names, whatever it or parts of it are wrapped in (`network_of`)."""
    return {own: value for own, value in zip(_own_names(model), model.state_dict().values(), strict=True)}


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """`model.load_state_dict` of weights under the network's own names, or under those of a wrapper.

    Raises RuntimeError, as it does, for weights that do not fit.
    """
    own = dict(zip(_own_names(model), model.state_dict(), strict=True))
    if weights.keys() != own.keys():  # a file that a wrapped network was saved to
        bare = {_bare(name): name for name in own}
        renamed = {bare.get(_bare(name), name): value for name, value in weights.items()}
        if renamed.keys() == own.keys() and len(renamed) == len(weights):
            weights = renamed
    model.load_state_dict({own.get(name, name): value for name, value in weights.items()})


def _inside(module: nn.Module) -> str | None:
    """The name of what a wrapper wraps; None for a network."""
    if "_orig_mod" in module._modules:  # of torch.compile, whose import takes seconds
        return "_orig_mod"
    return "module" if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def _own_names(model: nn.Module) -> list[str]:
    """The names of the state dict, in its order, without the wrappers' parts."""
    wrappers = {}  # how the names of what is inside begin, and what the wrapper adds to them
    for name, module in model.named_modules(remove_duplicate=False):
        if (attribute := _inside(module)) is not None:
            wrappers[f"{name}.{attribute}." if name else f"{attribute}."] = len(attribute) + 1
    names = list(model.state_dict())
    for prefix in sorted(wrappers, key=len, reverse=True):
        names = [name[: len(prefix) - wrappers[prefix]] + name[len(prefix) :] if name.startswith(prefix) else name
                 for name in names]
    return names


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


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
        raise ValueError(f"checkpoint: expected a safetensors file, got {path}: {error}") from error


def load(path: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """The classifier in `path`, on the CPU: of the architecture that the header names, or `model` with the weights
    loaded into it.

    Raises FileNotFoundError; ValueError for a file that is not safetensors, an unknown architecture (or none, without
    `model`), or weights that do not fit.
    """
    weights, header = read(path)
    if model is None:
        if "architecture" not in header:
            raise ValueError(f"checkpoint: {path} names no architecture in its header; give the model itself")
        try:
            model = nets.build(header["architecture"], **json.loads(header.get("arguments", "{}")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"checkpoint: {path}: {error}") from error
    try:
        load_weights(model, weights)
    except RuntimeError as error:
        raise ValueError(f"checkpoint: the weights in {path} do not fit {type(model).__name__}: {error}") from error
    return model
