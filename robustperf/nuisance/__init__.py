"""Known models of natural variation (R section 4.1; T Examples 1 to 4): kernels that run as native programs, AugMix,
MNIST-C's corruptions, and kernels given an event.

`Compose` makes one of several; `InBounds` takes a kernel to images in another box than [0, 1]; `KERNELS` names them for
the command line; `ball_family` is T's Q_[0,d].
"""

from robustperf.nuisance.augmix import AugMix
from robustperf.nuisance.balls import L1Ball, L2Ball, LinfBall, ball_family
from robustperf.nuisance.bounded import InBounds
from robustperf.nuisance.compose import Compose
from robustperf.nuisance.conditioned import LabelAware, OnManifold
from robustperf.nuisance.corruptions import MnistC
from robustperf.nuisance.geometric import Affine, Rotation, Scale, Shear, Translation
from robustperf.nuisance.known import KnownKernel
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

KERNELS = {
    "affine": Affine,
    "augmix": AugMix,
    "background_colour": BackgroundColour,
    "blur": Blur,
    "brightness": Brightness,
    "contrast": Contrast,
    "decolourise": Decolourise,
    "fog": Fog,
    "gamma": Gamma,
    "gaussian_noise": GaussianNoise,
    "hue": Hue,
    "impulse_noise": ImpulseNoise,
    "l1_ball": L1Ball,
    "l2_ball": L2Ball,
    "linf_ball": LinfBall,
    "mnist_c": MnistC,
    "rotation": Rotation,
    "saturation": Saturation,
    "scale": Scale,
    "shear": Shear,
    "shot_noise": ShotNoise,
    "translation": Translation,
}
"""Every known kernel by the name that the command line has for it."""

mnist_c = MnistC

__all__ = [*sorted(kernel.__name__ for kernel in KERNELS.values()), "KERNELS", "Compose", "InBounds", "KnownKernel",
           "LabelAware", "OnManifold", "ball_family", "mnist_c"]
