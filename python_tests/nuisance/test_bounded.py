"""Kernels for images with other bounds than [0, 1], against the same kernels in [0, 1]; balls in units of x."""

import math

import pytest
import torch
from torch import nn

from robustperf import Family, Score, basic_robustness
from robustperf.nuisance import (
    BackgroundColour,
    Brightness,
    Compose,
    Contrast,
    GaussianNoise,
    ImpulseNoise,
    InBounds,
    L1Ball,
    L2Ball,
    LinfBall,
    MnistC,
    Rotation,
    ShotNoise,
)

MEAN, STD = torch.tensor([0.4, 0.5, 0.3]), torch.tensor([0.2, 0.25, 0.5])
NORMALISED = (-MEAN / STD, (1 - MEAN) / STD)
INDEX = torch.arange(6)


def images():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def to_normalised(x):
    return (x - MEAN[:, None, None]) / STD[:, None, None]


@pytest.mark.parametrize(
    "kernel",
    [
        GaussianNoise(0.1),
        ImpulseNoise(0.2),
        ShotNoise(30),
        Brightness(0.4),
        Rotation(20),
        Compose([Rotation(20), GaussianNoise(0.1)]),
    ],
    ids=repr,
)
def test_images_are_mapped_to_the_unit_box_and_back(kernel):
    x, bounded = images(), InBounds(kernel, NORMALISED)
    drawn = bounded.draw(to_normalised(x), key=3, index=INDEX, draws=4)
    torch.testing.assert_close(drawn, to_normalised(kernel.draw(x, key=3, index=INDEX, draws=4)), rtol=1e-4, atol=1e-4)
    delta = bounded.sample(3, INDEX, 4, shape=(3, 8, 8))
    assert torch.equal(delta, kernel.sample(3, INDEX, 4, shape=(3, 8, 8)))
    torch.testing.assert_close(bounded(to_normalised(x), delta), drawn)
    assert bounded.dim_for((3, 8, 8)) == kernel.dim_for((3, 8, 8)) and repr(kernel) in repr(bounded)


@pytest.mark.parametrize(("ball", "norm"), [(L1Ball, 1), (L2Ball, 2), (LinfBall, math.inf)])
@pytest.mark.parametrize("bounds", [NORMALISED, (-math.inf, math.inf), (-9.0, [9.0, math.inf, 9.0])], ids=str)
def test_a_ball_is_in_the_units_of_x(ball, norm, bounds):
    x = to_normalised(images())
    drawn = InBounds(ball(0.7), bounds).draw(x, key=1, index=INDEX, draws=50)
    length = torch.linalg.vector_norm((drawn - x).flatten(2), norm, dim=2)
    assert length.max() <= 0.7 * (1 + 1e-5) and length.max() > 0.6
    delta = ball(0.7).sample(1, INDEX, 50, shape=(3, 8, 8)).unflatten(2, (3, 8, 8))
    torch.testing.assert_close(drawn, x + delta)
    clamped = InBounds(ball(0.7, clamp=True), bounds).draw(x, key=1, index=INDEX, draws=50)
    lower, upper = (torch.as_tensor(b).reshape(-1, 1, 1) for b in bounds)
    torch.testing.assert_close(clamped, (x + delta).clamp(lower, upper))


@pytest.mark.parametrize(
    "kernel",
    [Contrast((0, 4)), ImpulseNoise(0.2), MnistC("dotted_line"), MnistC("fog"), LinfBall(0.5), ShotNoise(30)],
    ids=repr,
)
def test_delta_is_the_kernels_own(kernel):
    bounded, shape = InBounds(kernel, (-1, 3)), (1, 8, 8)
    for method in ("bounds_for", "centre_for", "radius_for", "identity_for"):
        assert torch.equal(getattr(bounded, method)(shape), getattr(kernel, method)(shape))
    for name in ("differentiable_in_delta", "differentiable_in_x", "uniform", "distribution"):
        assert getattr(bounded, name) == getattr(kernel, name)
    assert bounded.ball is None  # which is of the unit cube


