"""What the tests of training share: a small network, runs of `fit` on it, and comparisons to the bit."""

import itertools

import torch
from torch import nn

from robustperf import nets
from robustperf.nuisance import Brightness, Compose, Rotation
from robustperf.training import ERM, MRT, fit

KERNEL = Compose([Rotation(20), Brightness(0.3)])


class Net(nn.Module):
    """All that could make two runs differ: both dropouts and batch normalisation."""

    def __init__(self, classes=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nets.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(144, 16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, classes),
        )

    def forward(self, x):
        return self.layers(x)


def net(seed=0, kind=Net, **kwargs):
    """A network whose initial weights depend on `seed` only."""
    torch.manual_seed(seed)
    return kind(**kwargs)


def weights_of(model):
    """A copy of the state dict."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left, right):
    """Two state dicts have the same names and the same bits."""
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, msg=name)


def train(model, data, objective=None, **kwargs):
    """`fit` with quick settings; MRT by default."""
    objective = objective or MRT(KERNEL, k=3)
    return fit(model, objective, data, **{"epochs": 2, "batch_size": 32, "progress": False, "seed": 5, **kwargs})


def fails_at(step, loss=None, error=None):
    """ERM whose loss is multiplied by `loss`, or which raises `error`, at step number `step`."""
    calls = itertools.count()

    def objective(model, x, y, *, key, index):
        found = ERM()(model, x, y, key=key, index=index)
        if next(calls) == step:
            if error is not None:
                raise error
            return found * loss
        return found

    return objective
