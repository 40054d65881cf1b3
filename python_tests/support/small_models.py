"""Tiny classifiers of scikit-learn's digits."""

import torch
from torch import nn

import robustperf as rp


def mlp(classes=10, seed=0, values=64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(values, 12), nn.Tanh(), nn.Linear(12, classes))


def trained(steps, seed=0):
    """An `mlp` after a few steps on the training digits."""
    net, data = mlp(seed=seed), rp.data.load("digits", "train")
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.x), data.y).backward()
        optimizer.step()
    return net
