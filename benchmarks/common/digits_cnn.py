"""A classifier for the benchmarks that need no downloads: a small CNN on scikit-learn's digits, resized to 28x28."""

from __future__ import annotations

from functools import cache

import torch

from robustperf import nets
from robustperf.data import load
from robustperf.training import ERM, fit


@cache
def digits_network() -> tuple[torch.nn.Module, torch.Tensor]:
    """(classifier in eval mode, test images [360, 1, 28, 28]); trains for a second or two."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nets.build("small-cnn")
        train = load("digits", "train").resized(28)
        fit(model, ERM(), train, validation=None, epochs=3, optimizer="adam", lr=2e-3, progress=False)
    return model.eval(), load("digits", "test").resized(28).x


def digit_images(count: int) -> torch.Tensor:
    """[count, 1, 28, 28] test images, repeated where there are fewer."""
    x = load("digits", "test").resized(28).x
    return x.repeat(-(-count // len(x)), 1, 1, 1)[:count]
