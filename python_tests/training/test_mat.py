"""Where MAT starts, what it does without a gradient, and which kernels it refuses."""

import math

import pytest
import torch
from torch import nn

import robustperf as rp
from robustperf import random
from robustperf.nuisance import (
    AugMix,
    BackgroundColour,
    Brightness,
    Compose,
    Contrast,
    Decolourise,
    Fog,
    GaussianNoise,
    ImpulseNoise,
    InBounds,
    L2Ball,
    LabelAware,
    LinfBall,
    MnistC,
    OnManifold,
    Rotation,
    ShotNoise,
)
from robustperf.training import MAT
from robustperf.training.run_folder import describe  # a repr without addresses: ids are the same in each process

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4


def network(scale=1.0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    for parameter in net.parameters():
        parameter.data.mul_(scale)
    return net


def start_of(kernel, start):
    """The delta that the ascent of a flat loss does not leave."""
    return MAT(kernel, k=2, start=start).ascend(network(0.0), X, Y)


CENTRES = [  # the kernel, the centre of its Delta by hand, and the point of Delta nearest to the identity
    (Contrast((0, 4)), [2.0], [0.0]),
    (Brightness((-0.5, 1.0)), [0.25], [0.0]),
    (Brightness((1.0, 3.0)), [2.0], [1.0]),
    (Decolourise(), [0.5], [0.0]),
    (Rotation(30), [0.0], [0.0]),
    (BackgroundColour((0.25, 0.5, 0), (0.75, 1, 0.5), "corner"), [0.5, 0.75, 0.25], [0.25, 0.5, 0.0]),
    (Compose([Contrast((0, 4)), Rotation((-10, 30))]), [2.0, 10.0], [0.0, 0.0]),
    (Compose([Contrast((0, 4)), Brightness((0, 4))], shared=True), [2.0], [0.0]),
    (Compose([Contrast((0, 4)), Brightness((0, 1))], shared=True), [0.0], [-1.0]),
    (Contrast((-1, 4)).normalised(), [0.0], [-0.6]),
    (GaussianNoise(0.5), [0.0] * 192, [0.0] * 192),
    (L2Ball(0.5), [0.0] * 192, [0.0] * 192),
    (LinfBall(0.5), [0.0] * 192, [0.0] * 192),
    (Fog((0, 0.5)), [0.25] + [0.5] * 404, [0.0] * 405),
    (Compose([ImpulseNoise(0.2), Contrast((0, 4))]), [0.5] * 192 + [2.0], [0.5] * 192 + [0.0]),
    (InBounds(Contrast((0, 4)), (-1, 3)), [2.0], [0.0]),
    (InBounds(Contrast((0, 4)), (-1, 3)).normalised(), [0.0], [-1.0]),
]


@pytest.mark.parametrize("kernel, centre, identity", CENTRES, ids=[repr(case[0]) for case in CENTRES])
def test_the_ascent_starts_at_the_centre_or_at_the_identity(kernel, centre, identity):
    """A flat loss leaves delta where it started, and is no error."""
    for start, expected in (("centre", centre), ("identity", identity)):
        torch.testing.assert_close(start_of(kernel, start), torch.tensor([expected] * 6))
    assert torch.equal(MAT(kernel, 2).ascend(network(0.0), X, Y), start_of(kernel, "centre"))


def test_a_saturated_batch_is_no_error():
    """Cross-entropy of logits this large has a gradient of exactly 0 in float32."""
    net, kernel = network(1e6), Brightness((0, 1))
    labels = net((1.5 * X).clamp(max=1)).argmax(1)
    assert torch.equal(MAT(kernel, 3).ascend(net, X, labels), torch.full((6, 1), 0.5))
    black = MAT(kernel, 3).ascend(network(), torch.zeros_like(X), Y)  # G(0, delta) = 0 whatever delta
    assert torch.equal(black, torch.full((6, 1), 0.5))


def test_a_flat_loss_ends_the_ascent():
    """No further step would move delta."""
    net, evaluated = network(0.0), []
    net.register_forward_hook(lambda *_: evaluated.append(1))
    MAT(Brightness((0, 1)), k=10).ascend(net, X, Y)
    assert len(evaluated) == 1


class Steps(rp.Kernel):
    """x clamped at a third, two thirds or 1: a custom kernel that does not declare that it has no gradient."""

    def dim_for(self, shape):
        return 1

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return random.uniform(key, index, draws, 1, backend=backend)

    def transform(self, x, delta, *, backend=None):
        return x.minimum(((3 * delta).ceil() / 3)[..., None, None])


class Detached(Steps):
    def transform(self, x, delta, *, backend=None):
        return super().transform(x, delta.detach())


@pytest.mark.parametrize(
    "kernel", [Steps(), Detached(), Compose([Detached(), Detached()])], ids=["steps", "detached", "composed"]
)
def test_a_custom_kernel_without_a_gradient_is_detected(kernel):
    with pytest.raises(ValueError, match="kernel: expected one with a gradient in delta, got .*(Steps|Detached)"):
        MAT(kernel, 2).ascend(network(), X, Y)


def halves(x):
    return (x.flatten(1).mean(1) > 0.5).long()


WITHOUT = [
    ImpulseNoise(0.1), ShotNoise(), AugMix(), LabelAware(Brightness(), halves), OnManifold(X, 1.0),
    *[MnistC(name) for name in ("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "rotate",
                                "translate", "spatter", "dotted_line", "zigzag", "canny_edges", "brightness")],
    Compose([ImpulseNoise(), ShotNoise()]), Compose([MnistC("zigzag"), AugMix()]), Compose([ImpulseNoise(), AugMix()]),
    # the last kernel blocks the gradient
    Compose([Brightness(), ShotNoise()]), Compose([Brightness(), MnistC("canny_edges")]),
    Compose([Rotation(), OnManifold(X, 1.0)]), ImpulseNoise().normalised(), MnistC("translate").normalised(),
]  # fmt: skip
WITH = [
    Compose([ShotNoise(), Brightness()]), Compose([Brightness(), ImpulseNoise()]), MnistC("fog"),
    Compose([MnistC("zigzag"), Rotation()]), Compose([Brightness(), LabelAware(Brightness(), halves)]),
    Contrast().normalised(), Compose([AugMix(), Brightness()]),
]  # fmt: skip


@pytest.mark.parametrize("kernel", WITHOUT, ids=describe)
def test_kernels_without_a_gradient_are_refused_by_name(kernel):
    with pytest.raises(ValueError, match=r"kernel: expected one with a gradient in delta, got .*\w+"):
        MAT(kernel, 2)


@pytest.mark.parametrize("kernel", WITH, ids=describe)
def test_a_gradient_in_some_components_is_enough(kernel):
    x = X[:, :1].repeat(1, 1, 4, 4)[..., :28, :28]  # a size that every corruption takes
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 4))
    objective = MAT(kernel, k=2, step=5.0)
    delta, start = objective.ascend(net, x, Y), kernel.project(kernel.centre_for((1, 28, 28)).repeat(6, 1), (1, 28, 28))
    assert delta.isfinite().all() and (delta != start.to(delta)).any(1).all()


