"""The minimal-norm attacks with the norm of each, and models whose margins have a closed form."""

import math

import torch
from torch import nn

from robustperf import ops
from robustperf.attacks import APGD, DDN, FAB, FMN, PDPGD, SuperDeepFool

MINIMAL = {
    "ddn": DDN(steps=100),
    "fmn-1": FMN(norm=1, steps=30),
    "fmn-2": FMN(steps=30),
    "fmn-inf": FMN(norm=math.inf, steps=30),
    "fab-1": FAB(norm=1, steps=12),
    "fab-2": FAB(steps=12),
    "fab-inf": FAB(norm=math.inf, steps=12),
    "fab-runner-up": FAB(steps=20, classes=1),
    "apgd-2": APGD(norm=2, steps=15, search=8),
    "apgd-inf": APGD(steps=15, search=8),
    "apgd-targets": APGD(norm=2, steps=15, search=8, targets=2),
    "pdpgd-1": PDPGD(norm=1, steps=200, dual_step=0.25),
    "pdpgd-2": PDPGD(steps=120, dual_step=0.25),
    "pdpgd-inf": PDPGD(norm=math.inf, steps=120, dual_step=0.25),
    "superdeepfool": SuperDeepFool(steps=20),
}


def norm_of(attack):
    return getattr(attack, "norm", 2.0)


def distance(found, x, norm):
    """[B]: of the points that crossed, inf elsewhere."""
    length = torch.linalg.vector_norm((found.point - x).flatten(1), norm, dim=1)
    return length.where(found.gap < 0, math.inf)


def linear_problem(classes=4, dim=12, count=16, seed=0):
    """(a linear model, points in [0, 1], their labels), float64."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(dim, classes, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, dim, dtype=torch.float64, generator=generator))
        model.bias.copy_(-model.weight.sum(1) / 2)  # logits of about 0 in the middle of the box
    x = torch.rand(count, dim, dtype=torch.float64, generator=generator)
    return model.requires_grad_(False), x, model(x).argmax(1)


def linear_margin(model, x, labels, norm, bounds):
    """[B]: the exact distance to the nearest boundary within the box, inf where the box has none."""
    logits, margin = model(x), torch.full((len(x),), math.inf, dtype=torch.float64)
    rows = torch.arange(len(x))
    for other in range(1, logits.shape[1]):
        j = (labels + other) % logits.shape[1]
        step, feasible = ops.halfspace_box_projection(
            x, model.weight[j] - model.weight[labels], logits[rows, labels] - logits[rows, j],
            norm=norm, lower=bounds[0], upper=bounds[1], backend="reference",
        )  # fmt: skip
        margin = torch.minimum(margin, torch.linalg.vector_norm(step, norm, dim=1).where(feasible, math.inf))
    return margin


def small_net(classes=3, dim=8, seed=5):
    """(a network with curved boundaries, points, their labels), float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(dim, 16), nn.Tanh(), nn.Linear(16, classes)).double().requires_grad_(False)
    with torch.no_grad():
        net[0].weight.mul_(4)
    x = torch.rand(8, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return net, x, net(x).argmax(1)


def gap_and_gradient(net, point, label):
    """(z_y - max of the others, its gradient) at one point [D]."""
    point = point.clone().requires_grad_()
    logits = net(point)
    others = torch.cat([logits[:label], logits[label + 1 :]])
    gap = logits[label] - others.max()
    (gradient,) = torch.autograd.grad(gap, point)
    return gap.item(), gradient


def annealed(first, last, step, steps):
    return last + (first - last) * (1 + math.cos(math.pi * step / (steps - 1))) / 2


def nearest_of(points, x, norm):
    """The nearest to x of (point, gap) with a negative gap; the first point where there is none."""
    crossed = [point for point, gap in points if gap < 0]
    return min(crossed, key=lambda point: torch.linalg.vector_norm(point - x, norm).item()) if crossed else points[0][0]
