"""Delta of every kernel that is a program: its dimension, samples, bounds and projection."""

import math

import pytest
import torch

from python_tests.support.program_kernels import (
    IMAGE_WIDE,
    INDEX,
    RGB_ONLY,
    WIDE,
    bounds,
    every_kernel,
    images,
    is_box,
    those,
)
from robustperf.nuisance import (
    KERNELS,
    Affine,
    BackgroundColour,
    Brightness,
    Fog,
    GaussianNoise,
    ImpulseNoise,
    L2Ball,
    LinfBall,
    Rotation,
    Translation,
)


@pytest.mark.parametrize("name, dim", [
    ("affine", 6), ("background_colour", 3), ("blur", 1), ("fog", 405), ("hue", 1), ("rotation", 1), ("shear", 1),
    ("translation", 2),
])  # fmt: skip
def test_dim(name, dim):
    kernel = KERNELS[name]()
    channels = 3 if name in RGB_ONLY else 1
    assert kernel.dim == kernel.dim_for((channels, *WIDE)) == dim


@pytest.mark.parametrize("name", IMAGE_WIDE)
def test_dim_with_a_component_for_each_value(name):
    kernel = KERNELS[name](0.5)
    assert kernel.dim_for((3, *WIDE)) == 3 * 9 * 11
    missing = f"shape: {name} has a component of delta for each value of the image: expected \\(C, H, W\\), got None"
    with pytest.raises(ValueError, match=missing):
        _ = kernel.dim
    with pytest.raises(ValueError, match=missing):
        kernel.sample(0, INDEX, 2)
    with pytest.raises(ValueError, match=missing):
        kernel.project(torch.zeros(1, 99))
    assert kernel.sample(0, INDEX, 2, shape=(1, *WIDE)).shape == (2, 6, 99)


@pytest.mark.parametrize("shape", [(8, 8), (2, 1, 8, 8), (1, -8, 8), (0, 8, 8), 64])
def test_a_wrong_shape(shape):
    with pytest.raises((TypeError, ValueError), match="shape: expected"):
        GaussianNoise().sample(0, INDEX, 2, shape=shape)


@every_kernel
def test_samples_are_in_delta_and_fill_it(kernel, channels):
    index = torch.arange(400)
    shape = (channels, *WIDE)
    delta = kernel.sample(3, index, 10, shape=shape)
    q = kernel.dim_for(shape)
    assert delta.shape == (10, 400, q) and delta.dtype == torch.float32
    kernel.check_delta(delta, shape)
    kernel.check_delta(delta.double(), shape)
    if is_box(kernel):
        lower, upper = bounds(kernel, q)
        assert (delta >= lower).all() and (delta <= upper).all()
        flat, width = delta.flatten(0, 1), upper - lower
        assert (flat.amin(0) <= lower + 0.01 * width).all() and (flat.amax(0) >= upper - 0.01 * width).all()
        # a mean of 4,000 uniforms: 5 standard deviations
        middle = (lower + upper) / 2
        assert ((flat.double().mean(0) - middle).abs() <= 5 * width / math.sqrt(12 * 4000) + 1e-6).all()


@every_kernel
def test_delta_of_another_shape(kernel, channels):
    x = images(channels)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    for wrong in (
        delta[0, 0],
        delta[..., :-1],
        delta.expand(1, *delta.shape),
        delta[:, :-1],
        torch.cat([delta, delta], 2),
    ):
        with pytest.raises(ValueError, match="delta: expected shape"):
            kernel(x, wrong)


@every_kernel
def test_nan_is_not_in_delta(kernel, channels):
    x = images(channels)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    last = delta.shape[2] - 1
    delta[1, 3, last] = math.nan
    name = kernel.program.steps[0].name
    with pytest.raises(ValueError, match=rf"delta: {name} expected .*got nan in component {last}"):
        kernel(x, delta)


@those(lambda kernel, channels: is_box(kernel))
def test_values_outside_delta_are_rejected_and_projected(kernel, channels):
    x = images(channels)
    shape = tuple(x.shape[1:])
    delta = kernel.sample(1, INDEX, 2, shape=shape)
    lower, upper = bounds(kernel, delta.shape[2])
    name = kernel.program.steps[0].name
    for component in {0, delta.shape[2] - 1}:
        for edge, beyond in ((lower, -math.inf), (upper, math.inf)):
            on = delta.clone()
            on[1, 3, component] = edge[component]
            assert torch.equal(kernel.project(on, shape), on)
            kernel(x, on)
            outside = on.clone()
            outside[1, 3, component] = torch.nextafter(edge[component], torch.tensor(beyond))
            with pytest.raises(
                ValueError,
                match=rf"delta: {name} expected values in \[.*\], got .* in component "
                rf"{component}$",
            ):
                kernel(x, outside)
            assert torch.equal(kernel.project(outside, shape), on)
            with pytest.raises(ValueError, match=f"in component {component}"):
                kernel(x, torch.full_like(on[0], beyond).where(torch.arange(on.shape[2]) == component, on[0]))


