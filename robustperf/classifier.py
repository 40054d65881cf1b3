"""A classifier under test: it maps images [B, ...] to logits [B, C], is evaluated in eval mode and left unchanged."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from robustperf import check

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""A `torch.nn.Module`, or any callable from images [B, ...] to logits [B, C]."""


class Estimator(Protocol):
    """A fitted scikit-learn classifier."""

    def get_params(self, deep: bool = ..., /) -> dict[str, Any]: ...

    def predict(self, X: Any, /) -> Any: ...


Labeller = Callable[[torch.Tensor], torch.Tensor]
"""A callable from images [B, ...] to labels [B] int64, such as the true labelling function Y of T section 2."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Sets the modules of `model`, see `modules_of`, to eval mode within the block. After the last of the blocks that
    overlap, nested or in several threads, each has the mode that it had before the first, also after an error.
    TypeError for what is not callable."""
    if not callable(model):
        raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")
    modules = modules_of(model)
    with _lock:
        for module in modules:
            blocks, mode = _evaluated.get(module, (0, module.training))
            _evaluated[module] = blocks + 1, mode
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                blocks, mode = _evaluated[module]
                if blocks > 1:
                    _evaluated[module] = blocks - 1, mode
                else:
                    del _evaluated[module]
                    module.training = mode


_lock = threading.Lock()
_evaluated: weakref.WeakKeyDictionary[torch.nn.Module, tuple[int, bool]] = weakref.WeakKeyDictionary()
"""Modules in blocks of `evaluating`: the number of blocks, and the mode before them."""


@contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Inside, the parameters of the modules of `model`, see `modules_of`, get no gradients; those of its input do,
    through it."""
    parameters = (parameter for module in modules_of(model) for parameter in module.parameters(recurse=False))
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


_WRITES: weakref.WeakKeyDictionary[Classifier, bool] = weakref.WeakKeyDictionary()


def logits_of(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    """The model's logits, [B, C] with C >= 2; x is not changed.

    The first evaluation of a model is of a copy of x, which shows whether the model writes into its input. One that
    does gets copies from then on. For the others torch's count of in-place operations on x is compared.

    Raises ValueError or TypeError, naming the model, for an output that is not logits; RuntimeError for a model that
    wrote into x, but not into the copy.
    """
    logits = _output_of(model, x)
    name = "model(x)"
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(logits).__name__}; robustperf.wrap takes such a model")
    single = "; robustperf.wrap takes a binary model with one logit" * (logits.shape[1:] in ((), (1,)))
    if single and logits.dim() == 1:
        raise ValueError(f"{name}: expected shape [{len(x)}, C], got {list(logits.shape)}{single}")
    check.tensor(name, logits, (x.shape[0], "C"), dtypes=check.REAL + check.HALF, device=x.device)
    if logits.shape[1] < 2:
        raise ValueError(f"{name}: expected logits of at least two classes, got shape {list(logits.shape)}{single}")
    return logits


def _output_of(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_compiling():
        return model(x)
    try:
        writes = _WRITES.get(model)
    except TypeError:  # it cannot be weakly referenced, or has no hash
        return model(x.clone())
    if writes or x.is_inference():  # an inference tensor counts no operations
        return model(x.clone())
    given = x.clone() if writes is None else x
    before = given._version
    output = model(given)
    wrote = given._version != before
    if writes is None:  # writes through x.data or NumPy are not counted
        _WRITES[model] = wrote or not torch.equal(given, x)
    elif wrote:
        raise RuntimeError(
            "model: expected one that leaves its input unchanged, got one that wrote into x; it must not "
            "operate in place (inplace=True, x.sub_(...), x[...] = ...) on its input"
        )
    return output


_DEPTH = 3  # of callables and containers inside each other
_ITEMS = 100  # of a container: an ensemble's models, not a data set


def modules_of(model: Classifier) -> list[torch.nn.Module]:
    """The modules that `model` runs, as far as they can be found from outside.

    Of a module these are all its submodules. Of another callable, three levels deep: those in its closure, in the
    globals that it or a function inside it names, in its default arguments, in a bound method's object, the parts of a
    partial, the attributes of an object, and the first 100 items of lists, tuples and dicts among these."""
    found: dict[int, torch.nn.Module] = {}
    visited: set[int] = set()

    def visit(value: Any, depth: int) -> None:
        if isinstance(value, torch.nn.Module):
            found.update((id(module), module) for module in value.modules())
        elif isinstance(value, (list, tuple, dict)) or callable(value):
            if depth <= _DEPTH and id(value) not in visited:
                visited.add(id(value))
                for part in _parts_of(value):
                    visit(part, depth + 1)

    visit(model, 0)
    return list(found.values())


def _parts_of(value: Any) -> list[Any]:
    """What a container, or a callable other than a module, refers to."""
    if isinstance(value, (list, tuple, dict)):
        return list(itertools.islice(value.values() if isinstance(value, dict) else value, _ITEMS))
    if inspect.isclass(value) or inspect.isbuiltin(value):
        return []
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if inspect.ismethod(value):
        return [value.__self__, *getattr(value.__self__, "__dict__", {}).values(), value.__func__]
    if inspect.isfunction(value):
        names = [value.__globals__[name] for name in _names_in(value.__code__) if name in value.__globals__]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*_contents(value.__closure__ or ()), *names, *defaults]
    return list(getattr(value, "__dict__", {}).values())


def _names_in(code: types.CodeType) -> Iterator[str]:
    """The names that the code uses, including those in functions inside it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names_in(inner)


