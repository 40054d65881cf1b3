"""What the tests of the objectives share: a batch, a network, a kernel, and one objective of each kind."""

import torch
from torch import nn

import robustperf as rp
from robustperf import random
from robustperf.attacks import PGD
from robustperf.nuisance import Brightness, Compose, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, GaussianAugmentation

KEY = 2**40 + 3
Y = torch.tensor([2, 0, 1, 2])
INDEX = torch.tensor([7, 2**33, 0, 11])
X = torch.rand(4, 1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Fade(rp.Kernel):
    """x (1 - delta_1) + delta_2 delta_1, delta in [0, 1/2]^2: a custom kernel."""

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return 0.5 * random.uniform(key, index, draws, 2, backend=backend)

    def transform(self, x, delta, *, backend=None):
        opacity, grey = (part[..., None, None] for part in delta[..., None].unbind(2))
        return x * (1 - opacity) + opacity * grey

    def project(self, delta, shape=None):
        return delta.clamp(0, 0.5)


def network(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(60, 3)).double()


OBJECTIVES = {
    "erm": ERM(), "mrt": MRT(Brightness(), 3, selection="sample"), "mrt-batch": MRT(Brightness(), 3),
    "mat": MAT(Rotation(), 2), "mda": MDA(Compose([Rotation(), Fade()]), 2),
    "adversarial": AdversarialTraining(PGD(steps=2), 0.5), "gaussian": GaussianAugmentation(),
}  # fmt: skip
