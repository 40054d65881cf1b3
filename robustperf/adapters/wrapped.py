"""A model with a normalisation, a layout or outputs of its own, as a classifier from images in [0, 1] to logits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from robustperf import check
from robustperf.classifier import modules_of
from robustperf.names import check_name

Statistics = float | Sequence[float] | torch.Tensor
"""A number, or one for each channel."""
Outputs = Literal["logits", "probabilities"] | Callable[[Any], torch.Tensor]

_LAYOUTS = ("nchw", "nhwc")
_OUTPUTS = ("logits", "probabilities")
_SUM = {torch.float16: 2e-2, torch.bfloat16: 2e-2}  # how far a row of probabilities may be from 1; otherwise 1e-3


def wrap(
    model: Callable[..., Any],
    *,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    outputs: Outputs = "logits",
    layout: str = "nchw",
    image_shape: Sequence[int] | None = None,
) -> Wrapped:
    """A module from images [B, C, H, W] in [0, 1], or features [B, D], to logits [B, C], around a model with other
    conventions.

    Distances and bounds are then those of the images, not of the normalised inputs. Images in any floating dtype are
    normalised in it and converted to the dtype of the model's parameters.

    Args:
        model: a `torch.nn.Module`, or a callable; the modules found in a callable become submodules.
        mean, std: the model takes (x - mean) / std: numbers, or one for each channel (feature). None: 0 and 1.
        outputs: what the model returns.
            "logits": a tensor [B, C]; an object with the attribute `logits`, such as a Hugging Face output; a dict with
            the key "logits"; or a dict, tuple or list that holds one tensor only.
            "probabilities": the same under this name. Their logarithms are logits with the same softmax; probabilities
            below the dtype's smallest normal number count as it.
            A callable: takes what the model returns, and returns logits.
            A binary model may return one logit z [B] or [B, 1] for class 1: the logits are then (0, z), as for
            scikit-learn's binary classifiers. (-z/2, z/2) has the same softmax and the same differences, to which
            margins and losses are confined, but z - 0 is exact in every dtype. A single probability p is likewise that
            of class 1.
        layout: "nhwc" if the model takes [B, H, W, C]. The images remain [B, C, H, W].
        image_shape: (C, H, W) that the model takes. Images of another size are resized, by bilinear interpolation,
            antialiased when they shrink; their gradients pass through it.

    Returns a `Wrapped`; its `module` is the model. It raises TypeError or ValueError, naming what came, for images or
    outputs of another form, and ValueError for probabilities outside [0, 1] or that do not add up to 1.

    Raises TypeError or ValueError for a wrong argument.

    >>> net = wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), mean=[0.5, 0.4, 0.3], std=0.25)  # one logit
    >>> net(torch.rand(4, 3, 2, 2)).shape
    torch.Size([4, 2])
    """
    return Wrapped(model, mean, std, outputs, layout, image_shape)


class Wrapped(nn.Module):
    """A model behind the conventions of a classifier; created by `wrap`.

    Parameters have the names of a `DataParallel`, "module." and the model's own. The state dict holds the model's
    entries only. `nets.weights_file` reads and writes them under the model's own names.

    Attributes:
        module: the model.
        mean, std: tuples of floats, of one value or one for each channel; None where nothing is normalised.
        outputs, layout: as given.
        image_shape: (C, H, W), or None.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> model = rp.wrap(net, mean=0.5, std=0.25)
    >>> x = torch.rand(4, 3, 2, 2)
    >>> torch.allclose(model(x), net((x - 0.5) / 0.25), atol=1e-6)
    True
    """

    module: nn.Module
    outputs: Outputs
    layout: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    image_shape: tuple[int, int, int] | None

    def __init__(
        self,
        model: Callable[..., Any],
        mean: Statistics | None = None,
        std: Statistics | None = None,
        outputs: Outputs = "logits",
        layout: str = "nchw",
        image_shape: Sequence[int] | None = None,
    ) -> None:
        """The arguments are those of `wrap`."""
        super().__init__()
        if not callable(model) or isinstance(model, type):
            got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            raise TypeError(f"model: expected a module or a callable, got {got}")
        self.module = model if isinstance(model, nn.Module) else _Called(model)
        self.outputs = outputs if callable(outputs) else check_name("outputs", outputs, _OUTPUTS, " or a callable")
        self.layout = check_name("layout", layout, _LAYOUTS)
        self.image_shape = None if image_shape is None else check.image_shape("image_shape", image_shape)
        self.mean = self.std = None
        if mean is not None or std is not None:
            self.mean = _statistics("mean", 0.0 if mean is None else mean)
            self.std = _statistics("std", 1.0 if std is None else std)
            if min(self.std) <= 0:
                raise ValueError(f"std: expected numbers above 0, got {list(self.std)}")
            self._channels = max(len(self.mean), len(self.std))  # 1 for any number
            expected = self.image_shape[0] if self.image_shape and self._channels > 1 else self._channels
            if {len(self.mean), len(self.std)} - {1, expected}:
                raise ValueError(
                    f"mean, std: expected a number, or one for each of {expected} channels, got {len(self.mean)} and "
                    f"{len(self.std)}"
                )
        # not persistent: the state dict is the model's
        for name in ("mean", "std"):
            values = getattr(self, name)
            buffer = None if values is None else torch.tensor(values, dtype=torch.float32)
            self.register_buffer(f"_{name}", buffer, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, C] of images [B, C, H, W] or features [B, D], in [0, 1]."""
        return self._logits(self.module(self._inputs(x)), len(x))

    def extra_repr(self) -> str:
        facts = {"mean": self.mean, "std": self.std, "outputs": self.outputs, "layout": self.layout}
        return ", ".join(f"{name}={value!r}" for name, value in facts.items() if value is not None)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Wrapped:
        """Moves and converts the module; mean and std keep float32 where `fn` would round them."""
        super()._apply(fn, recurse)
        for name in ("_mean", "_std"):
            buffer = getattr(self, name)
            if buffer is not None and buffer.dtype != torch.float32:
                setattr(self, name, self._values(name[1:], buffer.device, torch.float32))
        return self

    def _values(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """mean or std in `dtype`, from the buffer where that is exact."""
        buffer = getattr(self, f"_{name}")
        if buffer.dtype == dtype and buffer.device == device:
            return buffer
        return torch.tensor(getattr(self, name), dtype=dtype, device=device)

    def _inputs(self, x: torch.Tensor) -> torch.Tensor:
        check.tensor("x", x, ("B", "C", ...), dtypes=check.REAL + check.HALF)
        if self.image_shape is not None:
            check.tensor("x", x, ("B", self.image_shape[0], "H", "W"), dtypes=(x.dtype,))
            if x.shape[2:] != self.image_shape[1:]:
                x = functional.interpolate(x, self.image_shape[1:], mode="bilinear", antialias=True)
        if self.mean is not None:
            if self._channels not in (1, x.shape[1]):  # would broadcast grey images to RGB
                raise ValueError(
                    f"x: expected {self._channels} channels, as mean and std have, got shape {list(x.shape)}"
                )
            shape = (-1, *[1] * (x.dim() - 2))
            mean, std = (self._values(name, x.device, x.dtype).view(shape) for name in ("mean", "std"))
            x = (x - mean) / std
        if self.layout == "nhwc":
            x = check.tensor("x", x, ("B", "C", "H", "W"), dtypes=(x.dtype,)).permute(0, 2, 3, 1).contiguous()
        own = itertools.chain(self.module.parameters(), self.module.buffers())
        dtype = next((value.dtype for value in own if value.is_floating_point()), x.dtype)
        return x.to(dtype)

    def _logits(self, output: Any, count: int) -> torch.Tensor:
        values = self.outputs(output) if callable(self.outputs) else _selected(output, self.outputs)
        name = "outputs(model(x))" if callable(self.outputs) else "model(x)"
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(values).__name__}")
        single = values.shape in ((count,), (count, 1))
        if not single and (values.dim() != 2 or len(values) != count):
            raise ValueError(
                f"{name}: expected shape [{count}, C], or [{count}] or [{count}, 1] of a binary model, got "
                f"{list(values.shape)}"
            )
        check.tensor(name, values, dtypes=check.REAL + check.HALF)
        if single:
            values = values.reshape(count, 1)
        if self.outputs == "probabilities":
            values = torch.cat([1 - values, values], 1) if single else values
            return _log(name, values)
        return torch.cat([torch.zeros_like(values), values], 1) if single else values


