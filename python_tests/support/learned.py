"""What the tests of learned kernels share: small generators with random weights, and two domains of tiny images."""

import torch
from torch import nn

from robustperf.nets.munit_generator import MunitGenerator
from robustperf.nuisance import LearnedKernel

INDEX = torch.tensor([7, 0, 2**40, 3, 12])


def generator(seed=0, **sizes):
    """A generator of RGB images whose weights are large enough that its images differ with x and delta."""
    torch.manual_seed(seed)
    network = MunitGenerator(**{"in_channels": 3, "style_dim": 2, "width": 4, **sizes})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def kernel(seed=0, distribution="uniform", **sizes):
    return LearnedKernel(generator(seed, **sizes), distribution=distribution)


def images(count=5, channels=3, size=8, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def domains(count=12, channels=1, size=8):
    """Dark and bright images."""
    return 0.4 * images(count, channels, size, seed=1), 0.6 + 0.4 * images(count, channels, size, seed=2)