def test_normalised_delta_in_another_box():
    x, delta = 4 * images() - 1, torch.linspace(-1, 1, 6)[:, None]
    made = InBounds(Contrast((0, 4)), (-1, 3)).normalised()(x, delta)
    torch.testing.assert_close(made, 4 * Contrast((0, 4))((x + 1) / 4, 2 + 2 * delta) - 1, rtol=1e-5, atol=1e-5)


def test_rho_on_normalised_images():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    x, kernel = images(), GaussianNoise(0.3)
    with torch.no_grad():
        net[1].bias -= net(x).mean(0)
    plain = basic_robustness(net, x, kernel, samples=200)
    unit = lambda z: net(z * STD[:, None, None] + MEAN[:, None, None])  # noqa: E731
    found = basic_robustness(unit, to_normalised(x), InBounds(kernel, NORMALISED), samples=200)
    assert (found.agreed - plain.agreed).abs().max() <= 2 and (plain.rho < 1).any()  # of 200, by rounding


def test_scores_in_another_box():
    """T Definition 2 on the box [-1, 3]^q is that on the unit cube of the model that scales its input."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].bias -= net(torch.full((1, 1, 2, 2), 0.5))[0]
    plain = Score(Family(L2Ball, (0.05, 0.5)), nodes=4)(net, shape=(1, 2, 2), points=200, samples=50)
    wide = Family(lambda eps: InBounds(L2Ball(eps), (-1, 3)), (0.2, 2.0))
    scaled = Score(wide, nodes=4)(lambda x: net((x + 1) / 4), shape=(1, 2, 2), points=200, samples=50, bounds=(-1, 3))
    assert scaled.value == pytest.approx(plain.value, abs=2e-3) and plain.value < 0.99
    with pytest.raises(ValueError, match="bounds: expected finite"):
        Score(wide)(net, shape=(1, 2, 2), bounds=(0, math.inf))


@pytest.mark.parametrize(
    ("create", "error", "match"),
    [
        (lambda: InBounds("ball", (0, 1)), TypeError, "kernel: expected a Kernel, got str"),
        (lambda: InBounds(L2Ball(1), 1), TypeError, r"bounds: expected \(lower, upper\), two numbers or arrays, got 1"),
        (lambda: InBounds(L2Ball(1), (1, 0)), ValueError, r"bounds: expected lower < upper, got \(1, 0\)"),
        (
            lambda: InBounds(GaussianNoise(), (0, math.inf)),
            ValueError,
            "bounds: expected finite bounds for gaussian_noise",
        ),
        (
            lambda: InBounds(L2Ball(1), ([0.0] * 2, 1)).draw(images(), key=0, index=INDEX),
            ValueError,
            r"bounds: .*got \[2",
        ),
        (
            lambda: InBounds(L2Ball(1), (0, 0.5)).draw(images(), key=0, index=INDEX),
            ValueError,
            "x: expected pixels within",
        ),
        (
            lambda: InBounds(BackgroundColour(), ([0.0], [[[2.0] * 8]])).draw(images()[:, :1], key=0, index=INDEX),
            ValueError,
            "bounds: expected two numbers, not arrays, since background_colour",
        ),
    ],
)
def test_wrong_bounds(create, error, match):
    with pytest.raises(error, match=match):
        create()


def test_pixels_beyond_the_box_by_rounding():
    x = images()
    x[0, 0, 0, 0], x[1, 1, 2, 2] = -3e-8, 1 + 2e-7
    for kernel in (Brightness(0.4), GaussianNoise(), L2Ball(0.5)):
        for backend in ("native", "reference"):
            delta = kernel.sample(0, INDEX, 1, shape=(3, 8, 8))
            made = kernel(x, delta, backend=backend)
            torch.testing.assert_close(made, kernel(x.clamp(0, 1), delta, backend=backend), rtol=0, atol=0)
            drawn = kernel.draw(x, key=0, index=INDEX, backend=backend)
            torch.testing.assert_close(drawn, kernel.draw(x.clamp(0, 1), key=0, index=INDEX, backend=backend))
    with pytest.raises(ValueError, match=r"x: expected pixels within \[0, 1\], got 1.5"):
        Brightness(0.4).draw(x.index_fill(3, torch.tensor([1]), 1.5), key=0, index=INDEX)
