"""The line search and the closest boundary against closed forms, linear programs and exhaustive bisection."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog
from torch import nn

from robustperf import closest_boundary, line_search, ops
from robustperf.robustness.search import TOL, distances

OP = "line_search_step"  # for the `backend` fixture
NORMS = [1, 2, math.inf]
METHODS = ["chandrupatla", "bisection"]
FINE = 2.0**-40
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def uniforms(*shape, seed):
    return torch.rand(*shape, dtype=torch.float64, generator=generator(seed))


def mlp(dim, seed, classes=4, gain=4.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(dim, 10), nn.Tanh(), nn.Linear(10, classes)).double()
    with torch.no_grad():
        net[1].weight.mul_(gain)
    return net.requires_grad_(False)


def cnn(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 4)).double()
    return net.requires_grad_(False)


def threshold(*crossings):
    """A model of one pixel that changes its label at each of the crossings."""

    def model(x):
        side = torch.ones(x.shape[0], dtype=x.dtype)
        for crossing in crossings:
            side = side * (crossing - x.flatten(1)[:, 0])
        return torch.stack([side, torch.zeros_like(side)], 1)

    return model


def segment(count=1):
    """x = 0 and x' = 1, one pixel each."""
    return torch.zeros(count, 1, dtype=torch.float64), torch.ones(count, 1, dtype=torch.float64)


def linear_case(seed, dim=6, classes=3, count=20):
    """(model, x in [0, 1], labels, w [B, D] and g [B] of the runner-up: g - <w, δ> is the gap to it)."""
    model = nn.Linear(dim, classes, dtype=torch.float64).requires_grad_(False)
    model.weight.copy_(normals(classes, dim, seed=seed))
    model.bias.copy_(0.3 * normals(classes, seed=seed + 1))
    x = uniforms(count, dim, seed=seed + 2)
    top = model(x).topk(2, dim=1)
    labels, other = top.indices.T.contiguous()
    return model, x, labels, model.weight[other] - model.weight[labels], top.values[:, 0] - top.values[:, 1]


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


# Closed forms


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifier_without_a_box(norm, method, known):
    """Two classes: the margin is g / ‖w‖ in the dual norm, and the step is what the overshoot leaves of the line."""
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
    """Two classes, box bounds active: a candidate a hair beyond the boundary gives the margin itself."""
    model, x, labels, w, g = linear_case(10, classes=2, count=40)
    model.bias[labels[0]] += 1.6  # far from the boundary, so that the box is in the way
    logits = model(x)
    labels = logits.argmax(1)
    w, g = model.weight[1 - labels] - model.weight[labels], (logits[:, 0] - logits[:, 1]).abs()
    truth = torch.tensor(
        [nearest_in_box(*row, norm, lower, upper) for row in zip(x, w, g.tolist(), strict=True)], dtype=torch.float64
    )
    free = g / torch.linalg.vector_norm(w, {1: math.inf, 2: 2, math.inf: 1}[norm], dim=1)
    assert truth.isfinite().all() and (truth > free + 1e-6).sum() >= 3  # the box matters
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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [1e-7, 0.1, 0.25, 0.5, 0.7734, 1 - 1e-7])
@pytest.mark.parametrize(
    "bend",
    [
        lambda t: t,
        lambda t: t**3,
        lambda t: t.sign() * t.abs().sqrt(),
        lambda t: t.sign(),
        lambda t: (20 * t).expm1(),
        lambda t: 1e-200 * t,
    ],
    ids=["line", "cube", "root", "step", "exp", "tiny"],
)
def test_gaps_of_every_form(method, place, bend):
    """One crossing at a known place, whatever the gap looks like around it; the search ends in a bounded time."""

    def model(x):
        gap = bend(place - x[:, 0])
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x, x_adv = segment()
    found = line_search(model, x, x_adv, method=method)
    # a gap within the rounding allowance of zero has not crossed; with logits (gap, 0) the allowance is relative
    assert found.crossed.all()
    assert place <= found.step.item() <= place + TOL
    assert found.evaluations.item() <= 2 + 3 * 20
    assert found.point.item() == found.step.item()
    assert model(found.point).argmax(1).item() == 1


def test_the_methods_agree_and_interpolation_looks_less():
    net, x, x_adv = mlp(6, seed=1), uniforms(60, 6, seed=2), uniforms(60, 6, seed=3)
    single = crossings(net, x, x_adv[None])[0] == 1
    fast, slow = (line_search(net, x[single], x_adv[single], method=method) for method in METHODS)
    assert single.sum() > 10 and fast.crossed.all() and slow.crossed.all()
    torch.testing.assert_close(fast.step, slow.step, rtol=0, atol=TOL)
    assert (slow.evaluations == 22).all()
    assert fast.evaluations.double().mean() < 10


