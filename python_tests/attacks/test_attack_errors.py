"""Wrong arguments of an attack: the error names the argument, what was expected and what came."""

import math

import pytest
import torch
from torch import nn

from robustperf.attacks import FGSM, PGD


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x.mul(255).byte(), TypeError, "x: expected torch.float32 or torch.float64, got torch.uint8"),
        (lambda x: x.half(), TypeError, "x: .*torch.float16"),
        (lambda x: x.tolist(), TypeError, "x: expected a tensor, got list"),
        (lambda x: x.flatten()[:6], ValueError, r"x: expected a batch of shape \[B, ...\], got \[6\]"),
        (lambda x: x.index_fill(3, torch.tensor([2]), 1.5), ValueError, r"x: expected pixels within \[0, 1\], got 1.5"),
        (
            lambda x: x.index_fill(3, torch.tensor([2]), -1.5),
            ValueError,
            r"x: expected pixels within \[0, 1\], got -1.5",
        ),
        (lambda x: x.index_fill(0, torch.tensor([4]), math.nan), ValueError, r"x: .*finite.*nan at \[4, 0, 0, 0\]"),
        (lambda x: x.index_fill(0, torch.tensor([4]), math.inf), ValueError, r"x: .*finite.*inf at \[4, 0, 0, 0\]"),
    ],
)
def test_wrong_images(attack, net, x, labels, change, error, match):
    with pytest.raises(error, match=match):
        attack(net, change(x), labels)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda y: y.int(), TypeError, "labels: expected torch.int64, got torch.int32"),
        (lambda y: y.double(), TypeError, "labels: expected torch.int64, got torch.float64"),
        (lambda y: y.tolist(), TypeError, "labels: expected a tensor, got list"),
        (lambda y: y[:-1], ValueError, r"labels: expected shape \[6\], got \[5\]"),
        (lambda y: y[:, None], ValueError, r"labels: expected shape \[6\], got \[6, 1\]"),
        (lambda y: y.to("meta"), ValueError, "labels: expected a tensor on cpu, got one on meta"),
        (lambda y: y + 4, ValueError, r"labels: expected labels in 0\.\.3, got"),
        (lambda y: y - 4, ValueError, r"labels: expected labels in 0\.\.3, got -"),
    ],
)
def test_wrong_labels(attack, net, x, labels, change, error, match):
    with pytest.raises(error, match=match):
        attack(net, x, change(labels))


@pytest.mark.parametrize(
    "index",
    [torch.arange(3), torch.zeros(6), [0, 1, 2, 3, 4, 5], torch.arange(6)[:, None], torch.arange(6, device="meta")],
    ids=["short", "float", "list", "column", "device"],
)
@pytest.mark.parametrize("attack", [FGSM(), PGD()], ids=["fgsm", "pgd"])
def test_wrong_index(attack, net, x, labels, index):
    with pytest.raises((TypeError, ValueError), match="index"):
        attack(net, x, labels, index=index)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds: .*lower < upper"),
        ({"bounds": 1.0}, TypeError, "bounds: "),
        ({"bounds": (0.0, math.nan)}, ValueError, "bounds: .*lower < upper"),
        ({"bounds": (torch.zeros(3), 1.0)}, ValueError, r"bounds: expected a number, \[1\], .* \[1, 5, 5\], got \[3\]"),
        ({"key": -1}, ValueError, "key: expected"),
        ({"key": 2**64}, ValueError, "key: expected"),
    ],
)
def test_wrong_bounds_and_keys(attack, net, x, labels, arguments, error, match):
    with pytest.raises(error, match=match):
        attack(net, x, labels, **arguments)


def test_wrong_models(attack, net, x, labels):
    with pytest.raises(TypeError, match="model: expected a module or a callable, got str"):
        attack("net", x, labels)
    with pytest.raises(ValueError, match=r"model\(x\): expected shape \[6, C\]"):
        attack(nn.Sequential(net, nn.Flatten(0)), x, labels)
    with pytest.raises(ValueError, match=r"model\(x\): .*at least two classes"):
        attack(lambda x: net(x)[:, :1], x, labels * 0)
    with pytest.raises(TypeError, match=r"model\(x\): expected a tensor, got tuple"):
        attack(lambda x: (net(x),), x, labels)
