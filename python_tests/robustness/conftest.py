"""A small network and its points, for the tests of margins."""

import pytest
import torch
from torch import nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4)).double()


@pytest.fixture
def x():
    return torch.rand(30, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
