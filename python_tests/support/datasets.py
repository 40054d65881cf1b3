"""Data sets in small, for the tests of readers: random images, files in the real formats, and the form of a result."""

import struct

import numpy as np
import torch

from robustperf.data import Dataset

POINTS = {"train": 7, "test": 4}
"""split -> its number of points."""


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def draw(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 of this shape [N, ...] and labels [N], the same in each call."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, shape, dtype=np.uint8), generator.integers(0, classes, shape[0])


def check_form(data: Dataset, n: int, shape: tuple[int, ...], classes: int) -> None:
    """Checks the form that every loaded data set has."""
    assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
    assert data.x.shape == (n, *shape) and data.y.shape == (n,) and len(data) == n
    assert data.x.is_contiguous()
    assert 0 <= data.x.min() and data.x.max() <= 1
    assert data.classes == classes and 0 <= data.y.min() and data.y.max() < classes
