"""A small network, its points and every attack, for the tests of what holds for all attacks."""

import copy
import math

import pytest
import torch
from torch import nn

from robustperf.attacks import (
    APGD,
    BG,
    DDN,
    FAB,
    FGSM,
    FMN,
    PDPGD,
    PGD,
    ShrinkingBall,
    SigmaZero,
    Square,
    SuperDeepFool,
)

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
    "ddn": DDN(steps=6),
    "fmn-1": FMN(norm=1, steps=6),
    "fmn-2": FMN(steps=6),
    "fmn-inf": FMN(norm=math.inf, steps=6),
    "fab-2": FAB(steps=4),
    "fab-inf-runner-up": FAB(norm=math.inf, steps=4, classes=1),
    "fab-1-restarts": FAB(norm=1, steps=2, restarts=2),
    "apgd-inf": APGD(steps=6),
    "apgd-2-targets": APGD(norm=2, steps=6, targets=2, loss="dlr"),
    "apgd-search": APGD(norm=2, steps=6, search=3),
    "pdpgd-1": PDPGD(norm=1, steps=12),
    "pdpgd-2": PDPGD(steps=12),
    "pdpgd-inf": PDPGD(norm=math.inf, steps=12),
    "superdeepfool": SuperDeepFool(steps=6),
    "sigma-zero": SigmaZero(steps=8),
    "square": Square(steps=12),
    "ball-1": ShrinkingBall(norm=1, steps=10, final_steps=4),
    "ball-2": ShrinkingBall(steps=10, targets=1, final_steps=4),
    "ball-inf": ShrinkingBall(norm=math.inf, steps=10, restarts=1, final_steps=4),
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
