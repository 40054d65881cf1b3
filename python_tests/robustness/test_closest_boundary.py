"""The closest boundary of several candidates against exhaustive bisection."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from python_tests.support.boundary import (
    METHODS,
    NORMS,
    cnn,
    crossings,
    mlp,
    normals,
    uniforms,
)
from robustperf import closest_boundary, line_search, ops
from robustperf.robustness.search import TOL, distances

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@EXAMPLES
@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from([0, 1, 3, 8]),
    st.sampled_from(NORMS),
    st.booleans(),
    st.sampled_from(METHODS),
)
def test_what_holds_on_every_line(seed, batch, lines, dim, probes, norm, known, method):
    """Also where a line crosses many boundaries: the point is verified and on its line, and none of the steps that
    every search evaluates, the probes and the ends, is a nearer crossing."""
    net = mlp(dim, seed, gain=25.0)
    x, candidates = normals(batch, dim, seed=seed), 2 * normals(lines, batch, dim, seed=seed + 1)
    labels = net(x).argmax(1)
    gaps = (ops.logit_gap(net(x), labels), torch.stack([ops.logit_gap(net(c), labels) for c in candidates]))
    found = closest_boundary(
        net,
        x,
        candidates,
        norm=norm,
        probes=probes,
        method=method,
        **({"gaps": gaps, "labels": labels} if known else {}),
    )
    places = [torch.linspace(0, 1, probes + 2, dtype=torch.float64)[1:, None, None] * (c - x) for c in candidates]
    places = torch.stack(places)  # [A, P, B, D]
    crossed = net((x + places).flatten(0, 2)).argmax(1).view(places.shape[:3]) != labels
    lengths = torch.linalg.vector_norm(places, norm, dim=3).masked_fill(~crossed, math.inf)
    assert (found.distance <= lengths.amin((0, 1)) * (1 + 1e-12)).all()
    some = found.distance.isfinite()
    assert torch.equal(some, crossed.any(1).any(0))
    assert torch.equal(found.candidate >= 0, some)
    assert found.point[~some].isnan().all() and (found.candidate[~some] == -1).all()
    torch.testing.assert_close(torch.linalg.vector_norm(found.point - x, norm, dim=1)[some], found.distance[some])
    for b in some.nonzero()[:, 0].tolist():
        assert net(found.point[b : b + 1]).argmax(1) != labels[b]
        line, step = candidates[found.candidate[b], b] - x[b], found.point[b] - x[b]
        t = (line @ step) / (line @ line)
        assert 0 < t <= 1 + 1e-12
        torch.testing.assert_close(step, t * line, rtol=0, atol=1e-12)


def exhaustive(net, x, candidates, labels, norm):
    """[A, B]: the distance of each line's crossing by 60 bisections, one line at a time; inf where the end has not
    crossed."""
    distance = torch.full(candidates.shape[:2], math.inf, dtype=torch.float64)
    for a in range(candidates.shape[0]):
        for b in range(x.shape[0]):
            line = candidates[a, b] - x[b]
            if net(candidates[a, b][None]).argmax() == labels[b]:
                continue
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                if net((x[b] + middle * line)[None]).argmax() == labels[b]:
                    low = middle
                else:
                    high = middle
            distance[a, b] = high * torch.linalg.vector_norm(line.flatten(), norm)
    return distance


@EXAMPLES
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 7),
    st.sampled_from(NORMS),
    st.sampled_from(["none", "x", "end", "both", "some"]),
    st.sampled_from(METHODS),
    st.booleans(),
)
def test_closest_boundary_against_exhaustive_bisection(seed, batch, lines, dim, norm, known, method, convolution):
    shape = (1, 4, 4) if convolution else (dim,)
    net = cnn(seed) if convolution else mlp(dim, seed, gain=2.0)
    x, candidates = normals(batch, *shape, seed=seed), normals(lines, batch, *shape, seed=seed + 1)
    labels = net(x).argmax(1)
    gap_x, gap_end = ops.logit_gap(net(x), labels), torch.stack([ops.logit_gap(net(c), labels) for c in candidates])
    if known == "some":
        gap_end[:, ::2] = math.nan
    gaps = {"none": None, "x": (gap_x, None), "end": (None, gap_end)}.get(known, (gap_x, gap_end))
    found = closest_boundary(net, x, candidates, norm=norm, gaps=gaps, labels=labels, method=method)
    plain = (crossings(net, x, candidates) <= 1).all(0)  # points all of whose lines cross one boundary, or none
    truth, chosen = exhaustive(net, x, candidates, labels, norm).min(0)
    longest = distances(x, candidates, norm).amax(0)
    assert torch.equal(found.distance.isfinite(), truth.isfinite())
    some = plain & truth.isfinite()
    assert (found.distance[some] >= truth[some] - 1e-12).all()
    assert (found.distance[some] <= truth[some] + TOL * longest[some] + 1e-10).all()
    alone = exhaustive(net, x, candidates, labels, norm).sort(0).values
    clear = some & (alone[1] > alone[0] + 2 * TOL * longest) if lines > 1 else some
    assert torch.equal(found.candidate[clear], chosen[clear])
    point = found.point[some]
    assert (net(point).argmax(1) != labels[some]).all()
    torch.testing.assert_close(
        torch.linalg.vector_norm((point - x[some]).flatten(1), norm, dim=1),
        found.distance[some],
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_order_of_candidates_has_no_effect_and_more_of_them_are_never_worse(norm):
    net, x, candidates = mlp(5, seed=4, gain=2.0), uniforms(40, 5, seed=5), 3 * normals(6, 40, 5, seed=6)
    plain = (crossings(net, x, candidates) <= 1).all(0)
    assert plain.sum() > 10
    x, candidates = x[plain], candidates[:, plain]
    found = closest_boundary(net, x, candidates, norm=norm)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = closest_boundary(net, x, candidates[order], norm=norm)
    slack = TOL * distances(x, candidates, norm).amax(0) + 1e-10
    assert ((shuffled.distance - found.distance).abs() <= slack).all()
    fewer = closest_boundary(net, x, candidates[:2], norm=norm)
    assert (found.distance <= fewer.distance + slack).all() and (found.distance < fewer.distance - slack).any()


def test_a_line_that_is_no_nearer_is_dropped_after_one_evaluation():
    """Lines along the axes of a plane: the label changes at 0.2 on the first one and at 0.5 on the other."""
    evaluated = []

    def model(x):
        evaluated.append(x.clone())
        gap = 1 - 5 * x[:, 0] - 2 * x[:, 1]
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x, ends = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    alone = line_search(model, x, ends[0:1])
    labels = torch.tensor([0])
    gaps = (ops.logit_gap(model(x), labels), ops.logit_gap(model(ends), torch.tensor([0, 0]))[:, None])
    evaluated.clear()
    found = closest_boundary(model, x, ends[:, None], gaps=gaps, labels=labels)
    assert found.candidate.item() == 0 and found.distance.item() == pytest.approx(0.2, abs=TOL)
    on_the_other = torch.cat(evaluated)[torch.cat(evaluated)[:, 1] > 0]
    assert on_the_other.shape[0] == 1 and on_the_other[0, 1].item() == pytest.approx(0.2, abs=TOL)
    assert found.evaluations.item() == alone.evaluations.item() - 2 + 1


def test_the_norm_decides_which_is_closest():
    """A diagonal line crosses at (0.4, 0.4), one along an axis at (0.5, 0)."""

    def model(x):
        gap = torch.minimum(0.5 - x[:, 0], 0.8 - x.sum(1))
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x, ends = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[[0.6, 0.6]], [[1.0, 0.0]]], dtype=torch.float64)
    for norm, distance, candidate in [(1, 0.5, 1), (2, 0.5, 1), (math.inf, 0.4, 0), ("inf", 0.4, 0), ("2", 0.5, 1)]:
        found = closest_boundary(model, x, ends, norm=norm)
        assert found.distance.item() == pytest.approx(distance, abs=2 * TOL) and found.candidate.item() == candidate


def test_no_candidates():
    found = closest_boundary(mlp(3, seed=0), uniforms(4, 3, seed=1), torch.empty(0, 4, 3, dtype=torch.float64))
    assert found.distance.tolist() == [math.inf] * 4 and found.candidate.tolist() == [-1] * 4
    assert found.point.isnan().all()


def test_distances():
    x = torch.zeros(2, 1, 2)
    point = torch.tensor([[[[3.0, 4.0]], [[-1.0, 0.0]]]])
    assert distances(x, point, 2).tolist() == [[5, 1]]
    assert distances(x, point, 1).tolist() == [[7, 1]]
    assert distances(x, point[0], math.inf).tolist() == [4, 1]
    assert distances(x, point, 2).dtype == torch.float64
    assert distances(torch.zeros(3, 0), torch.zeros(2, 3, 0), 2).tolist() == [[0, 0, 0]] * 2
    # squares that float32 could not hold
    assert distances(torch.zeros(1, 2), torch.full((1, 2), 1e30), 2).item() == pytest.approx(2**0.5 * 1e30)
