"""Known models of natural variation (R section 4.1; T Examples 1 to 4): kernels that run as compiled programs, AugMix,
MNIST-C's corruptions, and kernels conditioned on an event. Unknown ones (R section 4.2): `learn` learns a kernel from
two domains, and `ModuleKernel` takes any generator.

`Compose` composes several; `InBounds` applies a kernel to images with bounds other than [0, 1]; `KERNELS` has their
names on the command line; `ball_family` is T's Q_[0,d].
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from robustperf.lazy import lazily

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustperf.kernel import Kernel
    from robustperf.nuisance.augmix import AugMix
    from robustperf.nuisance.balls import L1Ball, L2Ball, LinfBall, ball_family
    from robustperf.nuisance.bounded import InBounds
    from robustperf.nuisance.compose import Compose
    from robustperf.nuisance.conditioned import LabelAware, OnManifold
    from robustperf.nuisance.corruptions import MnistC
    from robustperf.nuisance.corruptions import MnistC as mnist_c
    from robustperf.nuisance.geometric import Affine, Rotation, Scale, Shear, Translation
    from robustperf.nuisance.learned.kernel import LearnedKernel
    from robustperf.nuisance.learned.learn import learn
    from robustperf.nuisance.learned.module_kernel import ModuleKernel
    from robustperf.nuisance.learned.paired import learn_paired
    from robustperf.nuisance.learned.quality import KernelQuality
    from robustperf.nuisance.noise import GaussianNoise, ImpulseNoise, ShotNoise
    from robustperf.nuisance.photometric import (
        BackgroundColour,
        Blur,
        Brightness,
        Contrast,
        Decolourise,
        Fog,
        Gamma,
        Hue,
        Saturation,
    )
    from robustperf.nuisance.program_kernel import ProgramKernel

    KERNELS: dict[str, Callable[..., Kernel]]
    """The class of each known kernel by its name on the command line."""

_KERNELS = {
    "affine": "Affine",
    "augmix": "AugMix",
    "background_colour": "BackgroundColour",
    "blur": "Blur",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "decolourise": "Decolourise",
    "fog": "Fog",
    "gamma": "Gamma",
    "gaussian_noise": "GaussianNoise",
    "hue": "Hue",
    "impulse_noise": "ImpulseNoise",
    "l1_ball": "L1Ball",
    "l2_ball": "L2Ball",
    "linf_ball": "LinfBall",
    "mnist_c": "MnistC",
    "rotation": "Rotation",
    "saturation": "Saturation",
    "scale": "Scale",
    "shear": "Shear",
    "shot_noise": "ShotNoise",
    "translation": "Translation",
}

NAMES = tuple(_KERNELS)
"""The names in `KERNELS`, available without importing the kernels."""

__all__ = [
    "KERNELS",
    "NAMES",
    "Affine",
    "AugMix",
    "BackgroundColour",
    "Blur",
    "Brightness",
    "Compose",
    "Contrast",
    "Decolourise",
    "Fog",
    "Gamma",
    "GaussianNoise",
    "Hue",
    "ImpulseNoise",
    "InBounds",
    "KernelQuality",
    "L1Ball",
    "L2Ball",
    "LabelAware",
    "LearnedKernel",
    "LinfBall",
    "MnistC",
    "ModuleKernel",
    "OnManifold",
    "ProgramKernel",
    "Rotation",
    "Saturation",
    "Scale",
    "Shear",
    "ShotNoise",
    "Translation",
    "ball_family",
    "learn",
    "learn_paired",
    "mnist_c",
]

_load, __dir__ = lazily(__name__, __all__, {
    "AugMix": "augmix",
    "Compose": "compose",
    "InBounds": "bounded",
    "KernelQuality": "learned.quality",
    "LearnedKernel": "learned.kernel",
    "ModuleKernel": "learned.module_kernel",
    "learn": "learned.learn",
    "learn_paired": "learned.paired",
    "ProgramKernel": "program_kernel",
    "MnistC": "corruptions",
    **dict.fromkeys(["L1Ball", "L2Ball", "LinfBall", "ball_family"], "balls"),
    **dict.fromkeys(["LabelAware", "OnManifold"], "conditioned"),
    **dict.fromkeys(["Affine", "Rotation", "Scale", "Shear", "Translation"], "geometric"),
    **dict.fromkeys(["GaussianNoise", "ImpulseNoise", "ShotNoise"], "noise"),
    **dict.fromkeys(["BackgroundColour", "Blur", "Brightness", "Contrast", "Decolourise", "Fog", "Gamma", "Hue",
                     "Saturation"], "photometric"),
})  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "mnist_c":
        return _load("MnistC")
    if name == "KERNELS":
        kernels = {known: _load(kernel) for known, kernel in _KERNELS.items()}
        setattr(sys.modules[__name__], name, kernels)
        return kernels
    return _load(name)
