"""Scale curves: slopes, and one curve at tiny sizes."""

import pytest

from benchmarks.speed import scale
from benchmarks.speed.scale import Curve, slope


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_the_slope_is_the_power(power):
    sizes = [1, 2, 4, 8]
    assert slope(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_a_curve_says_its_values_and_slope():
    curve = Curve("margins", "points", "ms", [1000, 2000], [1.0, 2.0], 1.0)
    assert str(curve) == "margins, ms by points: 1,000: 1, 2,000: 2; slope 1.00"
    memory = Curve("memory", "points", "MiB", [1000, 2000], [0.0, 2.0], None)
    assert str(memory) == "memory, MiB by points: 1,000: 0, 2,000: 2"
    two = Curve("margins", "processes", "ms", [1, 2], [3.0, 1.5], -1.0)
    assert str(two) == "margins, ms by processes: 1: 3, 2: 1.5; slope -1.00, 2.00 times as fast with 2"


@pytest.mark.parametrize("quick", [True, False])
def test_there_is_a_curve_for_each_size(quick):
    assert list(scale.curves(quick)) == ["points", "image size", "k", "threads", "processes", "memory"]


def test_image_sizes_are_measured(monkeypatch):
    monkeypatch.setattr(scale, "TURNS", 1)
    curve = scale._image_size((4, 8))
    assert curve.sizes == [16, 64] and len(curve.values) == 2 and all(value > 0 for value in curve.values)


def test_a_process_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(scale.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="a process failed"):
        scale._worker("--peak", "3")
