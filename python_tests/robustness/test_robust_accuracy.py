"""Robust accuracy at ε from margins with labels."""

import math

import pytest
import torch
from scipy.stats import beta
from torch import nn

from robustperf import Margins, margins


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_the_fraction_of_points_beyond_eps(norm):
    model, x = net(), torch.rand(40, 6, dtype=torch.float64)
    labels = model(x).argmax(1)
    labels[:7] = (labels[:7] + 1) % 3
    found = margins(model, x, labels=labels, norm=norm)
    assert found.robust_accuracy(0).value == 33 / 40
    for eps in (0.01, 0.1, 0.5):
        robust = sum(distance > eps for distance in found.distance.tolist())
        result = found.robust_accuracy(eps)
        assert result.value == robust / 40 and (result.eps, result.count, result.confidence) == (eps, 40, 0.95)
        assert result.lower == pytest.approx(beta.ppf(0.025, robust, 41 - robust) if robust else 0.0)
        assert result.upper == pytest.approx(beta.ppf(0.975, robust + 1, 40 - robust) if robust < 40 else 1.0)
    wider, narrower = (found.robust_accuracy(0.1, confidence=level) for level in (0.99, 0.5))
    assert wider.lower < narrower.lower <= narrower.value <= narrower.upper < wider.upper
    assert repr(found.robust_accuracy(0)).startswith("RobustAccuracy(0.825, lower=")


def test_a_linear_model():
    """y (w x + b) > ε ‖w‖ is the definition."""
    torch.manual_seed(1)
    model, x = nn.Linear(5, 2).double(), torch.rand(60, 5, dtype=torch.float64)
    labels = torch.randint(2, (60,))
    found = margins(model, x, labels=labels, bounds=(-math.inf, math.inf))
    z = model(x)[:, 1] - model(x)[:, 0]
    lead = torch.where(labels == 1, z, -z) / (model.weight[1] - model.weight[0]).norm()
    for eps in (0.0, 0.05, 0.2):
        assert found.robust_accuracy(eps).value == (lead > eps).double().mean().item()


def test_without_labels():
    found = margins(net(), torch.rand(4, 6, dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"labels: expected margins found with the true labels, margins\(model, x, lab"
    ):
        found.robust_accuracy(0.1)


def test_points_without_a_label_count_as_wrong():
    def model(x):
        return torch.where(x[:, :1] > 0.5, math.nan, x)

    x = torch.tensor([[0.4, 0.1], [0.9, 0.1], [0.3, 0.2], [0.45, 0.05]], dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="NaN logits"):
        found = margins(model, x, labels=torch.zeros(4, dtype=torch.int64), attacks="bg")
    assert found.robust_accuracy(1e-3).value == 0.75


def test_saved_parts_and_older_files(tmp_path):
    model, x = net(), torch.rand(9, 6, dtype=torch.float64)
    found = margins(model, x, labels=model(x).argmax(1), batch_size=4)
    found.save(tmp_path / "margins.npz")
    again = Margins.load(tmp_path / "margins.npz")
    assert again == found and again.robust_accuracy(0.1) == found.robust_accuracy(0.1)
    old = {"distance": torch.ones(1).double(), "attack": torch.zeros(1).long(), "evaluations": torch.ones(1).long()}
    old = Margins(
        **old, found=torch.ones(1).bool(), point=None, attack_evaluations=torch.ones(1, 1).long(), attacks=("BG",),
        norm=2.0, diameter=1.0,
    )  # fmt: skip
    assert not old.labelled and not old.exact.any() and old.access == "model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -0.1}, "eps: expected a finite number >= 0, got -0.1"),
        ({"eps": math.inf}, "eps: "),
        ({"eps": "8/255"}, "eps: "),
        ({"eps": 0.1, "confidence": 1}, "confidence: "),
    ],
)
def test_wrong_arguments(arguments, message):
    model, x = net(), torch.rand(4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        margins(model, x, labels=model(x).argmax(1)).robust_accuracy(**arguments)


def test_no_points():
    found = margins(net(), torch.empty(0, 6).double(), labels=torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one point"):
        found.robust_accuracy(0.1)
