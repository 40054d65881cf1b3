"""The wrapper of functions that give labels only."""

import numpy as np
import pytest
import torch

from robustperf import LabelOnly


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs(dtype):
    model = LabelOnly(lambda x: x.argmax(1), 3)
    x = torch.eye(3, dtype=dtype)[[2, 0, 1, 1]]
    assert model(x).dtype == dtype and torch.equal(model(x), 2 * x - 1) and model.count == 3


@pytest.mark.parametrize(
    "answer", [[1, 0], np.array([1, 0], np.uint8), torch.tensor([1, 0], dtype=torch.int32), (1, 0)]
)
def test_kinds_of_labels(answer):
    assert LabelOnly(lambda x: answer, 2).labels(torch.zeros(2, 1)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "answer", "expected"),
    [
        (["cat", "dog", "ant"], ["ant", "cat"], [2, 0]),
        ([7, -3], np.array([-3, 7]), [1, 0]),
        ([False, True], torch.tensor([True, False]), [1, 0]),
        (np.array([0.5, 2.5]), [2.5, 0.5], [1, 0]),
    ],
)
def test_named_classes(classes, answer, expected):
    assert LabelOnly(lambda x: answer, classes).labels(torch.zeros(2, 1)).tolist() == expected


@pytest.mark.parametrize("arrays", [True, False])
def test_arrays_or_tensors(arrays):
    seen = []
    LabelOnly(lambda x: seen.append(x) or [0] * len(x), 2, arrays=arrays)(torch.ones(2, 3, requires_grad=True))
    assert isinstance(seen[0], np.ndarray if arrays else torch.Tensor) and tuple(seen[0].shape) == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, 2), TypeError, "function: expected a callable, got int"),
        ((len, 1), ValueError, "classes: expected an integer >= 2, got 1"),
        ((len, 2.0), ValueError, "classes: expected an integer >= 2, got 2.0"),
        ((len, ["a"]), ValueError, "classes: expected at least two"),
        ((len, ["a", "a"]), ValueError, "classes: expected at least two"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LabelOnly(*arguments)


@pytest.mark.parametrize(
    ("answer", "classes", "error", "message"),
    [
        ([0, 1, 1], 2, ValueError, r"function\(x\): expected one label for each of 2 points, got shape \[3\]"),
        ([[0, 1]], 2, ValueError, r"got shape \[1, 2\]"),
        ([0, 2], 2, ValueError, r"function\(x\): expected labels in 0..1, got 2"),
        ([0.0, 1.0], 2, TypeError, r"function\(x\): expected integer labels in 0..1, got float64"),
        (["a", "c"], ["a", "b"], ValueError, r"function\(x\): expected labels among \['a', 'b'\], got .*'c'.* at 1"),
    ],
)
def test_wrong_labels(answer, classes, error, message):
    with pytest.raises(error, match=message):
        LabelOnly(lambda x: answer, classes)(torch.zeros(2, 1))
