"""Compositions: the order of the kernels, the components of each, and a user's own kernels among them."""

import math

import pytest
import torch

from python_tests.support.kernels import Fade, Tint, gradient_of_draw
from robustperf.expression import build_sum
from robustperf.nuisance import (
    KERNELS,
    Affine,
    BackgroundColour,
    Blur,
    Brightness,
    Compose,
    Contrast,
    Fog,
    Gamma,
    GaussianNoise,
    Hue,
    ImpulseNoise,
    L2Ball,
    LinfBall,
    Rotation,
    Saturation,
    ShotNoise,
    Translation,
)

INDEX = torch.tensor([3, 0, 2**35, 8])


def images(channels):
    return torch.rand(4, channels, 9, 11, generator=torch.Generator().manual_seed(channels))


COMPOSITIONS = [
    (Compose([Rotation()]), 1),
    (Compose([Rotation(), Brightness()]), 1),
    (Compose([Brightness(), Rotation(), Blur(1.0), GaussianNoise()]), 3),
    (Compose([Fog(), Affine(outside="border"), Hue(), Saturation(), ShotNoise()]), 3),
    (Compose([Blur(1.0), Blur(0.5), Rotation(), Translation()]), 1),
    (Compose([BackgroundColour(), Hue(), ImpulseNoise()]), 1),  # noise on three channels
    (Compose([LinfBall(0.2), Brightness(), L2Ball(1.0, clamp=True)]), 3),
    (Compose([Brightness(), Contrast(), Gamma()], shared=True), 3),
    (Compose([Compose([Brightness(), Contrast()], shared=True), Rotation(), Gamma()]), 1),
    (Compose([Rotation(), Fade(), Brightness()]), 3),
    (Compose([Tint(), Hue(), Fade(), GaussianNoise()]), 1),
    (Compose([BackgroundColour(), Fade()]), 1),
    (Compose([Fade(), Fade()], shared=True), 1),
    (Compose([Brightness((0, 1)), Rotation(), Gamma((0, 2))], shared=True), 3),
]


every_composition = pytest.mark.parametrize(
    "kernel, channels", [pytest.param(*case, id=repr(case[0])) for case in COMPOSITIONS]
)


@every_composition
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_is_the_call_with_the_sample(kernel, channels, dtype):
    x = images(channels).to(dtype)
    delta = kernel.sample(5, INDEX, 3, shape=x.shape[1:])
    assert delta.shape == (3, 4, kernel.dim_for(tuple(x.shape[1:])))
    drawn = kernel.draw(x, key=5, index=INDEX, draws=3)
    assert drawn.dtype == dtype and drawn.shape == (3, 4, *kernel.shape_after(tuple(x.shape[1:])))
    assert torch.equal(drawn, kernel(x, delta))
    for k in range(3):
        assert torch.equal(kernel(x, delta[k]), drawn[k])
    out = torch.full_like(drawn, 9)
    assert kernel.draw(x, key=5, index=INDEX, draws=3, out=out) is out and torch.equal(out, drawn)


@every_composition
def test_a_draw_depends_on_key_id_and_draw_index_only(kernel, channels):
    x = images(channels)
    full = kernel.draw(x, key=1, index=INDEX, draws=4)
    order = torch.tensor([3, 0, 2, 1])
    assert torch.equal(kernel.draw(x[order], key=1, index=INDEX[order], draws=4), full[:, order])
    for b in range(4):
        one = kernel.draw(x[b : b + 1], key=1, index=INDEX[b : b + 1], draws=torch.tensor([3, 1]))
        assert torch.equal(one[:, 0], full[[3, 1], b])


@every_composition
def test_gradients_flow_through_a_draw(kernel, channels):
    x = images(channels)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    gradient, weights = gradient_of_draw(kernel, x, delta, INDEX)
    if "shot_noise" not in repr(kernel):
        assert gradient.any()
        delta.requires_grad_()
        (in_delta,) = torch.autograd.grad((kernel(x, delta) * weights).sum(), delta)
        assert in_delta.any() and in_delta.isfinite().all()


@every_composition
def test_delta_is_checked_and_projected(kernel, channels):
    x = images(channels)
    shape = tuple(x.shape[1:])
    delta = kernel.sample(1, INDEX, 2, shape=shape)
    assert torch.equal(kernel.project(delta, shape), delta)
    outside = delta + 100.0
    projected = kernel.project(outside, shape)
    kernel(x, projected)
    torch.testing.assert_close(kernel.project(projected, shape), projected, atol=1e-6, rtol=1e-6)
    assert torch.equal(kernel.project(outside[1], shape), projected[1])
    with pytest.raises(ValueError, match="delta: .* expected"):
        kernel(x, delta * math.nan)
    for wrong in (delta[..., :-1], torch.cat([delta, delta], 2)):
        with pytest.raises(ValueError, match="delta: expected shape"):
            kernel(x, wrong)


