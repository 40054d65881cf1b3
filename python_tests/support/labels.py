"""Classifiers that give labels only, and independent margins of theirs."""

import itertools

import numpy as np
import torch
from scipy.optimize import linprog

from robustperf import LabelOnly


class Counted:
    """A function from points to labels that counts the points it was given."""

    def __init__(self, function):
        self.function, self.count, self.points = function, 0, []

    def __call__(self, points):
        self.count += len(points)
        self.points.append(points)
        return self.function(points)


def labels_of_linear(weight, bias):
    return LabelOnly(lambda points: (points.flatten(1).to(weight.dtype) @ weight.T + bias).argmax(1), len(weight))


def halfspace_distance(x, w, c, lower, upper, norm):
    """min ‖δ‖ with ⟨w, δ⟩ >= c and lower <= x + δ <= upper, for one point in NumPy: a linear programme for the norms 1
    and inf, for 2 the bisection of the multiplier λ of δ = clip(λ w)."""
    low, high = lower - x, upper - x
    if np.where(w > 0, w * high, w * low).sum() < c:
        return np.inf
    if norm == 2:
        below, above = 0.0, 1.0
        while (w * np.clip(above * w, low, high)).sum() < c and above < 1e12:
            above *= 2
        for _ in range(200):
            middle = (below + above) / 2
            below, above = (middle, above) if (w * np.clip(middle * w, low, high)).sum() < c else (below, middle)
        return np.linalg.norm(np.clip(above * w, low, high))
    d, eye = len(x), np.eye(len(x))
    radius = np.ones((d, 1)) if norm == np.inf else eye  # one t, or one for each coordinate
    rows = np.vstack(
        [np.hstack([eye, -radius]), np.hstack([-eye, -radius]), np.hstack([-w, np.zeros(radius.shape[1])])]
    )
    limits = [*zip(low, high, strict=True), *[(0, None)] * radius.shape[1]]
    solved = linprog(
        np.r_[np.zeros(d), np.ones(radius.shape[1])], rows, np.r_[np.zeros(2 * d), -c], bounds=limits, method="highs"
    )
    return solved.fun


def linear_margins(weight, bias, x, lower, upper, norm):
    """[N], the margins of the classifier argmax W x + b."""
    z = x @ weight.T + bias
    own = z.argmax(1)
    return np.array([
        min(halfspace_distance(x[i], weight[j] - weight[own[i]], z[i, own[i]] - z[i, j], lower, upper, norm)
            for j in range(len(weight)) if j != own[i])
        for i in range(len(x))
    ])  # fmt: skip


def tree_margins(tree, x, norm, lower=0.0, upper=1.0):
    """[N], the margins of a decision tree or forest of two features: the distance to the nearest of the cells between
    all thresholds that has another label."""
    trees = getattr(tree, "estimators_", [tree])
    edges = []
    for feature in range(2):
        cuts = np.concatenate([each.tree_.threshold[each.tree_.feature == feature] for each in trees])
        edges.append(np.unique(np.r_[lower, cuts[(cuts > lower) & (cuts < upper)], upper]))
    cells = np.array([
        [a, b, c, d] for (a, b), (c, d) in itertools.product(*(itertools.pairwise(edge) for edge in edges))
    ])  # fmt: skip
    label = tree.predict(np.stack([cells[:, :2].mean(1), cells[:, 2:].mean(1)], 1))
    own = tree.predict(x)
    nearest = np.stack(
        [x[:, :1].clip(cells[:, 0], cells[:, 1]), x[:, 1:].clip(cells[:, 2], cells[:, 3])], 2
    )  # [N, cells, 2]
    distance = np.linalg.norm(nearest - x[:, None], norm, axis=2)
    return np.where(label == own[:, None], np.inf, distance).min(1)


def annulus(points):
    """1 where the norm of a point of two or more values is between 0.3 and 0.6."""
    radius = torch.linalg.vector_norm(points.flatten(1), dim=1)
    return ((radius > 0.3) & (radius < 0.6)).long()
