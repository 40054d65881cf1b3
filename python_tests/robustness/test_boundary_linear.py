"""The closest boundary of linear classifiers against closed forms, linear programs and the root of the dual."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from python_tests.support.boundary import (
    FINE,
    METHODS,
    NORMS,
    linear_case,
)
from robustperf import closest_boundary, line_search, ops


def nearest_in_box(x, w, g, norm, lower, upper):
    """min ‖δ‖ with <w, δ> >= g and x + δ in the box, by a linear program or by the root of the dual; inf if empty."""
    x, w, dim = x.numpy(), w.numpy(), len(x)
    if (np.maximum(w * (upper - x), w * (lower - x))).sum() < g:
        return math.inf
    if norm == 2:

        def step(t):
            return np.clip(x + t * w, lower, upper) - x

        high = 1.0
        while w @ step(high) < g:
            high *= 2
        return float(np.linalg.norm(step(brentq(lambda t: w @ step(t) - g, 0, high, xtol=1e-15, rtol=1e-14))))
    eye = np.eye(dim)
    if norm == math.inf:  # variables δ, t: |δ_i| <= t
        cost, bound = np.r_[np.zeros(dim), 1.0], np.ones((dim, 1))
        rows = np.block([[eye, -bound], [-eye, -bound]])
        more = 1
    else:  # variables δ, t_i: |δ_i| <= t_i
        cost = np.r_[np.zeros(dim), np.ones(dim)]
        rows = np.block([[eye, -eye], [-eye, -eye]])
        more = dim
    rows = np.vstack([rows, np.r_[-w, np.zeros(more)]])
    sides = np.r_[np.zeros(2 * dim), -g]
    limits = [(lower - v, upper - v) for v in x] + [(0, None)] * more
    solved = linprog(cost, rows, sides, bounds=limits, method="highs-ds")
    assert solved.status == 0
    return solved.fun


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifier_without_a_box(norm, method, known):
    """Two classes: the margin is g / ‖w‖ in the dual norm, and the step is 1 / overshoot."""
    model, x, labels, w, g = linear_case(0, classes=2)
    for overshoot in (1.05, 1.5, 40.0):
        delta, _ = ops.halfspace_box_projection(x, w, overshoot * g, norm=norm, lower=-1e4, upper=1e4)
        gaps = (ops.logit_gap(model(x), labels), ops.logit_gap(model(x + delta), labels)) if known else None
        search = line_search(model, x, x + delta, labels=labels, tol=FINE, method=method, gaps=gaps)
        torch.testing.assert_close(search.step, torch.full_like(g, 1 / overshoot), rtol=0, atol=1e-9)
        gaps = None if gaps is None else (gaps[0], gaps[1][None])
        found = closest_boundary(
            model, x, (x + delta)[None], norm=norm, tol=FINE, method=method, labels=labels, gaps=gaps
        )
        dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
        truth = g / torch.linalg.vector_norm(w, dual, dim=1)
        torch.testing.assert_close(found.distance, truth, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.point, x + delta / overshoot, rtol=0, atol=1e-9)
        assert (found.candidate == 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (-0.0625, 1.125)])
def test_linear_classifier_in_a_box(norm, lower, upper):
    """Two classes, box bounds active: a candidate just beyond the boundary gives the margin itself."""
    model, x, labels, w, g = linear_case(10, classes=2, count=40)
    model.bias[labels[0]] += 1.6  # far from the boundary, so that the box is active
    logits = model(x)
    labels = logits.argmax(1)
    w, g = model.weight[1 - labels] - model.weight[labels], (logits[:, 0] - logits[:, 1]).abs()
    truth = torch.tensor(
        [nearest_in_box(*row, norm, lower, upper) for row in zip(x, w, g.tolist(), strict=True)], dtype=torch.float64
    )
    free = g / torch.linalg.vector_norm(w, {1: math.inf, 2: 2, math.inf: 1}[norm], dim=1)
    assert truth.isfinite().all() and (truth > free + 1e-6).sum() >= 3  # the box is active
    for overshoot in (1 + 1e-10, 1.2):
        delta, _ = ops.halfspace_box_projection(x, w, overshoot * g, norm=norm, lower=lower, upper=upper)
        found = closest_boundary(model, x, (x + delta)[None], norm=norm, tol=FINE)
        step = g / (w * delta).sum(1)  # along this line the gap is g - step <w, δ>
        torch.testing.assert_close(
            found.distance, step * torch.linalg.vector_norm(delta, norm, dim=1), rtol=0, atol=1e-9
        )
        assert (found.distance >= truth - 1e-9).all()
        if overshoot < 1.1:
            torch.testing.assert_close(found.distance, truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifier_whose_boundary_is_outside_the_box(norm):
    model, x, _, _, _ = linear_case(10, classes=2)
    model.bias[0] += 50
    w, g = model.weight[1:] - model.weight[:1], -(model(x) @ torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert nearest_in_box(x[0], w[0], g[0].item(), norm, 0.0, 1.0) == math.inf
    delta, _ = ops.halfspace_box_projection(x, w.expand(20, -1), g, norm=norm)
    found = closest_boundary(model, x, (x + delta)[None], norm=norm)
    assert (found.distance == math.inf).all() and found.point.isnan().all() and (found.candidate == -1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_several_classes_give_the_nearest_of_the_projections(norm):
    """One candidate for each other class: the margin of a linear classifier."""
    model, x, labels, _, _ = linear_case(20, classes=5, count=30)
    logits, rows = model(x), torch.arange(30)
    candidates, truth = [], torch.full((30,), math.inf, dtype=torch.float64)
    for other in range(1, 5):
        j = (labels + other) % 5
        w, g = model.weight[j] - model.weight[labels], logits[rows, labels] - logits[rows, j]
        delta, _ = ops.halfspace_box_projection(x, w, 1.3 * g, norm=norm, lower=-1e4, upper=1e4)
        candidates.append(x + delta)
        truth = truth.minimum(g / torch.linalg.vector_norm(w, {1: math.inf, 2: 2, math.inf: 1}[norm], dim=1))
    found = closest_boundary(model, x, torch.stack(candidates), norm=norm, tol=FINE)
    torch.testing.assert_close(found.distance, truth, rtol=1e-9, atol=1e-9)
    if norm == 2:  # in the other norms candidates can share a line
        chosen = torch.stack(candidates)[found.candidate, rows] - x
        torch.testing.assert_close(found.point - x, chosen / 1.3, rtol=0, atol=1e-9)
        assert len(found.candidate.unique()) > 1