def test_only_the_start_of_the_ascent_differs():
    """The centre of a range about the identity is the identity; elsewhere the ascent sees other gradients."""
    net = network()
    for kernel, same in ((Rotation(30), True), (Brightness((0, 5)), False)):
        found = [MAT(kernel, 3, start=start).ascend(net, X, Y) for start in ("centre", "identity")]
        assert torch.equal(*found) == same


def test_one_delta_without_a_common_identity_has_no_such_start():
    kernel = Compose([Contrast((-1, 4)), Brightness((0, 1))], shared=True)
    with pytest.raises(ValueError, match="kernel: expected parts with the same identity delta"):
        MAT(kernel, start="identity").ascend(network(), X, Y)
    assert MAT(kernel).ascend(network(0.0), X, Y).abs().max() == 0


def test_an_unknown_range_starts_at_the_point_of_delta_nearest_to_0():
    class Fade(Steps):
        def transform(self, x, delta, *, backend=None):
            return x * delta[..., None, None]

        def project(self, delta, shape=None):
            return delta.clamp(0.25, 1)

    for start in ("centre", "identity"):
        assert torch.equal(start_of(Fade(), start), torch.full((6, 1), 0.25))
    assert Fade().bounds_for(None).tolist() == [[-math.inf], [math.inf]]
