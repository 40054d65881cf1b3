"""Label preservation and Proposition 6 on a problem with closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustperf import Score
from robustperf.nuisance import LinfBall, OnManifold
from robustperf.robustness import accuracy_bound, label_preservation

N = 20_000
X = ((torch.arange(N) + 0.5) / N)[:, None, None, None]  # P is uniform on [0, 1]


def true_labels(x):
    return (x[:, 0, 0, 0] > 0.5).long()


def classifier(place):
    """Label 1 beyond `place`: its accuracy is 1 - |place - 1/2|."""
    return lambda x: torch.stack([torch.zeros(len(x)), x[:, 0, 0, 0] - place], 1)


@pytest.mark.parametrize("radius, place", [(0.1, 0.5), (0.1, 0.6), (0.2, 0.55), (0.25, 0.7)])
def test_the_bound_holds_in_closed_form(radius, place):
    # x' = x + u, u uniform in ± radius: a threshold t with [t - radius, t + radius] in [0, 1] is crossed by radius / 2
    # of all pairs
    kernel, shift = LinfBall(radius), place - 0.5
    accuracy = (classifier(place)(X).argmax(1) == true_labels(X)).double().mean().item()
    assert accuracy == pytest.approx(1 - shift, abs=1e-3)
    found = label_preservation(kernel, true_labels, X, samples=2, batch_size=N)
    assert found.eps == pytest.approx(radius / 2, abs=5 * 0.5 / math.sqrt(2 * N))
    assert found.lower < radius / 2 < found.upper
    score = Score(kernel, G="empirical")(classifier(place), X, samples=2, batch_size=N)
    delta = 1 - score.value
    assert delta == pytest.approx(radius / 2, abs=5 * 0.5 / math.sqrt(2 * N))
    # on Q∘P the label is wrong where x' is between the thresholds, in the interior as likely as x
    drawn = kernel.draw(X, key=1, index=torch.arange(N))[0]
    shifted = (classifier(place)(drawn).argmax(1) == true_labels(drawn)).double().mean().item()
    assert shifted == pytest.approx(1 - shift, abs=5 * math.sqrt(0.25 / N))
    assert shifted >= accuracy_bound(accuracy, found.upper, delta)
    assert accuracy_bound(accuracy, found.eps, delta) == pytest.approx(1 - shift - radius, abs=0.02)


def law(size):
    return st.lists(st.integers(0, 5), min_size=size, max_size=size).filter(any)


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            law(n),
            st.lists(law(n), min_size=n, max_size=n),
            st.lists(st.integers(0, 2), min_size=n, max_size=n),
            st.lists(st.integers(0, 2), min_size=n, max_size=n),
        )
    )
)
def test_the_bound_holds_for_any_kernel_between_a_few_points(problem):
    """With the accuracy on Q∘P of the proof: f(x') = Y(x') for x' ~ Q(. | x), x ~ P."""
    p, q, truth, predicted = problem
    points = range(len(p))
    p = [weight / sum(p) for weight in p]
    q = [[weight / sum(row) for weight in row] for row in q]
    accuracy = sum(p[x] for x in points if predicted[x] == truth[x])
    eps = sum(p[x] * q[x][z] for x in points for z in points if truth[z] != truth[x])
    delta = sum(p[x] * q[x][z] for x in points for z in points if predicted[z] != predicted[x])
    shifted = sum(p[x] * q[x][z] for x in points for z in points if predicted[z] == truth[z])
    accuracy, eps, delta = (min(1.0, value) for value in (accuracy, eps, delta))
    assert shifted >= accuracy_bound(accuracy, eps, delta) - 1e-12


def test_the_fraction_of_each_point():
    x = torch.tensor([0.5001, 0.55, 0.9])[:, None, None, None]
    found = label_preservation(LinfBall(0.1), true_labels, x, samples=4000, confidence=0.99, batch_size=4000)
    assert found.points.label.tolist() == [1, 1, 1] and found.confidence == found.points.confidence == 0.99
    for row, truth in enumerate([0.5, 0.75, 1]):
        assert found.points.lower[row] <= truth <= found.points.upper[row]
    assert found.eps == pytest.approx(0.25, abs=0.02)
    again = label_preservation(LinfBall(0.1), true_labels, x[1:], samples=4000, index=torch.tensor([1, 2]))
    assert torch.equal(again.points.agreed, found.points.agreed[1:])


def test_points_without_a_kernel():
    found = label_preservation(OnManifold(X[:1], 0.1), true_labels, X[::4000], samples=2)
    assert all(math.isnan(value) for value in (found.eps, found.lower, found.upper))
    assert found.points.rho.isnan().tolist() == [False, True, True, True, True]


def test_errors():
    with pytest.raises(ValueError, match=r"x: expected at least one image, got shape \[0, 1, 1, 1\]"):
        label_preservation(LinfBall(0.1), true_labels, X[:0])
    with pytest.raises(TypeError, match="labeller: expected a callable, got int"):
        label_preservation(LinfBall(0.1), 3, X[:5])
    with pytest.raises(TypeError, match=r"labeller\(x\): expected torch.int64"):
        label_preservation(LinfBall(0.1), lambda x: x[:, 0, 0, 0], X[:5])
    with pytest.raises(TypeError, match="kernel: expected a Kernel"):
        label_preservation(true_labels, true_labels, X[:5])
    assert accuracy_bound(1, 0, 0) == 1 and accuracy_bound(0.5, 0.4, 0.3) == 0
    for wrong in (-0.1, 1.1, math.nan, "1", None, True):
        for name in ("accuracy", "eps", "delta"):
            with pytest.raises(ValueError, match=f"{name}: expected a number in \\[0, 1\\], got"):
                accuracy_bound(**({"accuracy": 1, "eps": 0, "delta": 0} | {name: wrong}))
