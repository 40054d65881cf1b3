"""ONNX files as modules: onnxruntime computes the values, the graph in PyTorch the gradients."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from robustperf import check
from robustperf.adapters.libraries import library_of
from robustperf.adapters.onnx_graph import OnnxGraph
from robustperf.files import check_regular
from robustperf.tangents import refuse_tangents

_DTYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
_AGREEMENT = 1e-3  # of the largest output: far above the rounding of float32


class OnnxModel(nn.Module):
    """An ONNX file with one input, run by onnxruntime; also for inputs that require gradients.

    Every output value is onnxruntime's, also at the points that a search visits and finds: a margin is that of the
    deployed model. Only the backward pass is that of the same graph in PyTorch (`OnnxGraph`). There are no parameters
    to train. Needs the extra `robustperf[onnx]`.

    Args:
        file: its path.
        providers: execution providers of onnxruntime; values pass through the CPU's memory.

    Attributes:
        path: the file.
        no_gradient: why there are no gradients, such as an operator that `OnnxGraph` does not know; None where there
            are. Attacks that need labels only work without.

    `forward` takes x [B, ...], converted to the input's dtype, and returns the output, or a dict of the outputs by name
    where the file has several. A file with a fixed batch size is run in batches of it. It raises RuntimeError where a
    gradient is asked for and there is none; RuntimeWarning where both sets of values differ by more than 1e-3 of the
    largest.

    Raises FileNotFoundError; ValueError for another file, several inputs, or an input that is not floating-point;
    ModuleNotFoundError without onnxruntime.

    >>> model = wrap(OnnxModel("model.onnx"), mean=0.5, std=0.25)  # doctest: +SKIP
    """

    path: str
    no_gradient: str | None

    def __init__(self, file: str | os.PathLike[str], providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        super().__init__()
        runtime = library_of("onnxruntime", "onnx")
        self.path, self._providers = str(check_regular(file)), tuple(providers)
        try:
            self._session = runtime.InferenceSession(self.path, providers=list(providers))
        except Exception as error:  # onnxruntime has one class for each kind of fault
            raise ValueError(f"file: expected an ONNX file, got {file}: {check.line_of(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            got = ", ".join(f"{each.name}: {each.type}" for each in inputs)
            raise ValueError(f"file: expected an ONNX file with one floating-point input, got {file} with {got}")
        self._input, self._dtype = inputs[0].name, _DTYPES[inputs[0].type]
        size = (inputs[0].shape or [None])[0]
        self._batch = size if isinstance(size, int) else None
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._graph, self._compared = None, False
        try:
            self._graph = OnnxGraph(self.path)
        except (ImportError, NotImplementedError) as error:
            self.no_gradient = str(error)
        else:
            self.no_gradient = None

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        refuse_tangents("OnnxModel", (x,))
        given = x.to(self._dtype)
        values = self._values(given.detach())
        if torch.is_grad_enabled() and x.requires_grad:
            if self._graph is None:
                raise RuntimeError(
                    f"model: expected one with gradients, got {self.path}: {self.no_gradient}; use an attack that "
                    "needs labels only"
                )
            computed = self._graph(given)
            self._compare(computed, values)
            for name, value in values.items():
                if value.is_floating_point() and computed[name].requires_grad:
                    values[name] = _Replaced.apply(computed[name], value)
        return next(iter(values.values())) if len(values) == 1 else values

    def extra_repr(self) -> str:
        return repr(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._providers)

    def _values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs that are arrays of numbers, from onnxruntime, on x's device."""
        size = self._batch or max(len(x), 1)
        parts = []
        for part in x.cpu().split(size) if len(x) else [x.cpu()]:
            if missing := size - len(part) if self._batch else 0:
                part = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
            try:
                parts.append(self._session.run(self._outputs, {self._input: part.contiguous().numpy()}))
            except Exception as error:
                raise ValueError(
                    f"x: expected images that {self.path} takes, got shape {list(x.shape)}: {check.line_of(error)}"
                ) from error
        found = {}
        for name, arrays in zip(self._outputs, zip(*parts, strict=True), strict=True):
            if all(isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in arrays):
                joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
                found[name] = torch.from_numpy(joined[: len(x)] if self._batch else joined).to(x.device)
        if not found:
            raise ValueError(f"file: expected an output of numbers, got {', '.join(self._outputs)} in {self.path}")
        return found

    def _compare(self, computed: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
        """Warns once where the graph in PyTorch has other values than onnxruntime."""
        for name, value in values.items():
            if self._compared or not value.is_floating_point() or not value.numel():
                continue
            largest = value.double().abs().max().item()
            difference = (computed[name].detach().double() - value.double()).abs().max().item()
            if difference > _AGREEMENT * max(largest, 1e-30):
                self._compared = True
                warnings.warn(
                    f"{self.path}: the output {name} of the graph in PyTorch, whose gradients are used, differs from "
                    f"onnxruntime's by {difference:.2g}, with values up to {largest:.2g}: attacks may be weaker",
                    RuntimeWarning,
                    stacklevel=3,
                )


class _Replaced(torch.autograd.Function):
    """`value`, with the gradient of `computed`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(computed: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