def _contents(cells: Iterable[Any]) -> Iterator[Any]:
    for cell in cells:
        with suppress(ValueError):  # a variable that has no value yet
            yield cell.cell_contents


@torch.no_grad()
def labels_of(labeller: Labeller, x: torch.Tensor) -> torch.Tensor:
    """The labeller's labels, [B] int64; TypeError or ValueError, naming the labeller, for anything else."""
    if not callable(labeller):
        raise TypeError(f"labeller: expected a callable, got {type(labeller).__name__}")
    return check.tensor("labeller(x)", _output_of(labeller, x), (len(x),), dtypes=(torch.int64,), device=x.device)


def check_no_nan(logits: torch.Tensor, index: torch.Tensor | None = None) -> None:
    """ValueError naming the first points whose logits hold a NaN; `index` [B]: their sample ids, 0..B-1 by default."""
    wrong = logits.isnan().any(1).nonzero()[:, 0]
    if wrong.numel():
        first = (wrong if index is None else index[wrong])[:5].tolist()
        raise ValueError(
            f"model(x): expected logits without NaN, got NaN logits for {wrong.numel()} of {logits.shape[0]} points, "
            f"the first at {first}"
        )


def device_of(model: Classifier) -> torch.device:
    """The device of the model's first parameter; the CPU where it has none."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether torch.compile compiles this module, by a wrapper or in place."""
    # the wrapper's class is in a module of torch that takes seconds to import
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def in_fixed_batches(model: Classifier, size: int | None = None) -> Classifier:
    """`model` itself, or where torch.compile compiles it or a part of it, a module that calls it with `size` images at
    a time: torch.compile would compile it again for the sizes of batches that finished points leave.

    The module repeats the first image of a smaller batch up to `size` and drops these logits; a larger batch is split.

    Args:
        model: the classifier.
        size: images in a call; None takes the size of the first batch.
    """
    if not isinstance(model, torch.nn.Module) or isinstance(model, FixedBatches):
        return model
    return FixedBatches(model, size) if any(map(is_compiled, model.modules())) else model


class FixedBatches(torch.nn.Module):
    """What `in_fixed_batches` returns for compiled models."""

    model: torch.nn.Module
    size: int | None

    def __init__(self, model: torch.nn.Module, size: int | None) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.size = self.size or len(x)
        if len(x) <= size:
            return self._filled(x, size)
        return torch.cat([self._filled(part, size) for part in x.split(size)])

    def _filled(self, x: torch.Tensor, size: int) -> torch.Tensor:
        missing = size - len(x)
        if not missing:
            return self.model(x)
        filler = x[:1].detach() if len(x) else x.new_zeros(1, *x.shape[1:])
        filled = torch.cat([x, filler.expand(missing, *x.shape[1:])])
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            filled = filled.contiguous(memory_format=torch.channels_last)
        output = self.model(filled)
        # what is not logits is an error of the caller's
        return output[: len(x)] if isinstance(output, torch.Tensor) and output.shape[:1] == (size,) else output


def without_wrapper(model: Classifier) -> Classifier:
    """The module inside DistributedDataParallel, for passes without parameter gradients, which the wrapper must not
    track; another model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


_CHANNELS_LAST: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


def laid_out(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    """x [B, C, H, W] in the memory layout in which the model is fastest, with the same values.

    On a CPU a convolution computes in its input's layout, and channels-last takes as little as half the time. A model
    that calls `view` may fail on it: the first time, the model is tried on two images, in eval mode.
    """
    if x.dim() != 4 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return x
    if not isinstance(model, torch.nn.Module):
        return x
    if model not in _CHANNELS_LAST:
        _CHANNELS_LAST[model] = _takes_channels_last(model, x[:2].detach())
    return x.contiguous(memory_format=torch.channels_last) if _CHANNELS_LAST[model] else x


def _takes_channels_last(model, x):
    if not any(isinstance(module, torch.nn.Conv2d) for module in model.modules()):
        return False
    model = without_wrapper(model)
    with evaluating(model), torch.no_grad():
        try:
            model(x.clone(memory_format=torch.channels_last))
        except RuntimeError:  # an error that the images cause is raised again by the caller's evaluation
            return False
    return True