@pytest.mark.parametrize("bound", [0.1, 0.2, 0.3, 0.7, 0.9, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bounds_that_a_kernel_was_given_are_in_delta(bound, dtype):
    for kernel in (Brightness(bound), LinfBall(bound)):
        x = images(1, dtype=dtype)
        for edge in (-bound, bound):
            delta = torch.full((6, kernel.dim_for((1, *WIDE))), edge, dtype=dtype)
            kernel(x, delta)
            assert torch.equal(kernel.project(delta, (1, *WIDE)), delta)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_is_the_nearest_point(kernel, channels, dtype):
    shape = (channels, *WIDE)
    inside = kernel.sample(1, INDEX, 3, shape=shape).to(dtype)
    assert torch.equal(kernel.project(inside, shape), inside)
    middle = inside.mean((0, 1))
    outside = middle + (inside - middle) * torch.tensor([2.0, 8.0, 50.0], dtype=dtype)[:, None, None]
    projected = kernel.project(outside, shape)
    assert projected.dtype == dtype and projected.shape == outside.shape
    kernel.check_delta(projected, shape)
    torch.testing.assert_close(kernel.project(projected, shape), projected, atol=1e-6, rtol=1e-6)
    distance = (projected - outside).norm(dim=2)
    for other in inside.flatten(0, 1):
        assert (distance <= (other - outside).norm(dim=2) * (1 + 1e-5)).all()
    assert torch.equal(kernel.project(outside[1], shape), projected[1])


def test_projection_checks_the_shape():
    for wrong in (torch.zeros(3, 5), torch.zeros(2), torch.zeros(1, 1, 1, 2)):
        with pytest.raises(ValueError, match="delta: expected shape"):
            Translation().project(wrong)
    with pytest.raises(TypeError, match="delta: expected a tensor, got list"):
        Translation().project([[0.0, 0.0]])


@pytest.mark.parametrize("kernel, radius", [
    (Brightness((-0.25, 0.75)), [0.5]),
    (Rotation((10, 40)), [15.0]),
    (Affine(30, (0, 0.5), None, 8), [30.0, 0.25, 0.25, 8.0, 8.0]),
    (BackgroundColour((0, 0.5, 0.25), (1, 0.75, 0.25)), [0.5, 0.125, 0.0]),
    (Fog(0.5), [0.25, *[0.5] * 404]),
    (LinfBall(0.25), [0.25] * 99),
    (L2Ball(2.0), [2.0] * 99),
    (ImpulseNoise(), [0.5] * 99),
    (GaussianNoise(0.25), [1.0] * 99),  # unbounded
], ids=repr)  # fmt: skip
def test_radius(kernel, radius):
    found = kernel.radius_for((1, *WIDE))
    assert found.dtype == torch.float64 and found.tolist() == radius
    if len(radius) == 99:
        with pytest.raises(ValueError, match="shape: .* expected .*, got None"):
            kernel.radius_for(None)
    else:
        assert torch.equal(kernel.radius_for(None), found)


def contains_the_identity(kernel, channels):
    """Whether 0 is in Delta and documented to be the identity."""
    zero = torch.zeros(1, kernel.dim_for((channels, *WIDE)))
    documented = kernel.program.steps[0].name not in ("background_colour", "impulse_noise", "shot_noise")
    return documented and torch.equal(kernel.project(zero, (channels, *WIDE)), zero)


@those(contains_the_identity)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_changes_nothing(kernel, channels, dtype):
    zero = torch.zeros(6, kernel.dim_for((channels, *WIDE)), dtype=dtype)
    x = images(channels, dtype=dtype)
    if kernel.program.steps[0].name in ("affine", "rotation", "scale", "shear", "translation"):
        assert torch.equal(kernel(x, zero), x)
    else:
        torch.testing.assert_close(kernel(x, zero), x, atol=4 * torch.finfo(dtype).eps, rtol=0)
