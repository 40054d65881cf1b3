"""Families of kernels: their nodes, their draws, and the densities that they accept."""

import math

import pytest
import torch

import robustperf as rp
from robustperf.nuisance import Compose, L2Ball, Rotation, Translation


def rotations(density=None):
    return rp.Family(Rotation, (10, 90), density=density)


def pairs(density=None):
    return rp.Family(
        lambda angle, shift: Compose([Rotation(angle), Translation(shift)]), (10, 30), (0.1, 0.6), density=density
    )


def test_at_makes_the_kernel():
    lam = torch.tensor([20.0, 0.5], dtype=torch.float64)
    assert repr(pairs().at(lam)) == repr(Compose([Rotation(20.0), Translation(0.5)]))
    assert (pairs().dim, rotations().dim) == (2, 1)
    assert pairs().volume == pytest.approx(10) and rotations().volume == 80


def test_nodes_integrate_polynomials_exactly():
    lam, weights = rotations().nodes(5)
    assert lam.shape == (5, 1) and weights.shape == (5,) and lam.dtype == weights.dtype == torch.float64
    assert 10 < lam.min() and lam.max() < 90
    for power in range(10):
        want = (90 ** (power + 1) - 10 ** (power + 1)) / (power + 1)
        assert (weights * lam[:, 0] ** power).sum().item() == pytest.approx(want, rel=1e-12)


def test_draws_are_uniform_in_the_box():
    lam = pairs().draws(4096, key=5)
    assert lam.shape == (4096, 2) and torch.equal(lam, pairs().draws(4096, key=5))
    assert torch.equal(lam[:7], pairs().draws(7, key=5)) and not torch.equal(lam, pairs().draws(4096, key=6))
    fraction = (lam - torch.tensor([10, 0.1])) / torch.tensor([20, 0.5])
    assert 0 < fraction.min() and fraction.max() < 1
    assert (fraction.mean(0) - 0.5).abs().max() < 5 / math.sqrt(12 * 4096)
    assert abs(fraction.T.corrcoef()[0, 1]) < 5 / math.sqrt(4096)


def test_the_uniform_density():
    assert rotations().density_at(torch.full((3, 1), 20.0).double()).tolist() == [1 / 80] * 3


@pytest.mark.parametrize("density", [
    lambda lam: torch.full((len(lam),), 1 / 80),
    lambda lam: lam[:, 0] / 4000,
    lambda lam: torch.where(lam[:, 0] < 30, 1 / 20, 0.0),
    lambda lam: torch.exp(-0.5 * ((lam[:, 0] - 50) / 4) ** 2) / (4 * math.sqrt(2 * math.pi)),
])  # fmt: skip
def test_densities_of_one_variable(density):
    family = rotations(density)
    assert torch.equal(family.density_at(family.nodes(4)[0]), density(family.nodes(4)[0]).double())
    with pytest.raises(ValueError, match="density: expected an integral of 1 over the ranges, got 1.01"):
        rotations(lambda lam: 1.01 * density(lam))


def test_densities_of_two_variables():
    def density(lam):
        return lam[:, 0] / 20 * 0.1

    pairs(density)
    for factor in (0.9, 1.1, 0):
        with pytest.raises(ValueError, match="density: expected an integral of 1 over the ranges, got"):
            pairs(lambda lam, factor=factor: factor * density(lam))


def squares(side, factor=1.0):
    """The uniform density on [0, side]^2, in [0, 1]^2."""
    return rp.Family(lambda a, b: L2Ball(a + b), (0, 1), (0, 1),
                     density=lambda lam: factor * (lam < side).all(1).double() / side**2)  # fmt: skip


def test_densities_of_two_variables_that_need_more_draws():
    assert squares(0.25).dim == 2
    for factor in (0.95, 1.05):
        with pytest.raises(ValueError, match="density: expected an integral of 1 over the ranges, got"):
            squares(0.25, factor)
    for factor in (1, 1.8):
        with pytest.raises(
            ValueError,
            match=r"density: expected one whose integral 1,048,576 draws determine, "
            r"got .* \+- "
            "0.*; a smaller box around it may help",
        ):
            squares(0.01, factor)


def test_a_peak_too_narrow_for_quadrature():
    def peak(lam):
        return torch.exp(-0.5 * ((lam[:, 0] - 37.3) / 1e-4) ** 2) / (1e-4 * math.sqrt(2 * math.pi))

    with pytest.raises(ValueError, match="density: expected an integral of 1 over the ranges, got 0"):
        rotations(peak)


@pytest.mark.parametrize("value, error", [
    (lambda lam: -lam[:, 0] / 4000, "finite numbers >= 0, got -"),
    (lambda lam: lam[:, 0] * math.nan, "finite numbers >= 0, got nan at"),
    (lambda lam: lam[:, 0] * math.inf, "finite numbers >= 0, got inf at"),
    (lambda lam: lam / 4000, r"shape \[1\], got \[1, 1\]"),
])  # fmt: skip
def test_invalid_densities(value, error):
    with pytest.raises(ValueError, match=f"density: expected {error}"):
        rotations(value)


def test_ranges_given_as_texts():
    family = rp.Family(L2Ball, ("0.1", "1"))
    assert family.lower.tolist() == [0.1] and family.upper.tolist() == [1]


def test_errors():
    with pytest.raises(TypeError, match="kernel: expected a function that makes a kernel, got L2Ball"):
        rp.Family(L2Ball(1), (0, 1))
    with pytest.raises(ValueError, match="ranges: expected one or more, got none"):
        rp.Family(L2Ball)
    for wrong in ((1, 1), (2, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="ranges: expected finite lower < upper, got"):
            rp.Family(L2Ball, wrong)
    for wrong in (3, "ab", (1, 2, 3), None):
        with pytest.raises(TypeError, match=r"ranges: expected pairs \(lower, upper\), got"):
            rp.Family(L2Ball, wrong)
    with pytest.raises(TypeError, match="kernel: expected a function that makes a kernel, got one that makes float"):
        rp.Family(float, (0, 1)).at(torch.tensor([0.5]))
