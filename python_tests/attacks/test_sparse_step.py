"""The step of the fewest values against enumeration of all subsets."""

import itertools
import math

import torch

from robustperf.attacks.sparse_step import sparse_step


def fewest(x, normal, offset, lower, upper):
    pairs = enumerate(zip(x, normal, strict=True))
    gains = [max(w * (upper[i] - v), w * (lower[i] - v), 0.0) for i, (v, w) in pairs]
    for count in range(1, len(x) + 1):
        if any(sum(subset) > offset for subset in itertools.combinations(gains, count)):
            return count
    return 0


def test_all_subsets():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    normal[:5, 2] = 0.0
    x = torch.rand(40, 6, dtype=torch.float64, generator=generator)
    offset = 2 * torch.rand(40, dtype=torch.float64, generator=generator)
    lower, upper = torch.full((6,), -0.2).double(), torch.linspace(1, 1.5, 6).double()
    delta, feasible = sparse_step(x, normal, offset, lower, upper)
    counts = [
        fewest(a, w, c, lower.tolist(), upper.tolist())
        for a, w, c in zip(x.tolist(), normal.tolist(), offset.tolist(), strict=True)
    ]
    assert (delta != 0).sum(1).tolist() == counts and 0 < counts.count(1) < 40
    assert feasible.tolist() == [count > 0 for count in counts] and not feasible.all()
    assert ((normal * delta).sum(1) > offset)[feasible].all()
    assert (x + delta >= lower - 1e-12).all() and (x + delta <= upper + 1e-12).all()


def test_without_edges_one_value_is_enough():
    normal = torch.tensor([[0.5, -2.0, 1.0], [0.0, 3.0, 1.0]])
    delta, feasible = sparse_step(torch.zeros(2, 3), normal, torch.tensor([4.0, 3.0]), -math.inf, math.inf)
    torch.testing.assert_close(delta, torch.tensor([[0.0, -4.0, 0.0], [0.0, 2.0, 0.0]]))
    assert feasible.all()
    upper = torch.tensor([1.0, 1.0, math.inf])
    delta, feasible = sparse_step(torch.zeros(1, 3), normal[1:], torch.tensor([2.0]), torch.zeros(3), upper)
    torch.testing.assert_close(delta, torch.tensor([[0.0, 0.0, 4.0]]))


def test_zero_normals_reach_nothing():
    delta, feasible = sparse_step(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1), -math.inf, math.inf)
    assert not delta.any() and not feasible.any()
    delta, feasible = sparse_step(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2), 0.0, 1.0)
    assert delta.shape == (2, 0) and not feasible.any()