@pytest.mark.parametrize("tol", [0.9, 0.5, 0.1, 2**-10, 2**-20, 2**-30, 2**-45])
@pytest.mark.parametrize("method", METHODS)
def test_tol_is_the_width_of_the_bracket(tol, method):
    x, x_adv = segment()
    found = line_search(threshold(0.3), x, x_adv, tol=tol, method=method)
    assert 0.3 <= found.step.item() <= 0.3 + tol * (1 + 1e-12)
    found = line_search(lambda x: threshold(0.3)(x) ** 3, x, x_adv, tol=tol, method=method)
    assert 0.3 <= found.step.item() <= 0.3 + tol * (1 + 1e-12) + 1e-4  # a cube's gap is rounding near its root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_tol_beyond_the_images_precision(dtype, method):
    """The bracket of steps closes also where no images lie between its ends."""
    x, x_adv = (end.to(dtype) for end in segment())
    found = line_search(threshold(0.3), x, x_adv, tol=2.0**-60, method=method)
    assert found.crossed.all() and found.step.item() == pytest.approx(0.3, abs=4 * torch.finfo(dtype).eps)
    assert threshold(0.3)(found.point).argmax() == 1 and found.evaluations.item() < 200


# Several crossings


def crossings(net, x, candidates, points=300):
    """[A, B]: how often the label changes along each line, on a fine grid."""
    steps = torch.linspace(0, 1, points + 1, dtype=x.dtype)
    same = []
    for ends in candidates:
        grid = torch.stack([x + t * (ends - x) for t in steps])
        same.append((net(grid.flatten(0, 1)).argmax(1).view(points + 1, -1) == net(x).argmax(1)).int())
    return torch.stack([(s.diff(dim=0) != 0).sum(0) for s in same])


@pytest.mark.parametrize("method", METHODS)
def test_probes_find_the_first_of_several_crossings(method):
    """Label 0, then 1 from 0.21 to 0.38, 0 to 0.6, 1 to 0.72, 0 to 0.9, and 1."""
    x, x_adv = segment()
    model = threshold(0.21, 0.38, 0.6, 0.72, 0.9)
    for probes in (7, 9, 99):
        found = line_search(model, x, x_adv, probes=probes, method=method)
        assert 0.21 <= found.step.item() <= 0.21 + TOL
    # 3 probes: 0.25 lies in the first; 1 probe: 0.5 has the old label, the end has another: a crossing between them
    assert line_search(model, x, x_adv, probes=3, method=method).step.item() == pytest.approx(0.21, abs=TOL)
    assert 0.5 < line_search(model, x, x_adv, probes=1, method=method).step.item()
    # without the end's help
    even = threshold(0.21, 0.38)
    assert not line_search(even, x, x_adv, method=method).crossed.any()
    assert line_search(even, x, x_adv, probes=3, method=method).step.item() == pytest.approx(0.21, abs=TOL)
    known = (None, ops.logit_gap(even(x_adv), torch.tensor([0])))
    assert known[1].item() > 0
    assert line_search(even, x, x_adv, probes=3, method=method, gaps=known).step.item() == pytest.approx(0.21, abs=TOL)


def test_probes_look_from_the_near_end_on_and_stop_at_the_first_crossing():
    seen = []

    def model(x):
        seen.extend(x[:, 0].tolist())
        return threshold(0.55, 0.65)(x)

    x, x_adv = segment()
    line_search(model, x, x_adv, probes=4)
    assert seen[:4] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert all(0.4 < place < 0.6 for place in seen[4:])
    seen.clear()
    found = line_search(model, x, x_adv, probes=1)
    assert seen == pytest.approx([0.0, 0.5, 1.0]) and not found.crossed.any() and found.evaluations.item() == 3


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
    """Also where a line crosses many boundaries: a verified point on its line, and none of the places that every
    search looks at, the probes and the ends, is crossed and nearer."""
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


# The ensemble


def exhaustive(net, x, candidates, labels, norm):
    """[A, B]: the distance of the crossing on each line by 60 halvings, a line at a time; inf where the end is not."""
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
def test_the_order_of_the_candidates_plays_no_part_and_more_of_them_never_harm(norm):
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