@pytest.mark.parametrize("parts", [[Rotation(), Brightness()], [Rotation(), Fade(), Brightness()]], ids=repr)
def test_projection_checks_the_shape(parts):
    kernel = Compose(parts)
    for wrong in (torch.zeros(4, kernel.dim - 1), torch.zeros(2, 4, kernel.dim + 1), torch.zeros(kernel.dim)):
        with pytest.raises(ValueError, match="delta: expected shape"):
            kernel.project(wrong)


@pytest.mark.parametrize("parts", [
    [Rotation(), Brightness()], [Brightness(), Fog(), Affine(), Gamma()], [BackgroundColour(), Hue(), Saturation()],
    [Tint(), Hue(), Fade(), Brightness()], [GaussianNoise(), Rotation(), ShotNoise()],
    [BackgroundColour(), ImpulseNoise()],
], ids=repr)  # fmt: skip
def test_each_part_has_its_own_components_side_by_side(parts):
    kernel, x = Compose(parts), images(1)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    dims, shape = [], tuple(x.shape[1:])
    for part in parts:
        dims.append(part.dim_for(shape))
        shape = part.shape_after(shape)
    assert kernel.dim_for(tuple(x.shape[1:])) == sum(dims) and kernel.shape_after(tuple(x.shape[1:])) == shape
    own = delta.split(dims, 2)
    for k in range(2):
        by_hand = x
        for part, each in zip(parts, own, strict=True):
            by_hand = part(by_hand.clamp(0, 1), each[k])
        torch.testing.assert_close(kernel(x, delta[k]), by_hand, atol=2e-6, rtol=0)
    first = parts[0].sample(1, INDEX, 2, shape=x.shape[1:])
    if not any(isinstance(part, Fade) for part in parts):
        assert torch.equal(own[0], first)  # later parts do not change the draws of the first


def test_radius():
    kernel = Compose([Tint(), Fade(), Rotation((10, 40)), Brightness(0.25), L2Ball(2.0)])
    assert kernel.radius_for((1, 9, 11)).tolist() == [*[1.0] * 5, 15.0, 0.25, *[2.0] * 297]
    assert Compose([Brightness(0.25), Gamma(0.25)], shared=True).radius_for(None).tolist() == [0.25]
    assert Compose([Fade(), Fade()], shared=True).radius_for(None).tolist() == [1.0, 1.0]


def test_equal_parts_draw_independently():
    for kernel in (
        Compose([Brightness(), Brightness()]),
        Compose([Fade(), Fade()]),
        Compose([Brightness(), Fade(), Brightness()]),
    ):
        delta = kernel.sample(0, torch.arange(200), 5).flatten(0, 1)
        correlation = torch.corrcoef(delta.T).fill_diagonal_(0)
        assert correlation.abs().max() < 6 / math.sqrt(1000)


def test_a_composition_of_one_kernel_equals_it():
    for part in (Rotation(), Fade()):
        x = images(1)
        assert torch.equal(Compose([part]).sample(4, INDEX, 2), part.sample(4, INDEX, 2))
        assert torch.equal(Compose([part]).draw(x, key=4, index=INDEX), part.draw(x, key=4, index=INDEX))


def test_the_first_kernel_is_applied_first():
    x, delta = torch.full((1, 1, 2, 2), 0.5), torch.tensor([[1.0, 1.0]])
    brighter_first, squared_first = Compose([Brightness(1), Gamma(1)]), Compose([Gamma(1), Brightness(1)])
    assert brighter_first(x, delta).unique().item() == 1.0  # (2 * 0.5)^2
    assert squared_first(x, delta).unique().item() == 0.5  # 2 * 0.5^2


@pytest.mark.parametrize(
    "parts", [[Rotation(), Brightness(), Blur(1.0), Gamma()], [Rotation(), Fade(), Gamma()]], ids=repr
)
def test_nesting_changes_nothing(parts):
    flat = Compose(parts)
    for nested in (
        Compose([Compose(parts[:2]), *parts[2:]]),
        Compose([parts[0], Compose(parts[1:])]),
        Compose([Compose([Compose(parts)])]),
    ):
        assert len(nested.parts) == len(flat.parts) and repr(nested) == repr(flat)
        x = images(3)
        assert torch.equal(nested.sample(1, INDEX, 2), flat.sample(1, INDEX, 2))
        assert torch.equal(nested.draw(x, key=1, index=INDEX, draws=2), flat.draw(x, key=1, index=INDEX, draws=2))


