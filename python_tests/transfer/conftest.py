"""The digits of scikit-learn as the tests of this folder use them."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import robustperf as rp


@pytest.fixture(scope="module")
def digits():
    """(rows [N, 64] float64 in [0, 1], labels [N])."""
    data = rp.data.load("digits", "train")
    return data.x.flatten(1).numpy().astype(np.float64), data.y.numpy()


@pytest.fixture(scope="module")
def split_digits():
    """((rows, labels) to fit an SVC on, (rows, labels) to test it on)."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    return (x[:500], y[:500]), (x[500:], y[500:])