class _Called(nn.Module):
    """A callable as a module; the modules that it runs are its parts, in `modules_of`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        found = modules_of(function)
        inside = {id(part) for module in found for part in module.modules() if part is not module}
        self.function = function
        self.parts = nn.ModuleList(module for module in found if id(module) not in inside)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def _statistics(name: str, value: Statistics) -> tuple[float, ...]:
    """`mean` or `std` as a tuple: of one number, or one for each channel."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected a number, or one for each channel, got {value!r}") from None
    if sum(size > 1 for size in numbers.shape) > 1 or not numbers.numel():
        raise ValueError(f"{name}: expected a number, or one for each channel, got shape {list(numbers.shape)}")
    return tuple(check.finite(name, numbers.flatten()).tolist())


def _selected(output: Any, name: str) -> Any:
    """The tensor called `name` in what a model returned."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping) and name in output:
        return output[name]
    if isinstance(found := getattr(output, name, None), torch.Tensor):
        return found
    if isinstance(output, Mapping | tuple | list) and len(output) == 1:
        (only,) = output.values() if isinstance(output, Mapping) else output
        if isinstance(only, torch.Tensor):
            return only
    got = f"{type(output).__name__}"
    if isinstance(output, Mapping):
        got += f" with the keys {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        got += " of " + (", ".join(_described(part) for part in output) or "nothing")
    raise TypeError(
        f"model(x): expected {name}: a tensor, or a dict or an object that holds it as {name!r}, got {got}; pass "
        "outputs=, a function that selects the logits, such as lambda output: output[0]"
    )


def _described(value: Any) -> str:
    return f"Tensor {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _log(name: str, probabilities: torch.Tensor) -> torch.Tensor:
    """Logits of probabilities [B, C]; ValueError unless each row is a distribution. NaN stay NaN."""
    if not torch.compiler.is_compiling():
        known = probabilities.detach()
        known = known[~known.isnan().any(1)].float()
        far = (known.sum(1) - 1).abs()
        wrong = (known < 0).any(1) | ~(far <= _SUM.get(probabilities.dtype, 1e-3))
        if wrong.any():
            row = known[wrong][0]
            raise ValueError(
                f"{name}: expected probabilities in [0, 1] that add up to 1, got values from {row.min().item():g} to "
                f"{row.max().item():g} with the sum {row.sum().item():g}"
            )
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