def test_a_line_that_is_no_nearer_is_dropped_after_one_look():
    """Lines along the axes of a plane: the label changes at 0.2 on the first one and at 0.5 on the other."""
    seen = []

    def model(x):
        seen.append(x.clone())
        gap = 1 - 5 * x[:, 0] - 2 * x[:, 1]
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x, ends = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    alone = line_search(model, x, ends[0:1])
    labels = torch.tensor([0])
    gaps = (ops.logit_gap(model(x), labels), ops.logit_gap(model(ends), torch.tensor([0, 0]))[:, None])
    seen.clear()
    found = closest_boundary(model, x, ends[:, None], gaps=gaps, labels=labels)
    assert found.candidate.item() == 0 and found.distance.item() == pytest.approx(0.2, abs=TOL)
    on_the_other = torch.cat(seen)[torch.cat(seen)[:, 1] > 0]
    assert on_the_other.shape[0] == 1 and on_the_other[0, 1].item() == pytest.approx(0.2, abs=TOL)
    assert found.evaluations.item() == alone.evaluations.item() - 2 + 1


def test_the_norm_decides():
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


# What is returned is so


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("probes", [0, 5])
def test_points_are_verified_one_by_one_and_in_any_batch(dtype, method, probes):
    """Another label alone, in the whole batch and in parts; a step of `tol` back it is the old one, up to the
    rounding allowance."""
    torch.manual_seed(0)
    net = (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
        )
        .to(dtype)
        .requires_grad_(False)
    )
    net[5].weight.mul_(4)
    x, x_adv = (2 * normals(50, 3, 8, 8, seed=seed).to(dtype) for seed in (1, 2))
    found = line_search(net, x, x_adv, method=method, probes=probes)
    labels = net(x).argmax(1)
    assert found.crossed.sum() > 20 and found.point.dtype == dtype and found.step.dtype == torch.float64
    if probes == 0:
        assert torch.equal(found.crossed, net(x_adv).argmax(1) != labels)
    x, x_adv, labels, point, step = (v[found.crossed] for v in (x, x_adv, labels, found.point, found.step))
    alone = torch.cat([net(image[None]) for image in point])
    assert (alone.argmax(1) != labels).all()
    assert (net(point).argmax(1) != labels).all()
    assert (torch.cat([net(part) for part in point.split(7)]).argmax(1) != labels).all()
    assert (ops.logit_gap(net(point), labels) < 1e-5).all()
    t = step.to(dtype)[:, None, None, None]
    torch.testing.assert_close(point, x + t * (x_adv - x), rtol=0, atol=8 * torch.finfo(dtype).eps)
    single = crossings(net, x, x_adv[None], points=100)[0] == 1
    t = (step - TOL).to(dtype)[:, None, None, None]
    below = net(x + t * (x_adv - x))[single]
    scale = below.abs().amax(1).double()
    assert single.sum() > 15
    assert (ops.logit_gap(below, labels[single]) >= -32 * torch.finfo(dtype).eps * scale).all()


def test_points_that_do_not_cross_and_points_that_do_not_move():
    x, x_adv = segment(4)
    x_adv[1] = 0.2  # not adversarial
    x_adv[2] = 0.0  # x itself
    for known in (None, (None, torch.tensor([-0.7, 0.1, 0.3, math.nan], dtype=torch.float64))):
        for probes in (0, 3):
            found = line_search(threshold(0.3), x, x_adv, gaps=known, probes=probes)
            assert found.crossed.tolist() == [True, False, False, True]
            assert found.step[1:3].tolist() == [math.inf, math.inf] and found.point[1:3].isnan().all()
            assert found.step[[0, 3]].tolist() == pytest.approx([0.3, 0.3], abs=TOL)
            assert found.evaluations[2] == 1  # where there is no line, there is nothing to look at but x
            nearest = closest_boundary(threshold(0.3), x, x_adv[None], probes=probes)
            assert nearest.distance[1:3].tolist() == [math.inf, math.inf] and nearest.point[1:3].isnan().all()
            assert nearest.candidate.tolist() == [0, -1, -1, 0]


def test_misclassified_points_have_no_margin():
    x, x_adv = segment(3)
    x[1] = 0.5
    labels = torch.zeros(3, dtype=torch.int64)  # the model's label of the second is 1
    for gaps in (None, (ops.logit_gap(threshold(0.3)(x), labels), None)):
        found = line_search(threshold(0.3), x, x_adv, labels=labels, gaps=gaps)
        assert found.step[1] == 0 and torch.equal(found.point[1], x[1]) and found.crossed.all()
        assert found.evaluations[1] == (1 if gaps is None else 0)
        assert found.step[[0, 2]].tolist() == pytest.approx([0.3, 0.3], abs=TOL)
        nearest = closest_boundary(threshold(0.3), x, torch.stack([x_adv, x - 1]), labels=labels, gaps=gaps)
        assert nearest.distance[1] == 0 and torch.equal(nearest.point[1], x[1])
        assert nearest.candidate.tolist() == [0, -1, 0]
    assert not line_search(threshold(0.3), x, x_adv).crossed[1]  # by its own label it does not cross


