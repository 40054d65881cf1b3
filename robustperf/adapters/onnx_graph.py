"""The graph of an ONNX file, evaluated in PyTorch for its gradients: the operators of feed-forward classifiers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from robustperf.adapters.libraries import library_of

Tensor = torch.Tensor


class OnnxGraph:
    """An ONNX graph with one input. A call takes it and returns a dict of the outputs by name, differentiable.

    Sources: the operators' definitions at https://onnx.ai/onnx/operators (opset 7 and later).

    Args:
        path: the file.

    Raises NotImplementedError, naming them, for operators that are not known; ModuleNotFoundError without onnx.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        onnx = library_of("onnx")
        model = onnx.load(os.fspath(path))
        self._opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1)
        unknown = sorted(
            {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
            | {node.op_type for node in model.graph.node} - OPERATORS.keys()
        )
        if unknown:
            raise NotImplementedError(f"no gradient of the ONNX operators {', '.join(unknown)}")
        self._weights = {each.name: _tensor(onnx, each) for each in model.graph.initializer}
        self._nodes = [
            (node.op_type, list(node.input), list(node.output), _attributes(onnx, node)) for node in model.graph.node
        ]
        (self._input,) = (each.name for each in model.graph.input if each.name not in self._weights)
        self._outputs = [each.name for each in model.graph.output]

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        self._weights = {name: value.to(x.device) for name, value in self._weights.items()}
        values = {**self._weights, self._input: x, "": None}
        for operator, inputs, outputs, attributes in self._nodes:
            call = _Call(
                [values[name] for name in inputs], {"device": x.device, **attributes}, self._opset, len(outputs)
            )
            result = OPERATORS[operator](call)
            for name, value in zip(outputs, result if isinstance(result, tuple) else (result,), strict=False):
                values[name] = value
        return {name: values[name] for name in self._outputs}


class _Call:
    """The inputs and attributes of one node."""

    def __init__(self, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int) -> None:
        self.inputs, self.attributes, self.opset, self.outputs = inputs, attributes, opset, outputs

    def input(self, place: int) -> Any:
        """The input at `place`; None where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def integers(self, place: int, name: str) -> list[int] | None:
        """Integers that older opsets have as the attribute `name`, newer ones as an input."""
        value = self.input(place)
        if value is None:
            value = self.get(name)
        return value.flatten().tolist() if isinstance(value, Tensor) else value


def _tensor(onnx: Any, value: Any) -> Tensor:
    return torch.from_numpy(onnx.numpy_helper.to_array(value).copy())


def _attributes(onnx: Any, node: Any) -> dict[str, Any]:
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = _tensor(onnx, value)
        elif node.op_type == "Cast" and attribute.name == "to":
            value = _tensor(onnx, onnx.helper.make_tensor("", value, [0], [])).dtype
        found[attribute.name] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    return found


def _padded(call: _Call, x: Tensor, kernel: Sequence[int], fill: float) -> Tensor:
    """x with the padding of a convolution or pooling node."""
    count = len(kernel)
    strides, dilations = call.get("strides", [1] * count), call.get("dilations", [1] * count)
    mode = call.get("auto_pad", "NOTSET")
    begin, end = [0] * count, [0] * count
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for i, size in enumerate(x.shape[2:]):
            total = (math.ceil(size / strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size
            less, more = max(total, 0) // 2, (max(total, 0) + 1) // 2
            begin[i], end[i] = (less, more) if mode == "SAME_UPPER" else (more, less)
    elif mode == "NOTSET":
        pads = call.get("pads", [0] * 2 * count)
        begin, end = pads[:count], pads[count:]
    amounts = [size for i in reversed(range(count)) for size in (begin[i], end[i])]
    return functional.pad(x, amounts, value=fill) if any(amounts) else x


def _conv(call: _Call) -> Tensor:
    x, weight, bias = call.input(0), call.input(1), call.input(2)
    kernel = weight.shape[2:]
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(kernel)]
    ones = [1] * len(kernel)
    return convolve(
        _padded(call, x, kernel, 0.0),
        weight,
        bias,
        stride=call.get("strides", ones),
        dilation=call.get("dilations", ones),
        groups=call.get("group", 1),
    )


def _max_pool(call: _Call) -> Tensor:
    kernel = call.get("kernel_shape")
    ones = [1] * len(kernel)
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[len(kernel)]
    return pool(
        _padded(call, call.input(0), kernel, -math.inf),
        kernel,
        stride=call.get("strides", ones),
        dilation=call.get("dilations", ones),
        ceil_mode=bool(call.get("ceil_mode", 0)),
    )


def _average_pool(call: _Call) -> Tensor:
    x, kernel = call.input(0), call.get("kernel_shape")
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(kernel)]
    options = {"stride": call.get("strides", [1] * len(kernel)), "ceil_mode": bool(call.get("ceil_mode", 0))}
    fraction = pool(
        _padded(call, torch.ones_like(x), kernel, float(call.get("count_include_pad", 0))), kernel, **options
    )
    return pool(_padded(call, x, kernel, 0.0), kernel, **options) / fraction


def _reduced(reduce: Callable[..., Tensor]) -> Callable[[_Call], Tensor]:
    def operator(call: _Call) -> Tensor:
        x, axes = call.input(0), call.integers(1, "axes")
        if not axes:
            if call.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.dim()))
        return reduce(x, axes, bool(call.get("keepdims", 1)))

    return operator


def _softmax(function: Callable[..., Tensor]) -> Callable[[_Call], Tensor]:
    def operator(call: _Call) -> Tensor:
        x = call.input(0)
        if call.opset >= 13:
            return function(x, dim=call.get("axis", -1))
        axis = call.get("axis", 1) % x.dim()  # of the image flattened to a matrix
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return operator


def _gemm(call: _Call) -> Tensor:
    a, b, c = call.input(0), call.input(1), call.input(2)
    product = (a.T if call.get("transA", 0) else a) @ (b.T if call.get("transB", 0) else b)
    product = product * call.get("alpha", 1.0)
    return product if c is None else product + c * call.get("beta", 1.0)


def _batch_norm(call: _Call) -> Tensor:
    x, weight, bias, mean, variance = call.inputs
    return functional.batch_norm(x, mean, variance, weight, bias, eps=call.get("epsilon", 1e-5))


def _layer_norm(call: _Call) -> Tensor:
    x, weight, bias = call.input(0), call.input(1), call.input(2)
    axes = list(range(call.get("axis", -1) % x.dim(), x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    scaled = centred / (centred.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5)).sqrt() * weight
    return scaled if bias is None else scaled + bias


def _reshape(call: _Call) -> Tensor:
    x, shape = call.input(0), call.input(1).tolist()
    if not call.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(call: _Call) -> Tensor:
    x, axis = call.input(0), call.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.dim()]), -1)


def _squeeze(call: _Call) -> Tensor:
    x, axes = call.input(0), call.integers(1, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(call: _Call) -> Tensor:
    x, axes = call.input(0), call.integers(1, "axes")
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _gather(call: _Call) -> Tensor:
    x, index, axis = call.input(0), call.input(1), call.get("axis", 0) % call.input(0).dim()
    picked = x.index_select(axis, (index % x.shape[axis]).flatten())
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _slice(call: _Call) -> Tensor:
    x, starts, ends = call.input(0), call.integers(1, "starts"), call.integers(2, "ends")
    axes, steps = call.integers(3, "axes") or range(len(starts)), call.integers(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        start, end = (max(place + size if place < 0 else place, -1 if step < 0 else 0) for place in (start, end))
        places = range(min(start, size - 1 if step < 0 else size), min(end, size), step)
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


def _split(call: _Call) -> tuple[Tensor, ...]:
    x, sizes, axis = call.input(0), call.integers(1, "split"), call.get("axis", 0)
    return x.split(sizes if sizes else math.ceil(x.shape[axis] / call.outputs), axis)


def _clip(call: _Call) -> Tensor:
    low, high = (
        call.input(i + 1) if call.input(i + 1) is not None else call.get(n) for i, n in enumerate(("min", "max"))
    )
    x = call.input(0)
    x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype, device=x.device))
    return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype, device=x.device))


def _constant(call: _Call) -> Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                        ("value_ints", torch.int64)):  # fmt: skip
        if call.get(name) is not None:
            return torch.tensor(call.get(name), dtype=dtype, device=call.get("device"))
    return call.get("value").to(call.get("device"))


def _expand(call: _Call) -> Tensor:
    return call.input(0).expand(torch.broadcast_shapes(call.input(0).shape, tuple(call.input(1).tolist())))


def _pad(call: _Call) -> Tensor:
    x, pads, axes = call.input(0), call.integers(1, "pads"), call.integers(3, "axes")
    fill = call.get("value", 0.0) if call.input(2) is None else call.input(2).item()
    amounts = [0] * 2 * x.dim()
    for i, axis in enumerate(range(x.dim()) if axes is None else (axis % x.dim() for axis in axes)):
        place = 2 * (x.dim() - 1 - axis)
        amounts[place : place + 2] = pads[i], pads[i + len(pads) // 2]
    mode = {"edge": "replicate"}.get(mode := call.get("mode", "constant"), mode)
    if mode == "constant":
        return functional.pad(x, amounts, value=fill)
    if any(amounts[-4:]) or x.dim() < 3:
        raise NotImplementedError(f"no gradient of the ONNX operator Pad in the mode {mode} over batch or channels")
    return functional.pad(x, amounts[:-4], mode=mode)


def _gelu(call: _Call) -> Tensor:
    return functional.gelu(call.input(0), approximate=call.get("approximate", "none"))


def _hard_sigmoid(x: Tensor, slope: float, offset: float) -> Tensor:
    return (slope * x + offset).clamp(0, 1)


def _plain(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """An operator without attributes."""
    return lambda call: function(*call.inputs)


OPERATORS: dict[str, Callable[[_Call], Any]] = {
    **{name: _plain(function) for name, function in {
        "Abs": torch.abs, "Add": torch.add, "Div": lambda a, b: a / b if a.is_floating_point() else a // b,
        "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Identity": lambda x: x, "Log": torch.log,
        "MatMul": torch.matmul, "Mul": torch.mul, "Neg": torch.neg, "Pow": torch.pow, "Relu": torch.relu,
        "Sigmoid": torch.sigmoid, "Softplus": functional.softplus, "Sqrt": torch.sqrt, "Sub": torch.sub,
        "Tanh": torch.tanh, "Where": torch.where,
        "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5),
        "GlobalAveragePool": lambda x: x.mean(list(range(2, x.dim())), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(list(range(2, x.dim())), keepdim=True),
    }.items()},
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda call: call.input(0).to(call.get("to")),
    "Clip": _clip,
    "Concat": lambda call: torch.cat(call.inputs, call.get("axis")),
    "Constant": _constant,
    "Conv": _conv,
    "Dropout": lambda call: call.input(0),
    "Elu": lambda call: functional.elu(call.input(0), call.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": lambda call: _hard_sigmoid(call.input(0), call.get("alpha", 0.2), call.get("beta", 0.5)),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: functional.leaky_relu(call.input(0), call.get("alpha", 0.01)),
    "LogSoftmax": _softmax(torch.log_softmax),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "Shape": lambda call: torch.tensor(
        call.input(0).shape[call.get("start", 0) : call.get("end")], device=call.get("device")
    ),
    "Slice": _slice,
    "Softmax": _softmax(torch.softmax),
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda call: call.input(0).permute(call.get("perm", list(reversed(range(call.input(0).dim()))))),
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
