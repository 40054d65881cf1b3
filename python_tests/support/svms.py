"""Kernels and data for support vector classifiers."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

KERNELS = {
    "rbf": {"gamma": 0.05, "C": 5}, "rbf, scaled": {"gamma": "scale"}, "rbf, auto": {"gamma": "auto"},
    "linear": {"kernel": "linear"}, "cubic": {"kernel": "poly", "coef0": 0.5},
    "quadratic": {"kernel": "poly", "degree": 2, "gamma": 0.1},
    "rbf, large sums": {"gamma": 0.01, "C": 100}, "cubic, large sums": {"kernel": "poly", "coef0": 1, "C": 5},
}  # fmt: skip


every_kernel = pytest.mark.parametrize("settings", KERNELS.values(), ids=KERNELS.keys())


def overlapping(classes, count=300, seed=0):
    """Points of overlapping classes, so that votes are split and tied."""
    return make_blobs(count, n_features=4, centers=classes, cluster_std=6.0, random_state=seed)


def random_labels(classes, count=300, seed=0):
    """Labels that are independent of the points, so that the one-vs-one classifiers contradict each other."""
    return overlapping(classes, count, seed)[0], np.random.default_rng(seed).integers(classes, size=count)
