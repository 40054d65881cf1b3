"""Which backends exist here, why one is missing, which one a call takes, and how a call reaches it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad, profiler
from torch.compiler import is_compiling

from robustperf.names import did_you_mean
from robustperf.tangents import refuse_tangents

BACKENDS = ("reference", "native", "cuda", "triton")
"""Every backend's name. `ops/<backend>/<op>.py` holds its implementation of an operation."""

_operators: dict[str, Callable] = {}  # what `register` returned, by the operation's name

# The best backend first. The reference is plain PyTorch and runs on any device.
_PREFERRED = {"cpu": ("native", "reference"), "cuda": ("cuda", "triton", "reference")}

OLDEST_GPU = (8, 0)
"""The compute capability that the GPU module needs; CMakeLists.txt names the architectures."""

_library = torch.library.Library("robustperf", "DEF")

_transforms_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_tracing = torch._C._is_tracing


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


def ops() -> tuple[str, ...]:
    """The names of all operations: those that registered themselves when `robustperf.ops` was imported."""
    return tuple(sorted(_operators))


@cache
def default(op: str, device: str) -> str:
    """The backend that `backend=None` means for `op` on tensors of this device type."""
    for backend in _PREFERRED.get(device, ("reference",)):
        if missing_op(op, backend) is None:
            if device == "cuda":
                _warn_of_a_substitute(backend)
            return backend
    raise RuntimeError(f"{op}: no backend for tensors on {device}")  # never: the reference serves every device


_preference: ContextVar[str | None] = ContextVar("robustperf_backend", default=None)


@contextmanager
def preferring(backend: str) -> Iterator[None]:
    """Within the context, `backend=None` means `backend` wherever that one serves the tensors' device.

    For code that calls operations without handing on their `backend` argument: kernels, margins, training. Tensors on
    another device take their default backend, and an explicit `backend=` argument wins. Contexts nest. Each thread, and
    each asynchronous task, has a preference of its own: a new thread starts without one. A function that torch.compile
    traces within the context keeps the backend afterwards.

    Raises ValueError for an unknown backend, and for one that is missing here, with the reason.

    >>> with rp.ops.preferring("reference"):
    ...     rp.ops.logit_gap(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
    tensor([1.0000], dtype=torch.float64)
    """
    if (reason := missing(backend)) is not None:
        raise ValueError(f"backend: {backend!r} is missing here: {reason}")
    token = _preference.set(backend)
    try:
        yield
    finally:
        _preference.reset(token)


@cache  # looking a device up takes less time than reading its type
def _default_on(op: str, preferred: str | None, device: torch.device) -> str:
    if preferred in _PREFERRED.get(device.type, ("reference",)) and missing_op(op, preferred) is None:
        return preferred
    return default(op, device.type)


def choose(op: str, backend: str | None, device: torch.device) -> str:
    """The backend for a call of `op` on `device`: `backend`, checked; else the preferred one; else the default.

    Raises ValueError when the backend is unknown, missing here (with the reason), or not for this device.
    """
    if backend is None:
        return _default_on(op, _preference.get(), device)
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
    """The function of `ops/<backend>/<op>.py`; imports that file."""
    return getattr(importlib.import_module(f"robustperf.ops.{backend}.{op}"), op)


_SELF_CHECKING = ("native", "cuda")  # the bindings of the compiled modules check every tensor before they read it


def register(
    op: str,
    schema: str,
    fake: Callable,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
    arguments: Callable[[tuple], tuple] | None = None,
    check: Callable[..., None] | None = None,
    carries_tangents: bool = False,
) -> Callable:
    """Defines `torch.ops.robustperf.<op>` and returns the function that calls it: `call(backend, *arguments)`.

    There is one kernel per device for all backends, so that the choice of the backend survives torch.compile. `call`
    goes to the implementation directly where torch's dispatcher, which takes longer than a small operation, has nothing
    to do: with ordinary tensors that nothing transforms, traces, profiles or differentiates.

    Args:
        op: the operation's name.
        schema: of its arguments, all positional; the last one is the backend's name.
        fake: the operation's shapes and dtypes, as torch.library.register_fake takes it.
        backward, setup_context: those of torch.library.register_autograd. Without them the operation has no gradient:
            its results are constants to autograd, so its implementations (the reference apart) must write them through
            pointers.
        arguments: makes the implementations' arguments of the schema's; None where they are the same.
        check: called with the schema's arguments, raises the public function's errors. A compiled module checks its
            tensors itself, faster: there `check` runs only after the module has refused a call, to report why.
        carries_tangents: whether the public function itself computes the derivative in forward mode. Otherwise a
            tensor with a tangent is a NotImplementedError: the operation would drop it.
    """

    def kernel(*args):
        *args, backend = args
        with torch.no_grad():
            return implementation(op, backend)(*(args if arguments is None else arguments(args)))

    _library.define(f"{op}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(op, kernel, key)
    if backward is None:
        _library.impl(op, torch.library.fallthrough_kernel, "Autograd")
    else:
        torch.library.register_autograd(f"robustperf::{op}", backward, setup_context=setup_context, lib=_library)
    torch.library.register_fake(f"robustperf::{op}", fake, lib=_library)
    operator = getattr(torch.ops.robustperf, op).default
    inputs = [
        place
        for place, argument in enumerate(operator._schema.arguments)
        if "Tensor" in str(argument.type) and not argument.is_write
    ]
    implementations: dict[str, Callable] = {}

    def dispatched(backend, args):
        if check is not None:
            check(*args)
        return operator(*args, backend)

    def call(backend, *args):
        if forward_ad._current_level >= 0 and not carries_tangents:
            refuse_tangents(op, (args[place] for place in inputs))
        if (
            backend == "reference"
            or is_compiling()
            or _transforms_active()
            or _dispatch_modes()
            or _is_tracing()
            or profiler._is_profiler_enabled
        ):
            return dispatched(backend, args)
        for place in inputs:
            if type(args[place]) is not Tensor and args[place] is not None:  # a subclass may do anything with a call
                return dispatched(backend, args)
        if backward is not None and _is_differentiated(args[place] for place in inputs):
            return dispatched(backend, args)
        if check is not None and backend not in _SELF_CHECKING:
            check(*args)
        try:
            run = implementations[backend]
        except KeyError:
            run = implementations[backend] = implementation(op, backend)
        try:
            return run(*args) if arguments is None else run(*arguments(args))
        except (TypeError, ValueError):
            if check is not None:
                check(*args)
            raise

    _operators[op] = call
    return call


def _is_differentiated(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether autograd has to see a call."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


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
def _warn_of_a_substitute(backend: str) -> None:
    """Warns, once, where `backend` serves tensors on a GPU because a better one is missing. Triton is the expected
    backend where the CUDA module was not built."""
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