def test_a_point_misclassified_by_less_than_rounding():
    """Wrong by one unit in the last place: its margin is 0 all the same."""

    def model(x):
        return torch.stack([torch.ones_like(x[:, 0]), torch.full_like(x[:, 0], 1 + 2**-52)], 1)

    x, x_adv = segment()
    found = line_search(model, x, x_adv, labels=torch.tensor([0]))
    assert found.step.item() == 0 and found.evaluations.item() == 1


def test_a_tie_is_no_crossing():
    """Equal logits at x', or a difference within rounding: not another label for sure."""
    x, x_adv = segment()
    for other in (1.0, 1 + 2**-51):

        def model(x, other=other):
            return torch.stack([1 + (1 - x[:, 0]), torch.full_like(x[:, 0], other)], 1)

        assert not line_search(model, x, x_adv).crossed.any()


def test_nan_logits_at_x_name_the_points():
    def model(x):
        return threshold(0.3)(x).masked_fill(x > 2, math.nan)

    x, x_adv = segment(5)
    x[[1, 4]] = 3.0
    with pytest.raises(ValueError, match=r"NaN logits for 2 of 5 points, the first at \[1, 4\]"):
        line_search(model, x, x_adv)
    with pytest.raises(ValueError, match=r"NaN logits for 2 of 5 points"):
        closest_boundary(model, x, x_adv[None], labels=torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hole", [(0.1, 0.2), (0.25, 0.35), (0.28, 0.8), (0.45, 0.55), (0.0, 0.999), (0.9, 1.0)])
def test_nan_logits_on_the_way_still_give_a_verified_point(method, hole):
    """Label 0 up to 0.3, label 1 beyond it, and no answer at all strictly within the hole."""
    nan_at = []

    def model(x):
        inside = (x > hole[0]) & (x < hole[1])
        nan_at.extend(x[inside].tolist())
        return threshold(0.3)(x).masked_fill(inside, math.nan)

    x, x_adv = segment()
    for probes in (0, 9):
        found = line_search(model, x, x_adv, method=method, probes=probes)
        logits = threshold(0.3)(found.point)
        assert found.crossed.all() and logits.argmax() == 1 and not hole[0] < found.point.item() < hole[1]
        assert found.evaluations.item() <= 12 + 3 * 20
        assert 0.3 <= found.step.item() <= max(0.3, hole[1]) + TOL  # no answer counts as the old label
    assert nan_at or method == "chandrupatla" or not hole[0] < 0.5 < hole[1]
    # where x' itself gives no answer, nothing is promised to cross there
    lost = line_search(lambda x: threshold(0.3)(x).masked_fill(x > 0.4, math.nan), x, x_adv, method=method)
    assert not lost.crossed.any() and lost.point.isnan().all()


def test_infinite_logits():
    """-inf for the other class and for the label's own are answers like others."""

    def model(x):
        gap = torch.where(x[:, 0] < 0.3, math.inf, -math.inf)
        return torch.stack([torch.zeros_like(gap), -gap], 1)

    x, x_adv = segment()
    for method in METHODS:
        found = line_search(model, x, x_adv, method=method)
        assert 0.3 <= found.step.item() <= 0.3 + TOL


@pytest.mark.parametrize("answer", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_another_precision_than_the_images(dtype, answer):
    x, x_adv = (end.to(dtype) for end in segment(3))
    found = line_search(lambda x: threshold(0.25)(x).to(answer), x, x_adv)
    assert found.point.dtype == dtype and found.crossed.all()
    # logits (gap, 0): the allowance is 32 eps |gap|, below |gap| itself
    assert found.step.tolist() == pytest.approx([0.25] * 3, abs=2e-6)


# Evaluations


class Tagged(nn.Module):
    """Counts what it saw of each point: its first pixel is the point's number, the same all along the lines."""

    def __init__(self, net, count):
        super().__init__()
        self.net, self.seen = net, [0] * count

    def forward(self, x):
        for tag in x.flatten(1)[:, 0].tolist():
            self.seen[int(tag)] += 1
        return self.net(x.flatten(1)[:, 1:])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("probes", [0, 4])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lines", [1, 4])
def test_evaluations_are_the_images_that_the_model_saw(lines, method, probes, known):
    count = 25
    model = Tagged(mlp(5, seed=8, gain=8.0), count)
    x, candidates = uniforms(count, 6, seed=9), 2 * normals(lines, count, 6, seed=10)
    x[:, 0] = candidates[:, :, 0] = torch.arange(count, dtype=torch.float64)
    candidates[0, 3] = x[3]
    labels = model.net(x[:, 1:]).argmax(1)
    labels[5] = (labels[5] + 1) % 4
    gaps = None
    if known:
        gaps = (
            ops.logit_gap(model.net(x[:, 1:]), labels),
            torch.stack([ops.logit_gap(model.net(c[:, 1:]), labels) for c in candidates]),
        )
    found = closest_boundary(model, x, candidates, labels=labels, gaps=gaps, method=method, probes=probes)
    assert found.evaluations.tolist() == model.seen and found.evaluations.dtype == torch.int64
    assert len(set(model.seen)) > 1
    if lines == 1:
        model.seen = [0] * count
        gaps = None if gaps is None else (gaps[0], gaps[1][0])
        found = line_search(model, x, candidates[0], labels=labels, gaps=gaps, method=method, probes=probes)
        assert found.evaluations.tolist() == model.seen


@pytest.mark.parametrize("method", METHODS)
def test_known_gaps_save_looks(method):
    net, x, x_adv = mlp(6, seed=1), uniforms(40, 6, seed=2), uniforms(40, 6, seed=3)
    labels = net(x).argmax(1)
    gap_x, gap_end = ops.logit_gap(net(x), labels), ops.logit_gap(net(x_adv), labels)
    plain, both, far, near = (
        line_search(net, x, x_adv, labels=labels, method=method, gaps=gaps)
        for gaps in (None, (gap_x, gap_end), (None, gap_end), (gap_x, None))
    )
    for found in (both, far, near):
        torch.testing.assert_close(found.step, plain.step, rtol=0, atol=0)
        assert torch.equal(found.crossed, plain.crossed)
    assert (both.evaluations == plain.evaluations - 2).all() and (both.evaluations[~both.crossed] == 0).all()
    assert (far.evaluations == plain.evaluations - 1).all() and (near.evaluations == plain.evaluations - 1).all()


def test_pruning_looks_less_than_searching_every_line():
    net, x, candidates = mlp(6, seed=1), uniforms(40, 6, seed=2), uniforms(5, 40, 6, seed=3)
    every = sum(line_search(net, x, ends).evaluations for ends in candidates)
    found = closest_boundary(net, x, candidates)
    assert found.evaluations.sum() < 0.7 * every.sum()


# Backends


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("probes", [0, 3])
def test_backends_agree_exactly(backend, device, dtype, method, probes):
    net = mlp(7, seed=11, gain=10.0).to(device, dtype)
    x, candidates = normals(40, 7, seed=12).to(device, dtype), normals(4, 40, 7, seed=13).to(device, dtype)
    candidates[1, 3] = x[3]
    for tol, norms in ((2.0**-10, [1]), (2.0**-20, NORMS), (2.0**-40, [2])):
        for norm in norms:
            ours, reference = (
                closest_boundary(net, x, candidates, norm=norm, tol=tol, method=method, probes=probes, backend=name)
                for name in (backend, "reference")
            )
            assert torch.equal(ours.distance, reference.distance)
            assert torch.equal(ours.candidate, reference.candidate)
            assert torch.equal(ours.evaluations, reference.evaluations)
            assert torch.equal(ours.point.nan_to_num(7), reference.point.nan_to_num(7))
        ours, reference = (
            line_search(net, x, candidates[0], tol=tol, method=method, probes=probes, backend=name)
            for name in (backend, "reference")
        )
        assert torch.equal(ours.step, reference.step) and torch.equal(ours.evaluations, reference.evaluations)
        assert torch.equal(ours.point.nan_to_num(7), reference.point.nan_to_num(7))


def test_backends_agree_next_to_the_far_end(backend, device):
    """A step that rounds to 1 in the images' precision: x' itself on every backend, where x + (x' - x) is not x'."""
    x = torch.rand(64, 1, generator=generator(0)).to(device)
    x_adv = 1000 * torch.rand(64, 1, generator=generator(1)).to(device) ** 4 - 1e-3
    uneven = ((x + (x_adv - x)) != x_adv)[:, 0]
    assert uneven.sum() > 3
    x, x_adv = x[uneven], x_adv[uneven]

    def model(points):  # x' alone has another label
        there = (points[:, :1] == x_adv.T).any(1).float()
        return torch.stack([1 - 2 * there, torch.zeros_like(there)], 1)

    found = line_search(model, x, x_adv, tol=2.0**-40, backend=backend)
    reference = line_search(model, x, x_adv, tol=2.0**-40, backend="reference")
    assert torch.equal(found.point, x_adv) and torch.equal(reference.point, x_adv)
    assert torch.equal(found.step, reference.step) and torch.equal(found.evaluations, reference.evaluations)


def test_unknown_backend():
    x, x_adv = segment()
    with pytest.raises(ValueError, match="backend: "):
        line_search(threshold(0.3), x, x_adv, backend="abacus")


# Shapes, modes and batches


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 3, 4), (3, 2, 2), (2, 1, 3, 1, 2)], ids=str)
def test_images_of_any_shape(shape):
    net, x, candidates = mlp(12, seed=1), normals(9, 12, seed=2), normals(3, 9, 12, seed=3)
    flat = closest_boundary(net, x, candidates)
    shaped = closest_boundary(net, x.view(9, *shape), candidates.view(3, 9, *shape))
    assert shaped.point.shape == (9, *shape)
    torch.testing.assert_close(shaped.point.flatten(1), flat.point, rtol=0, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(shaped.distance, flat.distance, rtol=1e-12, atol=1e-12)
    found = line_search(net, x.view(9, *shape), candidates[0].view(9, *shape))
    assert found.point.shape == (9, *shape)


def test_tensors_that_are_not_contiguous():
    net, x, candidates = mlp(12, seed=1), normals(9, 3, 4, seed=2), normals(3, 9, 3, 4, seed=3)
    plain = closest_boundary(net, x, candidates)
    strided = closest_boundary(
        net, x.transpose(1, 2).contiguous().transpose(1, 2), candidates.transpose(0, 3).contiguous().transpose(0, 3)
    )
    assert torch.equal(plain.distance, strided.distance)
    gaps = (None, torch.zeros(9, 3, dtype=torch.float64).fill_(math.nan).T)
    assert torch.equal(closest_boundary(net, x, candidates, gaps=gaps).distance, plain.distance)


def test_labels_that_are_not_contiguous():
    net, x, candidates = mlp(6, seed=1), normals(9, 6, seed=2), normals(3, 9, 6, seed=3)
    labels = torch.stack([net(x).argmax(1)] * 2, 1)[:, 0]
    assert not labels.is_contiguous()
    plain, strided = (closest_boundary(net, x, candidates, labels=given) for given in (labels.contiguous(), labels))
    assert torch.equal(plain.distance, strided.distance)
    assert torch.equal(line_search(net, x, candidates[0], labels=labels).step, line_search(net, x, candidates[0]).step)


def test_an_empty_batch_does_not_trouble_the_model():
    def model(x):
        raise AssertionError("nothing to look at")

    for shape in ((5,), (1, 3, 3)):
        x = torch.empty(0, *shape)
        search = line_search(model, x, x)
        assert search.step.shape == (0,) and search.point.shape == x.shape and search.crossed.dtype == torch.bool
        assert search.evaluations.dtype == torch.int64
        found = closest_boundary(model, x, x.expand(3, 0, *shape), labels=torch.empty(0, dtype=torch.int64))
        assert found.distance.shape == (0,) and found.candidate.shape == (0,) and found.point.shape == x.shape


def test_a_point_does_not_depend_on_the_others_in_its_batch():
    net, x, candidates = mlp(6, seed=1), uniforms(20, 6, seed=2), 2 * normals(3, 20, 6, seed=3)
    whole = closest_boundary(net, x, candidates)
    for b in range(20):
        alone = closest_boundary(net, x[b : b + 1], candidates[:, b : b + 1])
        torch.testing.assert_close(alone.distance, whole.distance[b : b + 1], rtol=1e-9, atol=1e-12)
        assert alone.candidate == whole.candidate[b] and alone.evaluations == whole.evaluations[b]


def test_the_model_runs_in_eval_mode_and_is_left_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).double()
    x, x_adv = normals(30, 6, seed=1), 2 * normals(30, 6, seed=2)
    expected = line_search(net.eval(), x, x_adv)
    net.train()
    net[1].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = line_search(net, x, x_adv)
    assert torch.equal(found.step, expected.step) and torch.equal(found.evaluations, expected.evaluations)
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())

    calls = []

    def fails(module, args):
        calls.append(module.training)
        if len(calls) == 3:
            raise RuntimeError("out of order")

    net.register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="out of order"):
        line_search(net, x, x_adv)
    assert calls == [False] * 3
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]


