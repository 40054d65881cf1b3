"""Margin curves against closed forms, counts by hand, dense numerical integrals and the Kolmogorov distribution."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstwo

from robustperf.robustness.margin_curve import MarginCurve

# ties, zeros, missing ones and margins beyond d are all likely
MARGINS = st.lists(st.one_of(st.floats(0, 8), st.sampled_from([0.0, 0.5, 1.0, 4.0, math.inf])), min_size=1, max_size=30)
UPPERS = st.sampled_from([0.25, 1.0, 4.0, 10.0])


def by_hand(margins, eps):
    return sum(m > eps for m in margins) / len(margins)


def midpoint_integral(curve, upper, cells=200_000):
    eps = (np.arange(cells) + 0.5) * (upper / cells)
    return curve(eps).mean() * upper


def test_a_curve_by_hand():
    curve = MarginCurve.from_margins(torch.tensor([3.0, 1.0, math.inf, 1.0]), upper=10)
    assert [curve.at(e) for e in (0, 0.5, 1, 2.5, 3, 10, 100)] == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert curve.area == (3 + 1 + 10 + 1) / 4
    assert (curve.count, curve.missing, curve.clipped, curve.median) == (4, 1, 0, 1.0)


def test_the_classifier_x_below_one_half_has_the_margin_curve_of_a_uniform_distribution():
    # T Ex. 3 on [0, 1] with p = 1 and f(x) = [x > 1/2]: margin |x - 1/2|, curve 1 - 2 eps, R = 1/4
    x = (np.arange(1000) + 0.5) / 1000
    curve = MarginCurve.from_margins(np.abs(x - 0.5), upper=1.0)
    eps = np.linspace(0, 0.5, 13)
    np.testing.assert_allclose(curve.at(eps), 1 - 2 * eps, atol=1.01e-3)
    assert curve.area == pytest.approx(0.25, abs=1e-12)


def test_margins_beyond_the_end_count_as_the_end_and_are_reported():
    curve = MarginCurve.from_margins([0.5, 2.0, 5.0, math.inf], upper=2.0)
    assert curve.area == (0.5 + 2 + 2 + 2) / 4
    assert (curve.clipped, curve.missing) == (1, 1)
    assert curve.at(3.0) == 0.5


def test_a_constant_classifier_scores_the_diameter():
    curve = MarginCurve.from_margins(torch.full((7,), math.inf), upper=28.0)
    assert curve.area == 28.0 and curve.median == math.inf and curve.missing == 7 and curve.at(math.inf) == 0


@settings(deadline=None)
@given(MARGINS, UPPERS, st.lists(st.floats(0, 12), min_size=1, max_size=5))
def test_curve_counts_points_and_area_is_the_mean_of_clipped_margins(margins, upper, eps):
    curve = MarginCurve.from_margins(margins, upper)
    assert curve.at(np.array(eps + margins)).tolist() == [by_hand(margins, e) for e in eps + margins]
    assert curve.area == pytest.approx(sum(min(m, upper) for m in margins) / len(margins), rel=1e-12, abs=1e-300)
    assert curve.missing == sum(map(math.isinf, margins))
    assert curve.clipped == sum(upper < m < math.inf for m in margins)


@settings(deadline=None)
@given(MARGINS)
def test_median_is_the_first_eps_that_at_most_half_of_the_margins_exceed(margins):
    median = MarginCurve.from_margins(margins, 1.0).median
    assert median in margins
    assert by_hand(margins, median) <= 0.5
    assert all(by_hand(margins, m) > 0.5 for m in margins if m < median)


@settings(max_examples=15, deadline=None)
@given(MARGINS, UPPERS, st.sampled_from([0.1, 0.5, 0.95, 0.999]))
def test_areas_equal_dense_numerical_integrals(margins, upper, confidence):
    curve = MarginCurve.from_margins(margins, upper)
    band = curve.band(confidence)
    low, high = band.area
    # a midpoint rule errs by less than one cell for a monotone step function
    cell = upper / 200_000
    assert curve.area == pytest.approx(midpoint_integral(curve.at, upper), abs=cell)
    assert low == pytest.approx(midpoint_integral(band.lower, upper), abs=cell)
    assert high == pytest.approx(midpoint_integral(band.upper, upper), abs=cell)
    assert 0 <= low <= curve.area + 1e-12 and curve.area <= high + 1e-12 and high <= upper + 1e-12


@settings(deadline=None)
@given(MARGINS, st.floats(0, 10))
def test_band_is_the_curve_plus_minus_half_width_within_zero_and_one(margins, eps):
    curve = MarginCurve.from_margins(margins, 4.0)
    band = curve.band(0.9)
    assert band.half_width == pytest.approx(math.sqrt(math.log(20) / (2 * len(margins))))
    assert band.lower(eps) == max(curve.at(eps) - band.half_width, 0)
    assert band.upper(eps) == min(curve.at(eps) + band.half_width, 1)


def test_band_area_by_hand():
    # two points at 1 and 3, d = 4, t = 3/4 by construction: lower 1/4 on [0, 1), 0 after; upper 1 on [0, 3), 3/4 after
    curve = MarginCurve.from_margins([1.0, 3.0], upper=4)
    band = curve.band(1 - 2 * math.exp(-2 * 2 * 0.75**2))
    assert band.half_width == pytest.approx(0.75)
    assert band.area == pytest.approx((0.25, 3.75))


@pytest.mark.parametrize("count", [5, 50, 500])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_half_width_covers_by_the_exact_distribution_and_is_not_much_too_wide(count, confidence):
    half_width = MarginCurve.from_margins(torch.rand(count), 1.0).band(confidence).half_width
    # Massart's constant is the right one in the limit, approached as 1 / sqrt(N)
    assert confidence <= kstwo.cdf(half_width, count) < confidence + 2 / math.sqrt(count) * (1 - confidence)


def test_the_band_covers_the_true_curve_at_its_confidence():
    runs, count, confidence = 1500, 40, 0.9
    draws = np.random.default_rng(7).random((runs, count))
    held = 0
    for margins in draws:
        band = MarginCurve.from_margins(margins, 1.0).band(confidence)
        # a monotone truth leaves a step band first at a jump: just before it, or at it
        before, at = np.nextafter(margins, 0), margins
        held += bool((band.upper(at) >= 1 - at).all() and (band.lower(before) <= 1 - before).all())
    truth = kstwo.cdf(band.half_width, count)
    assert held / runs == pytest.approx(truth, abs=4 * math.sqrt(truth * (1 - truth) / runs))
    assert held / runs > confidence - 3 * math.sqrt(confidence * (1 - confidence) / runs)


def test_an_object_with_distances_and_diameter_needs_no_upper():
    margins = SimpleNamespace(distance=torch.tensor([1.0, 2.0], dtype=torch.float64), diameter=5.0)
    assert MarginCurve.from_margins(margins).upper == 5.0
    assert MarginCurve.from_margins(margins, upper=1.5).area == 1.25


def test_results_are_of_the_arguments_type():
    curve = MarginCurve.from_margins(np.array([1.0, 2.0], dtype=np.float32)[::-1], upper=3)
    assert isinstance(curve.at(1.5), float)
    tensor = curve.at(torch.tensor([[0, 1], [2, 3]]).T)
    assert tensor.dtype == torch.float64 and tensor.tolist() == [[1, 0], [0.5, 0]]
    array = curve.at(np.array([[0.0, 1.0, 2.0]]))
    assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.tolist() == [[1, 0.5, 0]]
    assert curve.at(torch.tensor(0.5)).shape == () and curve.at(np.zeros((0, 2))).shape == (0, 2)
    assert curve.at([0.0, 1.0]).tolist() == [1, 0.5]


def test_distances_are_a_sorted_float64_copy():
    margins = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    curve = MarginCurve.from_margins(margins, upper=3)
    with torch.no_grad():
        margins.zero_()
    assert curve.distances.tolist() == [1, 2] and not curve.distances.requires_grad
    assert MarginCurve.from_margins([0.1], upper=1).distances.item() == 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.upper = 2.0


@pytest.mark.parametrize(
    "margins, upper, error, message",
    [
        ([1.0], None, ValueError, "upper: expected the largest distance"),
        (SimpleNamespace(distance=torch.ones(2)), None, ValueError, "upper: expected the largest distance"),
        ([1.0, math.nan], 1, ValueError, "margins: expected distances >= 0 .* got nan at position 1"),
        ([1.0, 2.0, -0.5], 1, ValueError, "margins: expected .* got -0.5 at position 2"),
        ([-math.inf], 1, ValueError, "margins: expected .* got -inf at position 0"),
        ([], 1, ValueError, r"margins: expected shape \[N\] with N >= 1, got \[0\]"),
        (torch.ones(2, 3), 1, ValueError, r"margins: expected shape .* got \[2, 3\]"),
        (torch.tensor(1.0), 1, ValueError, r"margins: expected shape .* got \[\]"),
        (torch.ones(2, dtype=torch.bool), 1, TypeError, "margins: expected real numbers, got dtype torch.bool"),
        (np.ones(2, dtype=complex), 1, TypeError, "margins: expected real numbers, got dtype torch.complex128"),
        ("abc", 1, TypeError, "margins: expected real numbers, .* got str"),
        (None, 1, TypeError, "margins: expected real numbers, .* got NoneType"),
        ([1.0], 0, ValueError, "upper: expected a finite number above 0, got 0.0"),
        ([1.0], -2, ValueError, "upper: expected a finite number above 0, got -2.0"),
        ([1.0], math.inf, ValueError, "upper: expected a finite number above 0, got inf"),
        ([1.0], math.nan, ValueError, "upper: expected a finite number above 0, got nan"),
        ([1.0], [1, 2], TypeError, "upper: expected a number"),
        ([1.0], torch.ones(2), TypeError, "upper: expected a number"),
    ],
)
def test_errors_name_the_argument_and_its_value(margins, upper, error, message):
    with pytest.raises(error, match=message):
        MarginCurve.from_margins(margins, upper)


@pytest.mark.parametrize(
    "eps, error, message",
    [
        (-0.1, ValueError, "eps: expected distances >= 0, got -0.1"),
        (torch.tensor([0.0, math.nan]), ValueError, "eps: expected distances >= 0, got nan"),
        ("x", TypeError, "eps: expected real numbers, .* got str"),
    ],
)
def test_a_wrong_eps_is_refused_by_the_curve_and_the_band(eps, error, message):
    curve = MarginCurve.from_margins([1.0], 2)
    for function in (curve.at, curve.band().lower, curve.band().upper):
        with pytest.raises(error, match=message):
            function(eps)


@pytest.mark.parametrize("confidence", [0, 1, -1, 95, math.nan])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence: expected .* got"):
        MarginCurve.from_margins([1.0], 2).band(confidence)
