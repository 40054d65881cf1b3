"""Every known kernel that is a program, with images that it takes."""

import pytest
import torch

from robustperf.nuisance import (
    KERNELS,
    Affine,
    BackgroundColour,
    L2Ball,
    ProgramKernel,
    Shear,
)

KNOWN = {name: make for name, make in KERNELS.items() if issubclass(make, ProgramKernel)}


RGB_ONLY = ("decolourise", "hue", "saturation")


IMAGE_WIDE = ("gaussian_noise", "impulse_noise", "l2_ball", "linf_ball", "shot_noise")


EPS = {"l2_ball": 2.0, "linf_ball": 0.3}


WIDE = (9, 11)  # images that are not square show axes that were mixed up


INDEX = torch.tensor([4, 0, 2**33, 1, 5, 2])


def images(channels, count=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(channels)
    return torch.rand(count, channels, *WIDE, generator=generator, dtype=torch.float64).to(dtype)


def cases():
    for name, make in KNOWN.items():
        kernel = make(EPS[name]) if name in EPS else make()
        for channels in (1, 3):
            if channels == 3 and name == "background_colour" or channels == 1 and name in RGB_ONLY:
                continue
            yield pytest.param(kernel, channels, id=f"{name}-{channels}")
    for kernel in (
        Affine(outside="border"),
        BackgroundColour.any_to_any(),
        L2Ball(2.0, clamp=True),
        BackgroundColour((0.1, 0.2, 0.3), (0.1, 0.4, 0.9), (0.0, 0.0, 1.0)),
        Shear(None, (5, 9)),
    ):
        yield pytest.param(kernel, 3, id=repr(kernel))


def bounds(kernel, q):
    """The lower and upper bounds of each component that the kernel was built with."""
    step = kernel.program.steps[0]
    if step.name == "fog":
        return torch.tensor([step.lower[0], *[0.0] * (q - 1)]), torch.tensor([step.upper[0], *[1.0] * (q - 1)])
    return torch.tensor(step.lower).expand(q), torch.tensor(step.upper).expand(q)


def is_box(kernel):
    return kernel.program.steps[0].name not in ("gaussian_noise", "l2_ball")


def those(wanted):
    return pytest.mark.parametrize("kernel, channels", [case for case in cases() if wanted(*case.values)])


every_kernel = those(lambda kernel, channels: True)