def test_nothing_returned_carries_a_graph():
    net = mlp(4, seed=1).requires_grad_(True)
    x, candidates = normals(6, 4, seed=2).requires_grad_(), normals(2, 6, 4, seed=3).requires_grad_()
    for result in (line_search(net, x, candidates[0]), closest_boundary(net, x, candidates)):
        assert not any(value.requires_grad for value in vars(result).values())
    assert x.grad is None and all(p.grad is None for p in net.parameters())


def test_the_arguments_are_left_as_they_were():
    net, x, candidates = mlp(4, seed=1), normals(6, 4, seed=2), normals(2, 6, 4, seed=3)
    labels, gaps = net(x).argmax(1), (None, torch.full((2, 6), math.nan, dtype=torch.float64))
    copies = [value.clone() for value in (x, candidates, labels)]
    closest_boundary(net, x, candidates, labels=labels, gaps=gaps)
    assert all(torch.equal(a, b) for a, b in zip((x, candidates, labels), copies, strict=True))
    assert gaps[1].isnan().all()


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


# Errors


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": lambda v: v.mul(255).byte()}, TypeError, "x: expected torch.float32 or torch.float64, got torch.uint8"),
        ({"x": lambda v: v[0]}, ValueError, r"x: expected a batch"),
        ({"x": lambda v: v.tolist()}, TypeError, "x: expected a tensor, got list"),
        ({"x": lambda v: v * math.nan}, ValueError, "x: expected finite pixels, got nan"),
        ({"x_adv": lambda v: v * math.nan}, ValueError, "x_adv: expected finite pixels, got nan"),
        ({"x_adv": lambda v: v / 0}, ValueError, "x_adv: expected finite pixels, got"),
        ({"x_adv": lambda v: v.float()}, TypeError, "x_adv: expected torch.float64, got torch.float32"),
        ({"x_adv": lambda v: v.long()}, TypeError, "x_adv: "),
        ({"x_adv": lambda v: v[:, :2]}, ValueError, r"x_adv: expected shape \[4, 3\], got \[4, 2\]"),
        ({"x_adv": lambda v: v[:2]}, ValueError, r"x_adv: expected shape \[4, 3\], got \[2, 3\]"),
        ({"x_adv": lambda v: v.tolist()}, TypeError, "x_adv: expected a tensor, got list"),
        ({"labels": lambda v: v + 4}, ValueError, r"labels: expected labels in 0\.\.3, got"),
        ({"labels": lambda v: v - 4}, ValueError, r"labels: expected labels in 0\.\.3, got -"),
        ({"labels": lambda v: v.int()}, TypeError, "labels: expected torch.int64, got torch.int32"),
        ({"labels": lambda v: v[:3]}, ValueError, r"labels: expected shape \[4\], got \[3\]"),
        ({"labels": lambda v: v.to("meta")}, ValueError, "labels: expected a tensor on cpu, got one on meta"),
        ({"labels": lambda v: v.tolist()}, TypeError, "labels: expected a tensor, got list"),
    ],
)
def test_wrong_tensors(change, error, match):
    net = mlp(3, seed=1)
    values = {"x": uniforms(4, 3, seed=2), "x_adv": uniforms(4, 3, seed=3)}
    values["labels"] = net(values["x"]).argmax(1)
    for name, function in change.items():
        values[name] = function(values[name])
    with pytest.raises(error, match=match):
        line_search(net, values["x"], values["x_adv"], labels=values["labels"])


