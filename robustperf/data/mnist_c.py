"""MNIST-C (Mu and Gilmer 2019) as published: a folder of npy files for each of fifteen corruptions and `identity`."""

from pathlib import Path

import numpy as np

from robustperf.data.npy import read_npy

CLASSES = 10
_SIDE = 28


def read_mnist_c(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads one corruption's images and labels, such as `fog/test_images.npy` and `fog/test_labels.npy`.

    Args:
        images: the npy file of the images.
        labels: the npy file of the labels.

    Returns:
        images uint8 [N, 28, 28, 1] and integer labels [N], in MNIST's order.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not an npy file, is damaged, or has a wrong shape or dtype; the error names it. `Dataset`
            checks that labels are in 0..9.
    """
    x, y = read_npy(images), read_npy(labels)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != (_SIDE, _SIDE, 1):
        raise ValueError(
            f"{images}: expected uint8 images [N, {_SIDE}, {_SIDE}, 1], found {list(x.shape)} of {x.dtype}"
        )
    if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
        raise ValueError(f"{labels}: expected integer labels [{len(x)}], found {list(y.shape)} of {y.dtype}")
    return x, y
