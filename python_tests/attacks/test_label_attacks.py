"""Attacks that query labels only: closed forms, budgets, the best point kept, draws by key and sample id."""

import math

import numpy as np
import pytest
import torch

import robustperf as rp
from python_tests.support.labels import Counted, annulus, labels_of_linear, linear_margins
from robustperf import LabelOnly
from robustperf.attacks import CoordinateDescent, HopSkipJump, Nearest, Problem, SurFree
from robustperf.attacks.named import attacks_of
from robustperf.attacks.queries import Queries

ATTACKS = [HopSkipJump, SurFree, CoordinateDescent]
NORMS = [1, 2, math.inf]


def points(count, *shape, seed=1):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def plane():
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(2, 12, dtype=torch.float64, generator=generator)
    x = points(12, 12)
    return weight, -(x @ weight.T).mean(0), x


def ratio(attack, plane, norm):
    """[B], the attack's distance over the exact margin."""
    weight, bias, x = plane
    model = labels_of_linear(weight, bias)
    labels = model.labels(x)
    found = attack(model, x, labels, key=3)
    assert (found.gap < 0).all() and (model.labels(found.point) != labels).all()
    exact = linear_margins(weight.numpy(), bias.numpy(), x.numpy(), 0.0, 1.0, norm)
    return torch.linalg.vector_norm(found.point - x, norm, dim=1) / torch.tensor(exact)


@pytest.mark.parametrize(
    ("attack", "norm", "median"),
    [
        (HopSkipJump(1), 1, 1.05),
        (HopSkipJump(2), 2, 1.05),
        (HopSkipJump(math.inf), math.inf, 1.05),
        (HopSkipJump(2, project=False), 2, 1.1),
        (HopSkipJump(math.inf, project=False), math.inf, 1.15),
        (SurFree(2), 2, 1.02),
    ],
    ids=repr,
)
def test_a_flat_boundary(plane, attack, norm, median):
    """Never nearer than the margin, which linear programmes or a bisection give, and close to it at 1,000 queries."""
    found = ratio(attack, plane, norm)
    assert found.min() > 1 - 1e-9 and found.median() < median


