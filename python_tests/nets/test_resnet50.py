"""ResNet50 against plain calls of torch.nn.functional on tensors of torchvision's names."""

import math

import pytest
import torch
from torch.nn import functional as F

from robustperf.nets import ResNet50

BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}


def norm(x, weights, name):
    mean, var, weight, bias = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def logits(x, weights):
    """Torchvision's resnet50 in eval mode, v1.5."""
    x = F.relu(norm(F.conv2d(x, weights["conv1.weight"], stride=2, padding=3), weights, "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, blocks in BLOCKS.items():
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, weights[f"{at}.conv1.weight"]), weights, f"{at}.bn1"))
            y = F.conv2d(y, weights[f"{at}.conv2.weight"], stride=stride, padding=1)
            y = F.relu(norm(y, weights, f"{at}.bn2"))
            y = norm(F.conv2d(y, weights[f"{at}.conv3.weight"]), weights, f"{at}.bn3")
            if block == 0:
                x = F.conv2d(x, weights[f"{at}.downsample.0.weight"], stride=stride)
                x = norm(x, weights, f"{at}.downsample.1")
            x = F.relu(x + y)
    return F.linear(x.flatten(2).mean(2), weights["fc.weight"], weights["fc.bias"])


def names():
    """The names of torchvision's state dict, in its order."""
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    yield from ["conv1.weight", *[f"bn1.{part}" for part in norms]]
    for layer, blocks in BLOCKS.items():
        for block in range(blocks):
            pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("downsample.0", "downsample.1")]
            for convolution, after in pairs[: 4 if block == 0 else 3]:
                yield f"layer{layer}.{block}.{convolution}.weight"
                yield from [f"layer{layer}.{block}.{after}.{part}" for part in norms]
    yield from ["fc.weight", "fc.bias"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ResNet50().eval()


def test_parameters_and_their_names(net):
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    assert list(net.state_dict()) == list(names()) and len(net.state_dict()) == 320


def test_logits_are_those_of_the_formula(net):
    generator = torch.Generator().manual_seed(0)
    weights = net.double().state_dict()
    for name, values in weights.items():  # norms that are not the identity
        if values.dim() == 1 and ("bn" in name or "downsample.1" in name):
            values.copy_(0.5 + torch.rand(values.shape, generator=generator, dtype=torch.float64))
    x = torch.rand(2, 3, 45, 64, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = logits(x, weights)
        torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=0)
    assert expected.shape == (2, 1000) and expected.std() > 0


def test_convolutions_start_with_variance_two_over_fan_out():
    torch.manual_seed(0)
    for module in ResNet50().modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            slack = 4 * math.sqrt(2 / module.weight.numel())  # four standard errors
            assert module.weight.var().item() * fan_out / 2 == pytest.approx(1, abs=slack)
