"""The fewest values that change a label, from enumeration and in closed form."""

import itertools

import torch
from torch import nn


def far_from_boundaries(classes, dim, count, dtype=torch.float64):
    """(a linear model, points near the patterns of its classes, their labels): several values change a label."""
    generator = torch.Generator().manual_seed(classes)
    model = nn.Linear(dim, classes).to(dtype).requires_grad_(False)
    weight = torch.randn(classes, dim, dtype=torch.float64, generator=generator)
    model.weight.copy_(weight)
    model.bias.copy_(-weight.sum(1) / 2)
    pattern = 0.5 + 0.2 * weight[torch.arange(count) % classes].sign()
    x = (pattern + 0.4 * (torch.rand(count, dim, dtype=torch.float64, generator=generator) - 0.5)).to(dtype)
    return model, x, model(x).argmax(1)


def fewest_of_linear(weight, bias, x, label, lower=0.0, upper=1.0):
    """The fewest values that change the label of a linear model, by the largest gains within the box; inf if none."""
    weight, bias, x = weight.detach().double(), bias.detach().double(), x.double()
    logits, counts = weight @ x + bias, [float("inf")]
    for j in range(len(logits)):
        if j != label:
            w = weight[j] - weight[label]
            gains = torch.where(w > 0, w * (upper - x), -w * (x - lower)).nan_to_num(0.0, posinf=float("inf"))
            total = gains.sort(descending=True).values.cumsum(0)
            enough = (total > logits[label] - logits[j]).nonzero()
            counts += [enough[0, 0].item() + 1.0] if len(enough) else []
    return min(counts)


def fewest_on_grid(model, x, label, values):
    """The fewest values of x [D] that change the label, where each changed value takes one of `values`; by trying all
    subsets and all their values."""
    for count in range(1, len(x) + 1):
        points = []
        for subset in itertools.combinations(range(len(x)), count):
            for chosen in itertools.product(values, repeat=count):
                point = x.clone()
                point[list(subset)] = torch.tensor(chosen, dtype=x.dtype)
                points.append(point)
        if (model(torch.stack(points)).argmax(1) != label).any():
            return float(count)
    return float("inf")
