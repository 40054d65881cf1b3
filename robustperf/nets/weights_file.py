"""Weights of networks in safetensors files, which run no code when read, with the architecture in the header."""

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
from robustperf.adapters import Wrapped
from robustperf.files import atomic_write, check_regular

# what building a network from a malicious header can raise; RuntimeError is torch's for sizes that are too large
FAULTS = (ValueError, TypeError, RuntimeError, RecursionError, MemoryError, OverflowError)


def save(path: str | os.PathLike[str], model: nn.Module) -> None:
    """Writes the weights of `model` to `path` atomically, under the network's own names (`weights_of`); of a network of
    `nets.build` its name and arguments too. The same weights and architecture give the same bytes.

    Raises FileNotFoundError where the folder does not exist, OSError where the file cannot be written.

    >>> save("model.safetensors", rp.nets.build("small-cnn", size=8))
    """
    name, arguments = getattr(network_of(model), "architecture", (None, None))
    header = {} if name is None else {"architecture": name, "arguments": json.dumps(arguments, sort_keys=True)}
    write(path, weights_of(model), header)


def write(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically; the same tensors and header give the same bytes."""
    # copies: the format cannot store two tensors that share memory, as tied weights do
    tensors = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    content = memoryview(to_bytes(tensors))
    (length,) = struct.unpack_from("<Q", content)
    described = json.loads(bytes(content[8 : 8 + length]))
    if header:  # written here, because the library writes its entries in a random order
        described = {"__metadata__": dict(sorted(header.items())), **described}
    head = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        file.writelines((struct.pack("<Q", len(head)), head, content[8 + length :]))


def network_of(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while (attribute := _inside(model)) is not None:
        model = model._modules[attribute]
    return model


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """`model.state_dict()` under the network's own names, whatever it or parts of it are wrapped in: the wrappers of
    `network_of`, and `robustperf.wrap`."""
    return {own: value for own, value in zip(_own_names(model), model.state_dict().values(), strict=True)}


def read(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
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
        raise ValueError(
            f"checkpoint: expected a safetensors file, got {path}: {_pickled(path) or check.line_of(error)}"
        ) from error


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """The network in a file, on the CPU.

    Args:
        path: a safetensors file of `save`, or of a state dict.
        model: loads the weights into this network and returns it; None builds the architecture that the header names.
            Memory for the sizes in a header is allocated only once the weights are known to have them.

    Raises FileNotFoundError; ValueError for a file that is not safetensors, an unknown architecture (or none, without
    `model`), or weights that do not fit: other names or shapes, or integers for floating-point numbers.

    >>> save("model.safetensors", rp.nets.build("small-cnn", size=8))
    >>> load("model.safetensors").eval()(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    weights, header = read(path)
    if model is None:
        if "architecture" not in header:
            raise ValueError(
                f"checkpoint: {path} names no architecture in its header, as a state_dict alone does not: "
                "pass model=NETWORK, whose weights these are, or write the file with "
                "robustperf.nets.weights_file.save(path, model) for a model of robustperf.nets.build"
            )
        try:
            arguments = json.loads(header.get("arguments", "{}"))
            with torch.device("meta"):
                described = nets.build(header["architecture"], **arguments)
        except FAULTS as error:
            raise ValueError(f"checkpoint: {path}: {check.line_of(error)}") from error
        _load(path, described, {name: value.to("meta") for name, value in weights.items()})
        model = nets.build(header["architecture"], **arguments)
    _load(path, model, weights)
    return model


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Loads weights under the network's own names (`weights_of`), or under those of a wrapper that they were saved in.

    Raises ValueError for integers in the place of floating-point numbers, which `load_state_dict` would silently
    convert; RuntimeError as `load_state_dict` does.
    """
    own = dict(zip(_own_names(model), model.state_dict(), strict=True))
    if weights.keys() != own.keys():
        bare = {_bare(name): name for name in own}
        renamed = {bare.get(_bare(name), name): value for name, value in weights.items()}
        if renamed.keys() == own.keys() and len(renamed) == len(weights):
            weights = renamed
    for name, expected in weights_of(model).items():
        found = weights.get(name)
        if isinstance(expected, torch.Tensor) and found is not None and _kind(found.dtype) != _kind(expected.dtype):
            raise ValueError(f"{name}: expected {expected.dtype}, found {found.dtype}")
    model.load_state_dict({own.get(name, name): value for name, value in weights.items()})


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the weights in a safetensors file: of their names, dtypes, shapes and values. It does
    not depend on the header or the order of the tensors. Raises as `read` does."""
    return digest_of(read(path)[0])


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal, of the names, dtypes, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _load(path: str | os.PathLike[str], model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    try:
        load_weights(model, weights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint: the weights in {path} do not fit {type(model).__name__}: {check.line_of(error)}"
        ) from error


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "floating point" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"


def _inside(module: nn.Module) -> str | None:
    """The name of the attribute that a wrapper wraps; None for a network."""
    if "_orig_mod" in module._modules:  # of torch.compile
        return "_orig_mod"
    return "module" if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def _own_names(model: nn.Module) -> list[str]:
    """The names in the state dict, in its order, without the parts that wrappers add."""
    wrappers = {}  # the prefix of the names inside a wrapper -> how many characters the wrapper adds
    for name, module in model.named_modules(remove_duplicate=False):
        attribute = "module" if isinstance(module, Wrapped) else _inside(module)
        if attribute is not None:
            wrappers[f"{name}.{attribute}." if name else f"{attribute}."] = len(attribute) + 1
    names = list(model.state_dict())
    for prefix in sorted(wrappers, key=len, reverse=True):
        names = [
            name[: len(prefix) - wrappers[prefix]] + name[len(prefix) :] if name.startswith(prefix) else name
            for name in names
        ]
    return names


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def _pickled(path: Path) -> str:
    """How to convert a file that torch.save wrote; an empty text for any other file."""
    with open(path, "rb") as file:
        begin = file.read(4)
    if begin != b"PK\x03\x04" and begin[:1] != b"\x80":  # a zip archive, or a bare pickle
        return ""
    program = (
        "import torch; from safetensors.torch import save_file; save_file({name: value.contiguous().clone() for "
        f"name, value in torch.load({str(path)!r}, weights_only=True).items()}}, "
        f"{str(path.with_suffix('.safetensors'))!r})"
    )
    return (
        f"torch.save or pickle wrote it. If it holds a state_dict, this converts it: python -c {shlex.quote(program)}; "
        "otherwise load the model and write it with robustperf.nets.weights_file.save(path, model); of a scikit-learn "
        "estimator find margins in Python, by robustperf.margins(estimator, X)"
    )
