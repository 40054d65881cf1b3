"""The figures of the tightness benchmark, against values by hand, and its networks' recipes."""

import math

import pytest
import torch
from torch import nn

from benchmarks.common.robust_networks import RECIPES, Scaled
from benchmarks.speed.tightness import Counting, Found, figures, presets, run_peer, run_preset


def found(*distances):
    return Found(torch.tensor(distances, dtype=torch.float64), 3.0, 2.0, 0.5)


def test_figures_by_hand():
    best = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    columns = figures(found(1.0, 2.2, 6.0), best)
    assert columns["x best known"] == pytest.approx(9.2 / 6)
    assert columns["within 5 %"] == pytest.approx(1 / 3)
    # up to 3, where the best known has nothing left: areas (1 + 2.2 + 3) / 3 and (1 + 2 + 3) / 3
    assert columns["optimality"] == pytest.approx((3 - 6.2 / 3) / (3 - 6 / 3))
    assert (columns["forward"], columns["backward"], columns["seconds"]) == (3, 2, 0.5)
    assert figures(found(1.0, 2.0, 3.0), best)["optimality"] == 1
    assert figures(found(1.0, 2.0, math.inf), best)["x best known"] == pytest.approx(33 / 6)


def test_passes_are_counted_by_image():
    counting = Counting(nn.Linear(3, 4))
    x = torch.rand(5, 3, requires_grad=True)
    counting(x).sum().backward()
    with torch.no_grad():
        counting(x[:2])
    assert (counting.forwards, counting.backwards) == (7, 5)


def test_presets_and_peers_are_measured_alike():
    """A peer whose points are far beyond the boundary, on the shortest line: the line search makes them the margins."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        model.bias.copy_(torch.tensor([-0.5, 0.0]))
    x = torch.tensor([[0.9, 0.1, 0.4], [0.6, 0.3, 0.2]])
    y = model(x).argmax(1)

    def peer(model, x, y):
        model(x)
        return x - torch.tensor([0.6, 0.0, 0.0])

    ours = run_preset(model, x, y, "fast", 2, repeats=1)
    theirs = run_peer(model, x, y, peer, 2, 1)
    truth = torch.tensor([0.4, 0.1], dtype=torch.float64)
    torch.testing.assert_close(ours.distance, truth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.distance, truth, rtol=1e-4, atol=1e-5)
    assert theirs.forward == 1 and theirs.backward == 0 and 90 < ours.forward <= 100


def test_changes_of_a_peer_are_undone_in_l0():
    """Of three changed values one is enough, whichever the preset or the peer changed."""
    model = nn.Linear(3, 2).requires_grad_(False)
    model.weight.copy_(torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.0, 0.0]]))
    model.bias.copy_(torch.tensor([-0.5, 0.0]))
    x = torch.tensor([[0.9, 0.1, 0.4], [0.6, 0.3, 0.2]])
    y = model(x).argmax(1)
    assert run_preset(model, x, y, "fast", 0, repeats=1).distance.tolist() == [1, 1]
    assert run_peer(model, x, y, lambda model, x, y: 0.1 * x, 0, 1).distance.tolist() == [1, 1]
    assert presets(0) == ["fast", "strong"] and presets(2) == ["tibo", "fast", "strong"]


def test_recipes():
    assert all(recipe.of is None or recipe.of in RECIPES for recipe in RECIPES.values())
    x = torch.rand(2, 3)
    linear = nn.Linear(3, 2)
    torch.testing.assert_close(Scaled(linear, 1000.0)(x), 1000 * linear(x))
