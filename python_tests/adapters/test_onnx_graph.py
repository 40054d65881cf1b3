"""Each operator of `OnnxGraph`, compared with onnxruntime."""

import numpy as np
import pytest
import torch

from python_tests.support.onnx_files import save
from robustperf.adapters.onnx_graph import OPERATORS, OnnxGraph

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

IMAGE, ROW = (3, 5, 6), (6,)
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(4, 3, 3, 2)).astype(np.float32)
FOUR, SIX = (RANDOM.normal(size=n).astype(np.float32) for n in (4, 6))


def ints(*values):
    return np.array(values, np.int64)


# (operator, shape of an image, further inputs, attributes, opset)
CASES = [
    *((name, ROW, [], {}, 20) for name in (
        "Abs", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "LogSoftmax", "Neg", "Relu",
        "Sigmoid", "Softmax", "Softplus", "Sqrt", "Tanh", "Log", "Flatten", "Dropout", "Gelu")),
    ("Gelu", ROW, [], {"approximate": "tanh"}, 20),
    *((name, ROW, [SIX], {}, 18) for name in ("Add", "Sub", "Mul", "Div")),
    ("Pow", ROW, [np.float32(2)], {}, 18),
    ("MatMul", ROW, [RANDOM.normal(size=(6, 2)).astype(np.float32)], {}, 18),
    ("Gemm", ROW, [RANDOM.normal(size=(6, 4)).astype(np.float32), FOUR], {"alpha": 0.5, "beta": 2.0}, 18),
    ("Gemm", ROW, [RANDOM.normal(size=(4, 6)).astype(np.float32)], {"transB": 1}, 18),
    ("Softmax", IMAGE, [], {"axis": 1}, 11),
    ("Softmax", IMAGE, [], {"axis": 1}, 13),
    ("Conv", IMAGE, [KERNEL, FOUR], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, 18),
    ("Conv", IMAGE, [KERNEL], {"dilations": [2, 1]}, 18),
    ("Conv", IMAGE, [KERNEL], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 18),
    ("Conv", IMAGE, [KERNEL], {"auto_pad": "SAME_LOWER"}, 18),
    ("Conv", IMAGE, [KERNEL[:3, :1]], {"group": 3}, 18),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, 18),
    ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 18),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 18),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 18),
    ("GlobalAveragePool", IMAGE, [], {}, 18),
    ("GlobalMaxPool", IMAGE, [], {}, 18),
    *((name, IMAGE, [ints(2, -1)], {"keepdims": 0}, 18) for name in ("ReduceMean", "ReduceMax", "ReduceSum")),
    ("ReduceMean", IMAGE, [], {"axes": [1, 2]}, 13),
    ("ReduceMean", IMAGE, [ints()], {"noop_with_empty_axes": 1}, 18),
    ("ReduceSum", IMAGE, [], {}, 18),
    ("LayerNormalization", ROW, [SIX, SIX], {"epsilon": 1e-3}, 18),
    ("LayerNormalization", IMAGE, [SIX], {}, 18),
    ("BatchNormalization", (4, 5), [FOUR, FOUR, FOUR, FOUR**2], {}, 18),
    ("Reshape", IMAGE, [ints(0, -1, 2)], {}, 18),
    ("Reshape", IMAGE, [ints(2, -1)], {"allowzero": 1}, 18),
    ("Flatten", IMAGE, [], {"axis": 2}, 18),
    ("Flatten", IMAGE, [], {"axis": -1}, 18),
    ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}, 18),
    ("Transpose", IMAGE, [], {}, 18),
    ("Unsqueeze", ROW, [ints(-1, 1)], {}, 18),
    ("Squeeze", (1, 3, 1), [ints(1)], {}, 18),
    ("Gather", IMAGE, [ints(1, -1)], {"axis": 2}, 18),
    ("Gather", IMAGE, [np.array(0)], {"axis": 1}, 18),
    ("Slice", IMAGE, [ints(1, -3), ints(4, 99), ints(2, 3), ints(2, 1)], {}, 18),
    ("Slice", IMAGE, [ints(-1), ints(-99), ints(3), ints(-2)], {}, 18),
    ("Slice", IMAGE, [ints(-99), ints(2), ints(3)], {}, 18),
    ("Clip", ROW, [np.float32(0.3), np.float32(0.7)], {}, 18),
    ("Clip", ROW, [None, np.float32(0.7)], {}, 18),
    ("Clip", ROW, [], {"min": 0.4}, 6),
    ("Expand", (1, 6), [ints(1, 3, 1)], {}, 18),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)], {}, 18),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}, 18),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}, 18),
    ("Pad", IMAGE, [ints(1, 2), None, ints(-1)], {}, 18),
    ("Concat", ROW, [RANDOM.normal(size=(4, 2)).astype(np.float32)], {"axis": 1}, 18),
]  # fmt: skip
# operators in graphs of several nodes
CHAINS = {
    "Cast": [("Cast", ["x"], ["d"], {"to": 11}), ("Exp", ["d"], ["e"], {}), ("Cast", ["e"], ["y"], {"to": 1})],
    "Shape": [("Shape", ["x"], ["s"], {"start": 1}), ("Cast", ["s"], ["c"], {"to": 1}), ("Mul", ["x", "c"], ["y"], {})],
    "Split": [("Split", ["x"], ["a", "b"], {"axis": 1, "num_outputs": 2}), ("Sub", ["a", "b"], ["y"], {})],
    "Where": [("Constant", [], ["c"], {"value_float": 0.5}), ("Relu", ["x"], ["r"], {}),
              ("Equal", ["r", "x"], ["e"], {}), ("Where", ["e", "c", "x"], ["y"], {})],
    "Constant": [("Constant", [], ["c"], {"value_ints": [-1, 3]}), ("Reshape", ["x", "c"], ["y"], {})],
}  # fmt: skip


def compared(tmp_path, nodes, weights, shape, opset):
    path = save(tmp_path / "case.onnx", nodes, weights, shape=shape, opset=opset)
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x.numpy()})
    found = OnnxGraph(path)(x)["y"]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}-{case[4]}")
def test_operator(tmp_path, case):
    operator, shape, further, attributes, opset = case
    weights = {f"w{i}": value for i, value in enumerate(further) if value is not None}
    inputs = ["x", *("" if value is None else f"w{i}" for i, value in enumerate(further))]
    compared(tmp_path, [(operator, inputs, ["y"], attributes)], weights, shape, opset)


@pytest.mark.parametrize("name", CHAINS)
def test_operators_in_a_chain(tmp_path, name):
    compared(tmp_path, CHAINS[name], {}, ROW, 18)


def test_every_operator_has_a_case():
    chained = {node[0] for nodes in CHAINS.values() for node in nodes}
    assert {case[0] for case in CASES} | chained == set(OPERATORS)