def test_a_users_kernel_between_known_kernels():
    kernel, x = Compose([Rotation(), Fade(), Brightness()]), images(3)
    delta = kernel.sample(1, INDEX, 2)
    assert kernel.dim == 4 and [type(part).__name__ for part in kernel.parts] == [
        "ProgramKernel",
        "Fade",
        "ProgramKernel",
    ]
    for k in range(2):
        by_hand = Brightness()(Fade()(Rotation()(x, delta[k, :, :1]), delta[k, :, 1:3]), delta[k, :, 3:])
        assert torch.equal(kernel(x, delta[k]), by_hand)


def test_a_users_kernel_may_change_the_channels():
    kernel = Compose([Tint(), Hue(), GaussianNoise()])
    assert kernel.shape_after((1, 9, 11)) == (3, 9, 11) and kernel.dim_for((1, 9, 11)) == 3 + 1 + 3 * 99
    assert kernel.draw(images(1), key=0, index=INDEX, draws=2).shape == (2, 4, 3, 9, 11)
    with pytest.raises(ValueError, match="x: tint expected grey images"):
        kernel.draw(images(3), key=0, index=INDEX)


def test_a_part_that_leaves_0_1_before_a_users_kernel():
    """Known kernels need images in [0, 1]: the error names the one that got others; clamping the ball avoids it."""
    x = images(3)
    with pytest.raises(ValueError, match=r"^brightness.*, applied to the output of other kernels: x: expected pixels"):
        Compose([LinfBall(0.3), Fade(), Brightness()]).draw(x, key=0, index=INDEX)
    clamped = Compose([LinfBall(0.3, clamp=True), Fade(), Brightness()])
    assert clamped.draw(x, key=0, index=INDEX).isfinite().all()


def test_a_part_rejects_images_of_the_previous_part():
    for parts in ([BackgroundColour(), BackgroundColour()], [Hue(), Brightness()]):
        with pytest.raises(ValueError, match="x: .* expected .* images"):
            Compose(parts).draw(images(1), key=0, index=INDEX)


@pytest.mark.parametrize(
    "kernels, error, message",
    [
        ([], ValueError, "kernels: expected one or more, got none"),
        ([Rotation(), "brightness"], TypeError, r"kernels\[1\]: expected a Kernel, got str"),
        ([Rotation], TypeError, r"kernels\[0\]: expected a Kernel, got ABCMeta"),
        (Rotation(), TypeError, "kernels: expected"),
        ([Brightness()] * 33, ValueError, "program: expected 1 to 32 steps, got 33"),
    ],
)
def test_errors(kernels, error, message):
    with pytest.raises(error, match=message):
        Compose(kernels)


def test_an_error_names_the_part_and_the_component():
    kernel, x = Compose([Rotation(), Translation(), Gamma()]), images(1)
    delta = torch.zeros(4, 4)
    delta[2, 2] = 0.2
    message = r"delta: translation expected values in \[-0.1, 0.1\], got 0.2 in component 2"
    with pytest.raises(ValueError, match=message):
        kernel(x, delta)


def test_32_steps_are_accepted_between_users_kernels():
    x = images(1)
    assert Compose([Brightness(0.01)] * 32).draw(x, key=0, index=INDEX).shape == (1, *x.shape)
    assert Compose([*[Brightness(0.01)] * 32, Fade(), Brightness()]).dim == 35


def test_repr():
    assert repr(Compose([Rotation(), Brightness()])) == "rotation((-30, 30)) + brightness((-0.4, 0.4))"
    assert repr(Compose([Rotation(), Fade(), Hue()])) == "rotation((-30, 30)) + fade + hue((-0.1, 0.1))"
    assert repr(Compose([Brightness(), Contrast()], shared=True)) == (
        "(brightness((-0.4, 0.4)) + contrast((-0.4, 0.4))) with a shared delta"
    )


@pytest.mark.parametrize(
    "kernel",
    [case[0] for case in COMPOSITIONS if "fade" not in repr(case[0]) and "shared delta" not in repr(case[0])],
    ids=repr,
)
def test_the_command_line_reads_a_repr_back(kernel):
    steps = [step for part in kernel.parts for step in part.program.steps]
    assert [each.program.steps[0] for each in build_sum(repr(kernel), KERNELS)] == steps
