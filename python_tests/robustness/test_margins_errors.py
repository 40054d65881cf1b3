"""Wrong arguments of `margins`: the error names the argument, what was expected and what came."""

import math

import pytest
import torch

from robustperf import margins
from robustperf.attacks import FGSM


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (math.nan, "x: expected finite pixels, got nan at"),
        (math.inf, "x: expected finite pixels, got inf at"),
        (1.5, r"x: expected pixels within \[0, 1\], got 1.5 at"),
        (-0.5, r"x: expected pixels within \[0, 1\], got -0.5 at"),
    ],
)
def test_wrong_pixels_are_named_by_their_position_in_x(net, x, value, match):
    x[13, 0, 1, 2] = value
    with pytest.raises(ValueError, match=match + r" \[13, 0, 1, 2\]"):
        margins(net, x, attacks=[FGSM()])
    with pytest.raises(ValueError, match=match + r" \[13, 0, 1, 2\]"):  # the position in x, not in its batch
        margins(net, x, attacks=[FGSM()], batch_size=8)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"attacks": []}, ValueError, "attacks: expected at least one, got none"),
        ({"attacks": [3]}, TypeError, "attacks: expected instances of Attack or their names, got 3"),
        ({"attacks": [FGSM(), None]}, TypeError, "attacks: expected instances of Attack or their names, got None"),
        ({"norm": 3}, ValueError, "norm: "),
        ({"bounds": (1, 0)}, ValueError, "bounds: "),
        ({"bounds": None}, TypeError, "bounds: "),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer above 0, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size: "),
        ({"labels": torch.zeros(29, dtype=torch.int64)}, ValueError, r"labels: expected shape \[30\], got \[29\]"),
        ({"labels": torch.zeros(30)}, TypeError, "labels: expected torch.int64"),
        ({"labels": torch.full((30,), 4)}, ValueError, r"labels: expected labels in 0\.\.3, got 4"),
        ({"labels": torch.full((30,), -1)}, ValueError, r"labels: expected labels in 0\.\.3, got -1"),
        ({"index": torch.arange(29)}, ValueError, r"index: expected shape \[30\]"),
        ({"index": torch.zeros(30)}, TypeError, "index: expected torch.int64"),
        ({"key": -1}, ValueError, "key: expected"),
        ({"key": True}, ValueError, "key: expected"),
        ({"tol": 0.0}, ValueError, "tol: "),
        ({"probes": -1}, ValueError, "probes: "),
        ({"norm": True}, ValueError, "norm: "),
    ],
)
def test_wrong_arguments(net, x, arguments, error, match):
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 4, dtype=x.dtype))
    for model, attacks in ((net, [FGSM()]), (linear, None)):  # a closed form takes no tolerance, and checks it
        if model is net or "attacks" not in arguments:
            with pytest.raises(error, match=match):
                margins(model, x, **{"attacks": attacks, **arguments})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x.mul(255).byte(), TypeError, "x: expected .*, got torch.uint8"),
        (lambda x: x.half(), TypeError, "x: expected .*, got torch.float16"),
        (lambda x: x.flatten(), ValueError, r"x: expected a batch of shape \[B, ...\]"),
        (lambda x: x.tolist(), TypeError, "x: expected a tensor, an array, .*got list"),
    ],
)
def test_wrong_images(net, x, change, error, match):
    with pytest.raises(error, match=match):
        margins(net, change(x), attacks=[FGSM()], batch_size=1000)


def test_wrong_models(net, x):
    with pytest.raises(TypeError, match="model: "):
        margins(None, x, attacks=[FGSM()])
    with pytest.raises(ValueError, match="at least two classes"):
        margins(lambda x: net(x)[:, :1], x, attacks=[FGSM()])
    with pytest.raises(ValueError, match=r"model\(x\): expected shape"):
        margins(lambda x: net(x)[:3], x, attacks=[FGSM()])