def test_coordinates_reach_the_nearest_point_of_a_box():
    """The other label is a box; from any point in it, the nearest point to x, feature by feature."""
    low = torch.tensor([0.5, 0.2, 0.6, 0.0]).double()
    model = LabelOnly(lambda points: (points >= low).all(1).long(), 2)
    x = points(20, 4) * torch.tensor([0.4, 0.1, 0.5, 1.0]).double()
    found = CoordinateDescent(bisections=30)(model, x, torch.zeros(20, dtype=torch.int64))
    torch.testing.assert_close(found.point, torch.maximum(x, low), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
def test_budget_is_kept_to_the_query(kind, norm):
    counted = Counted(annulus)
    x = 0.5 * points(9, 1, 2, 2)
    labels = annulus(x)
    for budget in (1, 2, 7, 50, 301):
        counted.count = 0
        found = kind(norm, queries=budget)(LabelOnly(counted, 2), x, labels, key=budget)
        assert found.evaluations.max() <= budget and counted.count == found.evaluations.sum()
        assert (found.backward == 0).all()
    crossed = found.gap < 0
    assert crossed.sum() > 5 and (found.evaluations[crossed] == 301).all()
    assert (found.evaluations[~crossed] == 152).all()  # draws, four at a time, for half the budget


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
def test_never_farther_than_the_start(kind, norm):
    x = 0.5 * points(20, 3)
    labels, start = annulus(x), 0.5 * points(20, 3, seed=2)
    some = (annulus(start) != labels).nonzero()[:, 0]
    problem = Problem(LabelOnly(annulus, 2), x, labels, bounds=(0.0, 1.0), key=1, index=torch.arange(20))
    length = torch.linalg.vector_norm(start - x, norm, dim=1)
    for limit in (1, 3, 10, 100):
        queries = Queries(problem, norm, limit)
        queries.start(start[some], some)
        kind(norm).improve(queries)
        assert (queries.distance[some] <= length[some]).all()
        assert (annulus(queries.point[some]) != labels[some]).all()
        torch.testing.assert_close(
            queries.distance[some], torch.linalg.vector_norm((queries.point - x)[some], norm, dim=1)
        )
    assert (queries.distance[some] < 0.9 * length[some]).any() and queries.distance[
        annulus(start) == labels
    ].isinf().all()


def test_curve_of_queries():
    """The distance after q queries is what a budget of q finds, for a function that counts them."""
    x = 0.5 * points(6, 3)
    labels = annulus(x)
    grid = torch.arange(1, 121)
    curves = []
    problem = Problem(LabelOnly(annulus, 2), x, labels, bounds=(0.0, 1.0), key=1, index=torch.arange(6))
    queries = Queries(problem, 2, 120, grid=grid)
    queries.draw_starts()
    HopSkipJump().improve(queries)
    for row in range(6):
        counted = Counted(annulus)
        problem = Problem(
            LabelOnly(counted, 2), x[row : row + 1], labels[row : row + 1], bounds=(0.0, 1.0), key=1,
            index=torch.tensor([row]),
        )  # fmt: skip
        one = Queries(problem, 2, 120)
        one.draw_starts()
        HopSkipJump().improve(one)
        tried = torch.cat(counted.points)
        length = torch.linalg.vector_norm(tried - x[row], dim=1).where(annulus(tried) != labels[row], math.inf)
        assert len(tried) == 120
        curves.append(length.cummin(0).values)
    torch.testing.assert_close(queries.curve, torch.stack(curves))


@pytest.mark.parametrize("kind", ATTACKS)
def test_draws_depend_on_key_and_sample_id_only(kind):
    x, index = 0.5 * points(10, 3), torch.arange(100, 110)
    labels, model, attack = annulus(x), LabelOnly(annulus, 2), kind(queries=150)
    together = attack(model, x, labels, key=5, index=index)
    order = torch.tensor([7, 2, 9])
    some = attack(model, x[order], labels[order], key=5, index=index[order])
    assert torch.equal(some.point, together.point[order]) and torch.equal(some.gap, together.gap[order])
    assert not torch.equal(attack(model, x, labels, key=6, index=index).point, together.point)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_stay_in_the_box(kind, dtype):
    lower, upper = torch.tensor([0.0, -math.inf, -5.0]), torch.tensor([1.0, math.inf, 200.0])
    x = points(10, 3).to(dtype) * torch.tensor([1.0, 50.0, 100.0], dtype=dtype)
    counted = Counted(lambda points: (points @ torch.tensor([30.0, 1.0, -1.0], dtype=dtype) > 0).long())
    labels = counted(x)
    found = kind(queries=200)(LabelOnly(counted, 2), x, labels, bounds=(lower, upper))
    tried = torch.cat(counted.points)
    assert (tried >= lower).all() and (tried <= upper).all() and tried.dtype == dtype
    assert (found.gap < 0).all()


def test_a_constant_function_has_no_start():
    counted = Counted(lambda points: torch.zeros(len(points), dtype=torch.int64))
    found = HopSkipJump()(LabelOnly(counted, 2), points(4, 3), torch.zeros(4, dtype=torch.int64))
    assert (found.gap > 0).all() and (found.evaluations == 256).all() and torch.equal(found.point, points(4, 3))


def test_on_a_network_among_other_attacks(plane):
    weight, bias, x = plane
    net = torch.nn.Linear(12, 2).double()
    net.weight.data, net.bias.data = weight, bias
    found = rp.margins(net, x, attacks="surfree(queries=1500),hopskipjump(queries=10)", tol=2.0**-30)
    exact = linear_margins(weight.numpy(), bias.numpy(), x.numpy(), 0.0, 1.0, 2)
    assert found.attacks == ("SurFree", "HopSkipJump") and (found.attack_evaluations[0] == 1500).all()
    assert np.median(found.distance.numpy() / exact) < 1.02 and found.access == "model"


@pytest.mark.parametrize("kind", ATTACKS)
def test_starts_from_the_best_point_of_earlier_attacks(kind):
    x = 0.5 * points(10, 3)
    labels, start = annulus(x), 0.5 * points(10, 3, seed=2)
    crossed = annulus(start) != labels
    problem = Problem(LabelOnly(annulus, 2), x, labels, bounds=(0.0, 1.0), key=1, index=torch.arange(10))
    best = Nearest(problem, 2)
    best.offer(start, torch.where(crossed, -1.0, 1.0).double())
    problem.best = best
    point, gap = kind(queries=1).run(problem)
    assert 2 < crossed.sum() < 8 and (gap[crossed] < 0).all()
    assert (torch.linalg.vector_norm(point - x, dim=1) <= best.distance)[crossed].all()


@pytest.mark.parametrize(("norm", "kinds"), [(2, [2, 2, 2]), (math.inf, [math.inf] * 3)])
def test_names(norm, kinds):
    found = attacks_of("hopskipjump(queries=50), surfree, coordinates", norm)
    assert [attack.norm for attack in found] == kinds and found[0].queries == 50
    assert [type(attack) for attack in found] == ATTACKS and attacks_of("surfree(norm=1)", 2)[0].norm == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HopSkipJump(3), "norm: expected 1, 2 or inf"),
        (lambda: HopSkipJump(queries=0), "queries: expected an integer above 0"),
        (lambda: HopSkipJump(probes=1), "probes: expected an integer >= 2"),
        (lambda: SurFree(angle=90), "angle: expected a number"),
        (lambda: SurFree(frequencies=0), "frequencies: expected a number"),
        (lambda: SurFree(angles=0), "angles: expected an integer"),
        (lambda: CoordinateDescent(bisections=0), "bisections: expected an integer"),
        (lambda: CoordinateDescent(draws=-1), "draws: expected an integer"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
