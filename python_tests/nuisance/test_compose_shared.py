"""Compositions whose parts share one delta (R equation 6.1 as printed)."""

import pytest
import torch

from python_tests.nuisance.test_compose import INDEX, images
from python_tests.support.kernels import Fade, Tint
from robustperf.nuisance import (
    BackgroundColour,
    Brightness,
    Compose,
    Contrast,
    Gamma,
    GaussianNoise,
    ImpulseNoise,
    L2Ball,
    LinfBall,
    Rotation,
    Translation,
)


@pytest.mark.parametrize(
    "parts",
    [
        [Brightness(), Contrast(), Gamma()],
        [Fade(), Fade()],
        [LinfBall(0.1), LinfBall(0.1)],
        [Rotation(), Rotation(outside="border")],
    ],
    ids=repr,
)
def test_every_part_gets_the_shared_delta(parts):
    kernel, x = Compose(parts, shared=True), images(1)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    assert torch.equal(delta, parts[0].sample(1, INDEX, 2, shape=x.shape[1:])) or len(kernel.parts) > 1
    assert delta.shape[2] == parts[0].dim_for(tuple(x.shape[1:]))
    for k in range(2):
        by_hand = x
        for part in parts:
            by_hand = part(by_hand.clamp(0, 1), delta[k])
        torch.testing.assert_close(kernel(x, delta[k]).clamp(0, 1), by_hand.clamp(0, 1), atol=2e-6, rtol=0)


def test_a_shared_composition_as_a_part():
    shared = Compose([Brightness(), Contrast()], shared=True)
    kernel, x = Compose([Rotation(), shared, Gamma()]), images(1)
    assert kernel.dim == 3
    delta = kernel.sample(1, INDEX, 1)[0]
    by_hand = Gamma()(shared(Rotation()(x, delta[:, :1]), delta[:, 1:2]), delta[:, 2:])
    torch.testing.assert_close(kernel(x, delta), by_hand, atol=2e-6, rtol=0)


def test_the_gradient_of_a_shared_delta_is_the_sum():
    x, delta = images(1).double(), torch.full((4, 1), 0.1, dtype=torch.float64, requires_grad=True)
    both = Compose([Brightness(), Gamma()])
    (shared,) = torch.autograd.grad(Compose([Brightness(), Gamma()], shared=True)(x, delta).sum(), delta)
    (apart,) = torch.autograd.grad(both(x, delta.expand(4, 2)).sum(), delta)
    torch.testing.assert_close(shared, apart)


@pytest.mark.parametrize("parts", [
    [GaussianNoise(0.1), LinfBall(0.1)], [GaussianNoise(0.1), GaussianNoise(0.2)], [L2Ball(0.1), L2Ball(0.2)],
    [Rotation(), Fade()], [Fade(), Rotation()],
], ids=repr)  # fmt: skip
def test_parts_with_different_distributions_cannot_share_delta(parts):
    with pytest.raises(
        ValueError,
        match="kernels: expected parts with the same distribution of delta to share it, "
        "or with uniform distributions, got .*, where that of .* is not uniform",
    ):
        Compose(parts, shared=True)


@pytest.mark.parametrize("parts, dims", [([Fade(), Tint()], "2, 3"), ([Translation(), Rotation()], "2, 1")])
def test_parts_with_different_dims_cannot_share_delta(parts, dims):
    with pytest.raises(ValueError, match=rf"kernels: expected parts of one dim to share delta, got \[{dims}\]"):
        Compose(parts, shared=True)


def test_parts_whose_dims_differ_for_some_images_cannot_share_delta():
    kernel, x = Compose([LinfBall(0.5), BackgroundColour(), ImpulseNoise()], shared=True), images(1)
    for call in (
        lambda: kernel(x, torch.zeros(4, 99)),
        lambda: kernel.sample(0, INDEX, 1, shape=(1, 9, 11)),
        lambda: kernel.draw(x, key=0, index=INDEX),
    ):
        with pytest.raises(ValueError, match=r"kernels: expected parts of one dim to share delta, got \[99, 3, 297\]"):
            call()