def test_wrong_images_beside_known_gaps():
    gaps = (None, torch.full((4,), -1.0, dtype=torch.float64))
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        line_search(mlp(3, seed=1), [[0.0] * 3] * 4, uniforms(4, 3, seed=3), gaps=gaps)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda c: c[0], ValueError, "candidates: expected shape"),
        (lambda c: c[0, 0], ValueError, "candidates: expected shape"),
        (lambda c: c[:, :3], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 3, 3\]"),
        (lambda c: c[:, :, :2], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 4, 2\]"),
        (lambda c: c[..., None], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 4, 3, 1\]"),
        (lambda c: c.float(), TypeError, "candidates: expected torch.float64, got torch.float32"),
        (lambda c: c.long(), TypeError, "candidates: "),
        (lambda c: c.to("meta"), ValueError, "candidates: expected a tensor on cpu, got one on meta"),
        (lambda c: list(c), TypeError, "candidates: expected a tensor, got list"),
        (lambda c: c.index_fill(1, torch.tensor([2]), math.nan), ValueError, "candidates: expected finite pixels"),
        (lambda c: c.index_fill(1, torch.tensor([2]), -math.inf), ValueError, "candidates: expected finite pixels"),
    ],
)
def test_wrong_candidates(change, error, match):
    with pytest.raises(error, match=match):
        closest_boundary(mlp(3, seed=1), uniforms(4, 3, seed=2), change(uniforms(2, 4, 3, seed=3)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"tol": 0.0}, "tol: "),
        ({"tol": 1.0}, "tol: "),
        ({"tol": -1e-3}, "tol: "),
        ({"tol": math.nan}, "tol: "),
        ({"tol": "fine"}, "tol: "),
        ({"method": "secant"}, "method: expected one of chandrupatla, bisection, got 'secant'"),
        ({"probes": -1}, "probes: "),
        ({"probes": 1.5}, "probes: "),
        ({"probes": True}, "probes: "),
    ],
)
def test_wrong_settings(arguments, match):
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    with pytest.raises(ValueError, match=match):
        line_search(net, x, x_adv, **arguments)
    with pytest.raises(ValueError, match=match):
        closest_boundary(net, x, x_adv[None], **arguments)


