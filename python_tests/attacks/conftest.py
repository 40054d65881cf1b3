"""A small network, its points and every attack, for the tests of what holds for all attacks."""

import copy
import math

import pytest
import torch
from torch import nn

from robustperf.attacks import BG, FGSM, PGD, ShrinkingBall

ATTACKS = {
    "fgsm": FGSM(),
    "pgd-inf": PGD(steps=5),
    "pgd-2": PGD(norm=2, steps=5, eps=1.0),
    "pgd-early-stop": PGD(steps=5, early_stop=True, random_start=False),
    "bg-1": BG(norm=1),
    "bg-2": BG(),
    "bg-inf": BG(norm=math.inf),
    "bg-runner-up": BG(classes=1),
    "bg-again": BG(steps=3),
    "ball-1": ShrinkingBall(norm=1, steps=10),
    "ball-2": ShrinkingBall(steps=10, targets=1),
    "ball-inf": ShrinkingBall(norm=math.inf, steps=10, restarts=1),
}


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS.keys())
def attack(request):
    return request.param


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(3 * 9, 4)
    return nn.Sequential(*layers).double()


@pytest.fixture
def x():
    return torch.rand(6, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(net, x):
    return copy.deepcopy(net).eval()(x).argmax(1)
