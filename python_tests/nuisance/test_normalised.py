"""Kernels with delta in [-1, 1]^q, and one delta for kernels of different ranges (R equation 6.1)."""

import math
import pickle

import pytest
import torch

from robustperf.nuisance import (
    BackgroundColour,
    Blur,
    Brightness,
    Compose,
    Contrast,
    Fog,
    Gamma,
    GaussianNoise,
    ImpulseNoise,
    L1Ball,
    L2Ball,
    LabelAware,
    LinfBall,
    MnistC,
    Rotation,
    Translation,
)

INDEX = torch.tensor([3, 0, 2**35, 8])


def images(channels=3, size=16):
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0))


KERNELS = {  # a kernel and its ranges by hand
    "brightness": (Brightness((0, 5)), [0.0], [5.0]),
    "rotation": (Rotation((-10, 30)), [-10.0], [30.0]),
    "translation": (Translation((0, 0.2), (-0.1, 0.3)), [0.0, -0.1], [0.2, 0.3]),
    "colour": (BackgroundColour((0.3, 0.2, 0), (1, 0.9, 0.7), "corner"), [0.3, 0.2, 0.0], [1.0, 0.9, 0.7]),
    "fog": (Fog((0.1, 0.7)), [0.1] + [0.0] * 404, [0.7] + [1.0] * 404),
    "ball": (LinfBall(0.3), [-0.3] * 768, [0.3] * 768),
    "impulse": (ImpulseNoise(), [0.0] * 768, [1.0] * 768),
    "corruption": (MnistC("translate"), [0.0, 0.0], [1.0, 1.0]),
    "composition": (Compose([Rotation((0, 8)), MnistC("zigzag"), Blur(1.0)]), [0.0] * 4, [8.0, 1.0, 1.0, 1.0]),
}
every_kernel = pytest.mark.parametrize("kernel, lower, upper", KERNELS.values(), ids=KERNELS)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cube_is_mapped_onto_delta(kernel, lower, upper, dtype):
    x, unit = images().to(dtype), kernel.normalised()
    shape = tuple(x.shape[1:])
    lower, upper = torch.tensor([lower, upper], dtype=torch.float64)
    torch.testing.assert_close(kernel.bounds_for(shape), torch.stack([lower, upper]), rtol=0, atol=0)
    torch.testing.assert_close(kernel.centre_for(shape), (lower + upper) / 2)
    assert unit.dim_for(shape) == len(lower) and unit.shape_after(shape) == kernel.shape_after(shape)
    assert unit.bounds_for(shape).unique().tolist() == [-1, 1] and unit.radius_for(shape).unique().item() == 1
    assert unit.centre_for(shape).count_nonzero() == 0
    below = upper - 2**-24 * (upper == 1)  # [0, 1) of the corruptions ends before 1
    for fraction in (0.0, 0.25, 0.5, 1.0):
        own = (lower + fraction * (upper - lower)).minimum(below).to(dtype)
        delta = torch.full((4, len(lower)), 2 * fraction - 1, dtype=dtype)
        torch.testing.assert_close(
            unit(x, delta), kernel(x, kernel.project(own.repeat(4, 1), shape)), atol=3e-6, rtol=0
        )


@every_kernel
def test_draws_are_those_of_the_kernel(kernel, lower, upper):
    x, unit = images(), kernel.normalised()
    shape = tuple(x.shape[1:])
    delta = unit.sample(5, INDEX, 3, shape=shape)
    assert delta.dtype == torch.float32 and delta.shape == (3, 4, len(lower)) and delta.abs().max() <= 1
    assert torch.equal(unit.draw(x, key=5, index=INDEX, draws=3), unit(x, delta))
    if isinstance(kernel, Compose):  # which draws some parts under other keys
        return
    lower, upper = torch.tensor([lower, upper], dtype=torch.float64)
    own = kernel.sample(5, INDEX, 3, shape=shape).double()
    torch.testing.assert_close((lower + (delta.double() + 1) / 2 * (upper - lower)), own, atol=3e-6, rtol=0)


def test_delta_is_uniform_in_the_cube():
    delta = Brightness((0, 5)).normalised().sample(0, torch.arange(4000), 1).flatten().sort().values
    assert ((delta + 1) / 2 - torch.linspace(0, 1, 4000)).abs().max() < 2 / math.sqrt(4000)  # Kolmogorov and Smirnov


def test_gradients_are_the_kernels_times_its_radius():
    for kernel in (Contrast((0, 4)), Rotation((-10, 30)), Compose([Gamma((0, 1)), Brightness((-0.5, 1))])):
        x, unit, q = images().double(), kernel.normalised(), kernel.dim
        delta = (0.4 * torch.rand(4, q, dtype=torch.float64) - 0.2).requires_grad_()
        own = (kernel.centre_for(None) + kernel.radius_for(None) * delta).detach().requires_grad_()
        (in_delta,) = torch.autograd.grad(unit(x, delta).square().sum(), delta)
        (in_own,) = torch.autograd.grad(kernel(x, own).square().sum(), own)
        torch.testing.assert_close(in_delta, in_own * kernel.radius_for(None))


def test_a_fixed_component():
    kernel, x = BackgroundColour((0.2, 0.5, 0), (0.6, 0.5, 1), "corner"), images()
    unit = kernel.normalised()
    delta = unit.sample(0, INDEX, 500)
    assert delta.isfinite().all() and (delta.amin((0, 1)) < -0.98).all() and (delta.amax((0, 1)) > 0.98).all()
    torch.testing.assert_close(unit(x, torch.zeros(4, 3)), kernel(x, torch.tensor([[0.4, 0.5, 0.5]]).repeat(4, 1)))
    assert unit.identity_for((3, 16, 16)).tolist() == [-1, 0, -1]


