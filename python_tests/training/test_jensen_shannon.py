"""AugMix's loss against plain float64 arithmetic, sample by sample."""

import math

import pytest
import torch
from torch import nn

from robustperf import nuisance
from robustperf.nuisance import Brightness
from robustperf.training import AugMix

KEY, INDEX = 7, torch.tensor([4, 0, 9])


def softmax(logits):
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("weight", [12.0, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_against_a_plain_loop(weight, channels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 4)).double()
    x, y = torch.rand(3, channels, 8, 8, dtype=torch.float64), torch.tensor([1, 3, 0])
    kernel = nuisance.AugMix()
    first, second = kernel(x, kernel.sample(KEY, INDEX, 2))
    losses = []
    for images, label in zip(zip(x, first, second, strict=True), y.tolist(), strict=True):
        p = [softmax(model(image[None])[0].tolist()) for image in images]
        mean = [sum(column) / 3 for column in zip(*p, strict=True)]
        divergence = sum(a * math.log(a / b) for each in p for a, b in zip(each, mean, strict=True)) / 3
        losses.append(-math.log(p[0][label]) + weight * divergence)
    loss = AugMix(weight)(model, x, y, key=KEY, index=INDEX)
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-12)


def test_gradients_also_where_the_model_is_certain():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.mul_(1e4)
    AugMix()(model, torch.rand(3, 1, 8, 8), torch.tensor([1, 3, 0]), key=KEY, index=INDEX).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bad_input():
    with pytest.raises(ValueError, match="weight: expected a finite number above 0"):
        AugMix(0)
    with pytest.raises(TypeError, match="kernel: expected nuisance.AugMix, got Brightness"):
        AugMix(kernel=Brightness())
