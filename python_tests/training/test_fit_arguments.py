"""Wrong arguments of `fit` are errors that name them, before anything is trained."""

import pytest
import torch

from python_tests.support.training import assert_same, net, train, weights_of
from robustperf.data import Dataset
from robustperf.training import ERM

X, Y = torch.rand(40, 1, 8, 8), torch.arange(40) % 10


@pytest.mark.parametrize("data, changes, error, message", [
    (Dataset("none", X[:0], Y[:0], 10), {}, ValueError, "train: expected"),
    (Dataset("none", X[:0], Y[:0], 10), {"validation": None}, ValueError, "train: expected at least one batch of 32"),
    (Dataset("few", X[:20], Y[:20], 10), {}, ValueError, "train: expected at least one batch of 32 samples, got 18"),
    (Dataset("more", X, Y + 1, 11), {}, ValueError, r"train: expected labels in 0\.\.9.*got 10"),
    (Dataset("all", X, Y, 10), {"validation": Dataset("more", X, Y + 3, 13)}, ValueError,
     "validation: expected labels"),
    (Dataset("all", X, Y, 10), {"validation": Dataset("none", X[:0], Y[:0], 10)}, ValueError,
     "validation: expected samples"),
    (Dataset("all", X, Y, 10), {"validation": 1.5}, ValueError, r"validation: expected a number in \(0, 1\), got"),
    (Dataset("all", X, Y, 10), {"validation": 0}, ValueError, r"validation: expected a number in \(0, 1\), got"),
    (Dataset("all", X, Y, 10), {"log_with": "tensorboard"}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"log_with": "abacus"}, ImportError, "log_with: abacus is not installed"),
    (Dataset("all", X, Y, 10), {"epochs": 0}, ValueError, "epochs: expected an integer above 0"),
    (Dataset("all", X, Y, 10), {"batch_size": 0}, ValueError, "batch_size"),
    (Dataset("all", X, Y, 10), {"workers": -1}, ValueError, "workers: expected an integer >= 0, got -1"),
    (Dataset("all", X, Y, 10), {"clip": -1}, ValueError, "clip"),
    (Dataset("all", X, Y, 10), {"optimizer": "adagrad"}, ValueError, "optimizer: expected one of adadelta, adam, sgd"),
    (Dataset("all", X, Y, 10), {"optimizer": 3}, TypeError, "optimizer"),
    (Dataset("all", X, Y, 10), {"lr": (0.1, 0.2, 0.3)}, ValueError, "lr: expected"),
    (Dataset("all", X, Y, 10), {"lr": {1: 0.1}}, ValueError, "lr: expected epochs from 0 on"),
    (Dataset("all", X, Y, 10), {"lr": 0}, ValueError, "lr"),
    (Dataset("all", X, Y, 10), {"mixed_precision": "int8"}, ValueError, "mixed_precision: expected one of no, bf16"),
    (Dataset("all", X, Y, 10), {"resume": True}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"checkpoint_steps": 3}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"objective": "mrt"}, TypeError, "objective: expected"),
])  # fmt: skip
def test_bad_input(data, changes, error, message):
    model = net()
    before = weights_of(model)
    with pytest.raises(error, match=message):
        train(model, data, changes.pop("objective", ERM()), **changes)
    assert_same(weights_of(model), before)
