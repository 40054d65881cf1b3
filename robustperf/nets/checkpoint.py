"""Classifiers on disk: safetensors files, which run no code when they are read, with the architecture in the header."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from robustperf import check, nets
from robustperf.files import check_regular, written_whole

# what a header that was made to do harm can make of building a network; RuntimeError is torch's for sizes too large
FAULTS = (ValueError, TypeError, RuntimeError, RecursionError, MemoryError, OverflowError)


def save(path: str | os.PathLike, model: nn.Module) -> None:
    """Writes the weights to `path`, whole or not at all, and what `nets.build` was called with, where it made the
    model. The same weights and architecture give the same bytes."""
    name, arguments = getattr(model, "architecture", (None, None))
    header = {} if name is None else {"architecture": name, "arguments": json.dumps(arguments, sort_keys=True)}
    write(path, model.state_dict(), header)


def write(path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically; the same tensors and header give the same bytes."""
    # copies: the format has no room for two tensors in one memory, as tied weights are
    tensors = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    content = memoryview(to_bytes(tensors))
    (length,) = struct.unpack_from("<Q", content)
    described = json.loads(bytes(content[8 : 8 + length]))
    if header:  # written here, as the library puts its entries in a random order
        described = {"__metadata__": dict(sorted(header.items())), **described}
    head = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with written_whole(path) as partial, open(partial, "wb") as file:
        file.writelines((struct.pack("<Q", len(head)), head, content[8 + length :]))


def read(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(weights, header) of a safetensors file.

    Raises FileNotFoundError; ValueError for a file that is not safetensors.
    """
    try:
        path = check_regular(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"checkpoint: no file {path}") from None
    except (OSError, ValueError) as error:
        raise type(error)(f"checkpoint: {error}") from error
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return load_file(path), header
    except (SafetensorError, OSError, *FAULTS) as error:
        raise ValueError(f"checkpoint: expected a safetensors file, got {path}: "
                         f"{_pickled(path) or check.line_of(error)}") from error


def load(path: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """The classifier in `path`, on the CPU: of the architecture that the header names, or `model` with the weights
    loaded into it. No memory is allocated for sizes in the header before the weights are known to have them.

    Raises FileNotFoundError; ValueError for a file that is not safetensors, an unknown architecture (or none, without
    `model`), or weights that do not fit: other names or shapes, or integers for floating-point numbers.
    """
    weights, header = read(path)
    if model is None:
        if "architecture" not in header:
            raise ValueError(f"checkpoint: {path} names no architecture in its header, as a state_dict alone does not: "
                             "pass model=NETWORK, which the weights are of, or write the file with "
                             "robustperf.nets.checkpoint.save(path, model) of a model of robustperf.nets.build")
        try:
            arguments = json.loads(header.get("arguments", "{}"))
            with torch.device("meta"):
                promised = nets.build(header["architecture"], **arguments)
        except FAULTS as error:
            raise ValueError(f"checkpoint: {path}: {check.line_of(error)}") from error
        _load(path, promised, {name: value.to("meta") for name, value in weights.items()})
        model = nets.build(header["architecture"], **arguments)
    _load(path, model, weights)
    return model


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """`model.load_state_dict(weights)`, which would convert integers to floating-point numbers without a word.

    Raises ValueError for them; RuntimeError as `load_state_dict` does.
    """
    for name, expected in model.state_dict().items():
        found = weights.get(name)
        if isinstance(expected, torch.Tensor) and found is not None and _kind(found.dtype) != _kind(expected.dtype):
            raise ValueError(f"{name}: expected {expected.dtype}, found {found.dtype}")
    model.load_state_dict(weights)


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of the weights in a safetensors file: of their names, dtypes, shapes and values, whatever the header says
    and in whichever order they stand. Raises as `read` does."""
    weights, _ = read(path)
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _load(path: str | os.PathLike, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    try:
        load_weights(model, weights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"checkpoint: the weights in {path} do not fit {type(model).__name__}: "
                         f"{check.line_of(error)}") from error


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "floating point" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"


def _pickled(path: Path) -> str:
    """How to convert a file that torch.save wrote; nothing for another."""
    with open(path, "rb") as file:
        begin = file.read(4)
    if begin != b"PK\x03\x04" and begin[:1] != b"\x80":  # a zip archive, or a bare pickle
        return ""
    program = ("import torch; from safetensors.torch import save_file; save_file({name: value.contiguous().clone() for "
               f"name, value in torch.load({str(path)!r}, weights_only=True).items()}}, "
               f"{str(path.with_suffix('.safetensors'))!r})")
    return (f"torch.save wrote it. If it holds a state_dict, this converts it: python -c {shlex.quote(program)}; "
            "otherwise load the model and write it with robustperf.nets.checkpoint.save(path, model)")