def test_delta_beyond_the_cube():
    unit, x = Brightness((0, 5)).normalised(), images()
    for wrong in (1.001, -1.001, math.nan):
        with pytest.raises(ValueError, match=r"delta: brightness.*normalised\(\) expected values in \[-1, 1\], got"):
            unit(x, torch.full((4, 1), wrong))
    assert unit.project(torch.tensor([[-3.0], [0.5], [7.0]])).flatten().tolist() == [-1, 0.5, 1]
    assert torch.equal(unit(x, torch.ones(4, 1)), Brightness((0, 5))(x, torch.full((4, 1), 5.0)))


def test_bounds_by_hand():
    """Of distributions on other sets than boxes, those of the enclosing box, or none."""
    shape = (1, 2, 2)
    for ball in (L1Ball(0.5), L2Ball(0.5), LinfBall(0.5)):
        assert ball.bounds_for(shape).tolist() == [[-0.5] * 4, [0.5] * 4]
        assert ball.radius_for(shape).tolist() == [0.5] * 4 and ball.centre_for(shape).tolist() == [0.0] * 4
    noise = GaussianNoise(0.5)
    assert noise.bounds_for(shape).tolist() == [[-math.inf] * 4, [math.inf] * 4]
    assert noise.radius_for(shape).tolist() == [1.0] * 4 and noise.centre_for(shape).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "kernel", [GaussianNoise(), L2Ball(0.1), L1Ball(0.1), Compose([Brightness(), L2Ball(0.1)])], ids=repr
)
def test_other_distributions_cannot_be_normalised(kernel):
    with pytest.raises(ValueError, match="kernel: expected one whose delta is uniform between bounds"):
        kernel.normalised()


def test_normalising_twice_changes_nothing():
    unit = Brightness((0, 5)).normalised()
    assert unit.normalised() is unit


def test_repr_and_pickle():
    unit = Brightness((0, 5)).normalised()
    assert repr(unit) == "brightness((0, 5)).normalised()"
    assert repr(Compose([Rotation(), Gamma()]).normalised()) == (
        "(rotation((-30, 30)) + gamma((-0.4, 0.4))).normalised()"
    )
    shared = Compose([Brightness((0, 5)), Contrast((0, 4))], shared=True)
    assert repr(shared) == "(brightness((0, 5)).normalised() + contrast((0, 4)).normalised()) with a shared delta"
    x = images()
    for kernel in (unit, shared):
        again = pickle.loads(pickle.dumps(kernel))
        assert repr(again) == repr(kernel)
        assert torch.equal(again.draw(x, key=1, index=INDEX, draws=2), kernel.draw(x, key=1, index=INDEX, draws=2))


def test_a_label_aware_kernel_takes_the_end_of_the_cube():
    kernel = LabelAware(Brightness(), lambda x: torch.zeros(len(x), dtype=torch.int64))
    assert kernel.normalised()(images(), torch.ones(4, 3)).isfinite().all()


SHARED = [
    [Brightness((0, 5)), Contrast((0, 4))], [Rotation(30), Brightness(0.4), Gamma((0, 1))],
    [Contrast((0, 4)), MnistC("motion_blur")], [LinfBall(0.1, clamp=True), ImpulseNoise(0.1)],
    [Compose([Rotation(), Brightness()]), Translation()],
]  # fmt: skip


@pytest.mark.parametrize("parts", SHARED, ids=repr)
def test_kernels_with_different_ranges_share_one_delta(parts):
    """R equation 6.1: G_1(G_2(x, delta), delta), each with the delta at the same relative position in its own range."""
    kernel, x = Compose(parts, shared=True), images()
    shape = tuple(x.shape[1:])
    q = parts[0].dim_for(shape)
    delta = kernel.sample(2, INDEX, 2, shape=shape)
    assert kernel.dim_for(shape) == q and delta.shape == (2, 4, q) and delta.abs().max() <= 1
    drawn = kernel.draw(x, key=2, index=INDEX, draws=2)
    assert torch.equal(drawn, kernel(x, delta))
    for k in range(2):
        by_hand = x
        for part in parts:
            own = part.centre_for(shape) + part.radius_for(shape) * delta[k]
            by_hand = part(by_hand.clamp(0, 1), part.project(own.float(), shape))
        torch.testing.assert_close(drawn[k], by_hand, atol=5e-6, rtol=0)
    assert kernel.bounds_for(shape).unique().tolist() == [-1, 1]


def test_the_gradient_of_one_delta_against_finite_differences():
    kernel, x = Compose([Brightness((0, 0.5)), Contrast((-0.5, 0.2))], shared=True), 0.6 * images().double()
    delta = torch.linspace(-0.8, 0.8, 4, dtype=torch.float64)[:, None].requires_grad_()
    weights = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((kernel(x, delta) * weights).sum(), delta)
    with torch.no_grad():
        rise = (kernel(x, delta + 1e-6) - kernel(x, delta - 1e-6)) * weights
    torch.testing.assert_close(gradient[:, 0], rise.flatten(1).sum(1) / 2e-6, rtol=1e-4, atol=1e-4)
    assert kernel.dim == 1 and kernel.normalised().dim == 1


def test_parts_with_equal_distributions_keep_their_range():
    kernel = Compose([Brightness((0, 5)), Contrast((0, 5))], shared=True)
    assert kernel.bounds_for(None).tolist() == [[0.0], [5.0]]
