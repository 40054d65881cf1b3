"""Models, points and lines for the tests of the boundary search."""

import math

import torch
from torch import nn

NORMS = [1, 2, math.inf]
METHODS = ["chandrupatla", "bisection"]
FINE = 2.0**-40


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def uniforms(*shape, seed):
    return torch.rand(*shape, dtype=torch.float64, generator=generator(seed))


def mlp(dim, seed, classes=4, gain=4.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(dim, 10), nn.Tanh(), nn.Linear(10, classes)).double()
    with torch.no_grad():
        net[1].weight.mul_(gain)
    return net.requires_grad_(False)


def cnn(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 4)).double()
    return net.requires_grad_(False)


def threshold(*crossings):
    """A model of one pixel that changes its label at each of the crossings."""

    def model(x):
        side = torch.ones(x.shape[0], dtype=x.dtype)
        for crossing in crossings:
            side = side * (crossing - x.flatten(1)[:, 0])
        return torch.stack([side, torch.zeros_like(side)], 1)

    return model


def segment(count=1):
    """x = 0 and x' = 1, one pixel each."""
    return torch.zeros(count, 1, dtype=torch.float64), torch.ones(count, 1, dtype=torch.float64)


def linear_case(seed, dim=6, classes=3, count=20):
    """(model, x in [0, 1], labels, w [B, D] and g [B] of the runner-up: g - <w, δ> is the gap to it)."""
    model = nn.Linear(dim, classes, dtype=torch.float64).requires_grad_(False)
    model.weight.copy_(normals(classes, dim, seed=seed))
    model.bias.copy_(0.3 * normals(classes, seed=seed + 1))
    x = uniforms(count, dim, seed=seed + 2)
    top = model(x).topk(2, dim=1)
    labels, other = top.indices.T.contiguous()
    return model, x, labels, model.weight[other] - model.weight[labels], top.values[:, 0] - top.values[:, 1]


def crossings(net, x, candidates, points=300):
    """[A, B]: how often the label changes along each line, on a fine grid."""
    steps = torch.linspace(0, 1, points + 1, dtype=x.dtype)
    same = []
    for ends in candidates:
        grid = torch.stack([x + t * (ends - x) for t in steps])
        same.append((net(grid.flatten(0, 1)).argmax(1).view(points + 1, -1) == net(x).argmax(1)).int())
    return torch.stack([(s.diff(dim=0) != 0).sum(0) for s in same])