@pytest.mark.parametrize("norm", [3, 0, -1, "l2", math.nan, None])
def test_wrong_norm(norm):
    with pytest.raises(ValueError, match="norm: expected 1, 2 or inf"):
        closest_boundary(mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(1, 4, 3, seed=3), norm=norm)


def test_wrong_gaps():
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    labels, gap = net(x).argmax(1), torch.ones(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="gaps: a gap at x is the gap of a label"):
        line_search(net, x, x_adv, gaps=(gap, None))
    for wrong, error in (
        (gap.float(), TypeError),
        (gap[:3], ValueError),
        (gap.tolist(), TypeError),
        (gap.to("meta"), ValueError),
    ):
        with pytest.raises(error, match=r"gaps\[0\]: "):
            line_search(net, x, x_adv, gaps=(wrong, None), labels=labels)
        with pytest.raises(error, match=r"gaps\[1\]: "):
            line_search(net, x, x_adv, gaps=(gap, wrong), labels=labels)
    for wrong, error in (
        (gap, ValueError),
        (torch.ones(3, 4, dtype=torch.float64), ValueError),
        (torch.ones(2, 4), TypeError),
    ):
        with pytest.raises(error, match=r"gaps\[1\]: "):
            closest_boundary(net, x, torch.stack([x_adv, x_adv]), gaps=(None, wrong))
    with pytest.raises(ValueError, match="gaps: expected numbers at x, got NaN"):
        line_search(net, x, x_adv, gaps=(gap * math.nan, None), labels=labels)


