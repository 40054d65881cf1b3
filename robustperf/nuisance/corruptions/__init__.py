"""The corruptions of MNIST-C (Mu and Gilmer 2019), batched: `MnistC` is their kernel, the modules hold the formulas.

Each formula takes images [N, C, H, W] in [0, 1] and uniforms [N, q] in [0, 1), both of one dtype, and returns images of
the same shape; an image's result does not depend on the others.
"""

from robustperf.nuisance.corruptions.mnist_c import MnistC

__all__ = ["MnistC"]
