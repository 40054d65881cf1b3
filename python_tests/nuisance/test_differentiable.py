"""Whether a kernel has gradients in delta and in x: its flags against autograd's result."""

import pytest
import torch

from robustperf.names import CORRUPTIONS
from robustperf.nuisance import (
    KERNELS,
    BackgroundColour,
    Brightness,
    Compose,
    ImpulseNoise,
    LabelAware,
    LinfBall,
    MnistC,
    OnManifold,
    Rotation,
    ShotNoise,
)

INDEX = torch.arange(4)
ARGUMENTS = {"l1_ball": (0.5,), "l2_ball": (0.5,), "linf_ball": (0.5,), "mnist_c": ("fog",)}


def images(channels):
    return 0.1 + 0.8 * torch.rand(4, channels, 28, 28, generator=torch.Generator().manual_seed(0))


def anything(x):
    return torch.zeros(len(x), dtype=torch.int64)


EVERY = [
    *[make(*ARGUMENTS.get(name, ())) for name, make in KERNELS.items()], *map(MnistC, CORRUPTIONS),
    LabelAware(Brightness(), anything), OnManifold(images(3), 20.0), BackgroundColour(source=(0.9, 0.1, 0.1)),
    BackgroundColour.any_to_any(),
    Compose([Rotation(), ShotNoise()]), Compose([ShotNoise(), Rotation()]), Compose([ImpulseNoise(), ShotNoise()]),
    Compose([Rotation(), ImpulseNoise()]), Compose([MnistC("canny_edges"), Rotation()]),
    Compose([Rotation(), MnistC("canny_edges")]), Compose([LabelAware(Brightness(), anything), ShotNoise()]),
    Compose([MnistC("fog"), ImpulseNoise(), MnistC("zigzag")]),
    Compose([Brightness(), Brightness((0, 2))], shared=True),
    Brightness().normalised(), ImpulseNoise().normalised(), ShotNoise().normalised(), LinfBall(0.2).normalised(),
]  # fmt: skip


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: repr(kernel).replace(repr(anything), "anything"))
def test_the_flags_agree_with_autograd(kernel):
    grey = repr(kernel) == repr(BackgroundColour())
    x = images(1 if grey else 3).requires_grad_()
    delta = kernel.sample(0, INDEX, 3, shape=tuple(x.shape[1:])).requires_grad_()
    drawn = kernel(x, delta)
    in_x = in_delta = None
    if drawn.requires_grad:
        weights = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1))
        in_x, in_delta = torch.autograd.grad((drawn * weights).sum(), (x, delta), allow_unused=True)
    found = [gradient is not None and bool(gradient.any()) for gradient in (in_x, in_delta)]
    assert found == [kernel.differentiable_in_x, kernel.differentiable_in_delta]
