"""Which backends exist here, why one is missing, and which one a call takes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import torch

from robustperf.names import did_you_mean

BACKENDS = ("reference", "native", "cuda", "triton")
"""Every backend's name; `ops/<name>/` holds its implementations, one file an operation."""

OPS = (
    "best_of_k",
    "draws",
    "halfspace_box_projection",
    "line_search_step",
    "logit_gap",
    "nuisance",
    "nuisance_backward",
    "nuisance_draw",
    "nuisance_sample",
    "rbf_decision",
    "rbf_decision_backward",
)
"""Every operation's name; `ops/<name>.py` is its public face."""

# The best backend first. The reference is plain PyTorch and runs on any device.
_PREFERRED = {"cpu": ("native", "reference"), "cuda": ("cuda", "triton", "reference")}

OLDEST_GPU = (8, 0)
"""The compute capability that the GPU module needs; CMakeLists.txt names the architectures."""

_library = torch.library.Library("robustperf", "DEF")


@cache
def missing(backend: str) -> str | None:
    """Why `backend` cannot be used here; None when it can."""
    if backend == "reference":
        return None
    if backend == "native":
        return _import_error("robustperf._native")
    if backend == "cuda":
        return _import_error("robustperf._native_cuda", _build_info("cuda_missing")) or _no_gpu() or _no_driver()
    if backend == "triton":
        return _import_error("triton", "triton is not installed: pip install 'robustperf[triton]'") or _no_gpu()
    raise ValueError(
        f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}{did_you_mean(backend, BACKENDS)}"
    )


@cache
def implemented(op: str) -> tuple[str, ...]:
    """The backends that `op` is written for, here or not."""
    folder = resources.files("robustperf.ops")
    return tuple(backend for backend in BACKENDS if (folder / backend / f"{op}.py").is_file())


@cache
def missing_op(op: str, backend: str) -> str | None:
    """Why `op` cannot be run by `backend` here; None when it can."""
    return missing(backend) or (None if backend in implemented(op) else f"the {backend} backend has no {op}")


@cache
def default(op: str, device: str) -> str:
    """The backend that `backend=None` means for `op` on tensors of this device type."""
    for backend in _PREFERRED.get(device, ("reference",)):
        if missing_op(op, backend) is None:
            if device == "cuda":
                _tell_of_a_substitute(backend)
            return backend
    raise RuntimeError(f"{op}: no backend for tensors on {device}")  # never: the reference serves every device


@cache  # a device is quicker to look up than its type is to read
def _default_on(op: str, device: torch.device) -> str:
    return default(op, device.type)


def choose(op: str, backend: str | None, device: torch.device) -> str:
    """The backend for a call of `op` on `device`: `backend`, checked, or the default.

    Raises ValueError when the backend is unknown, missing here (with the reason), or not for this device.
    """
    if backend is None:
        return _default_on(op, device)
    reason = missing_op(op, backend)
    if reason is not None:
        raise ValueError(f"backend: {backend!r} cannot run {op} here: {reason}")
    if backend not in _PREFERRED.get(device.type, ("reference",)):
        raise ValueError(f"backend: {backend!r} does not run on tensors on {device}")
    return backend


# torch.compiler.assume_constant_result, for Dynamo would trace into the imports above; that one takes longer to import
# than all of torch, and sets this attribute
choose._dynamo_marked_constant = True


@cache
def implementation(op: str, backend: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"robustperf.ops.{backend}.{op}"), op)


@cache
def native(op: str, backend: str | None, device: torch.device) -> Callable[..., Any] | None:
    """The native implementation if that is what a call takes, else None; raises as `choose` does. One look-up, for
    operations that take a few microseconds themselves."""
    return implementation(op, "native") if choose(op, backend, device) == "native" else None


def register(
    op: str,
    schema: str,
    fake: Callable,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
    arguments: Callable[[tuple], tuple] | None = None,
) -> Callable:
    """Defines `torch.ops.robustperf.<op>`; the last argument of `schema` is the backend's name.

    One entry per device for all backends, so that the choice survives torch.compile. `arguments` makes those of the
    implementations of the schema's, which have them as they are without it. `backward` and `setup_context` are
    torch.library.register_autograd's; without them the operation has no gradient: what it returns is constant to
    autograd, whatever comes in.
    """

    def run(*args):
        with torch.no_grad():
            return implementation(op, args[-1])(*(args[:-1] if arguments is None else arguments(args[:-1])))

    _library.define(f"{op}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(op, run, key)
    if backward is None:
        _library.impl(op, torch.library.fallthrough_kernel, "Autograd")
    else:
        torch.library.register_autograd(f"robustperf::{op}", backward, setup_context=setup_context, lib=_library)
    torch.library.register_fake(f"robustperf::{op}", fake, lib=_library)
    return getattr(torch.ops.robustperf, op).default


def _import_error(module: str, hint: str | None = None) -> str | None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return hint or str(error)
    except ImportError as error:  # it is there and does not load
        return str(error)
    return None


def _no_gpu() -> str | None:
    if torch.cuda.is_available():
        return None
    return "no GPU that torch can use" if torch.backends.cuda.is_built() else "this build of torch has no CUDA"


def _no_driver() -> str | None:
    """Why the GPU module cannot use the driver or the GPU that torch uses; it has a CUDA runtime of its own."""
    try:
        importlib.import_module("robustperf._native_cuda").devices()
    except RuntimeError as error:
        return f"{error}: install a newer driver, or build with the CUDA toolkit of the one that is here"
    if torch.cuda.get_device_capability() < OLDEST_GPU:
        return "this GPU has a compute capability below {}.{}, which the module is built for".format(*OLDEST_GPU)
    return None


@cache
def _tell_of_a_substitute(backend: str) -> None:
    """A warning, once, where `backend` serves tensors on a GPU for want of a better one. Triton in place of a module
    that was not built is as it should be."""
    built = importlib.util.find_spec("robustperf._native_cuda") is not None
    if backend == "reference" or (backend == "triton" and built):
        better = _PREFERRED["cuda"][: _PREFERRED["cuda"].index(backend)]
        reasons = "; ".join(f"{name}: {reason}" for name in better if (reason := missing(name)))
        warnings.warn(
            f"operations on the GPU run on the {backend} backend, which is slower. {reasons}",
            RuntimeWarning,
            stacklevel=2,
        )


def _build_info(entry: str) -> str | None:
    """What setup.py noted when it built the package."""
    try:
        return json.loads((resources.files("robustperf") / "_build_info.json").read_text())[entry]
    except (OSError, ValueError, KeyError):
        return None