def test_labels_out_of_range_with_known_gaps(backend, device):
    """Also where x is not looked at again, a label that the model does not have is an error and no crossing."""
    net, x, x_adv = mlp(3, seed=1).to(device), uniforms(4, 3, seed=2).to(device), uniforms(4, 3, seed=3).to(device)
    if device.type != "cpu":
        pytest.skip("labels are looked at on the CPU only: a GPU is not waited for")
    for label in (4, 11, -1):
        with pytest.raises(ValueError, match=r"labels: expected labels in 0\.\.3"):
            line_search(
                net,
                x,
                x_adv,
                labels=torch.full((4,), label),
                backend=backend,
                gaps=(torch.ones(4, dtype=torch.float64), None),
            )


@pytest.mark.parametrize(
    ("wrap", "error", "match"),
    [
        (lambda net: "net", TypeError, "model: expected a module or a callable, got str"),
        (lambda net: lambda x: net(x)[:, :1], ValueError, r"model\(x\): expected logits of at least two classes"),
        (lambda net: lambda x: net(x)[:, 0], ValueError, r"model\(x\): expected shape \[4, C\], got \[4\]"),
        (lambda net: lambda x: net(x)[1:], ValueError, r"model\(x\): expected shape \[4, C\], got \[3, 4\]"),
        (lambda net: lambda x: net(x)[None], ValueError, r"model\(x\): expected shape \[4, C\], got \[1, 4, 4\]"),
        (lambda net: lambda x: (net(x),), TypeError, r"model\(x\): expected a tensor, got tuple"),
        (lambda net: lambda x: net(x).long(), TypeError, r"model\(x\): expected .*, got torch.int64"),
        (lambda net: lambda x: net(x).to("meta"), ValueError, r"model\(x\): expected a tensor on cpu, got one on meta"),
    ],
)
def test_wrong_models(wrap, error, match):
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    with pytest.raises(error, match=match):
        line_search(wrap(net), x, x_adv)
    with pytest.raises(error, match=match):
        closest_boundary(wrap(net), x, x_adv[None])
