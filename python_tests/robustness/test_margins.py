"""Margins of many points: the ensemble, the streaming, and what is counted."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from robustperf import MarginCurve, closest_boundary, margins, ops, random
from robustperf.attacks import BG, FGSM, PGD, Attack
from robustperf.robustness.margins import Margins, MarginSearch, diameter

NORMS = [1, 2, math.inf]
ENSEMBLE = (FGSM(0.3), PGD(eps=0.4, steps=6), PGD(norm=2, eps=1.5, steps=6), BG())


def images(count, *shape, seed=1, dtype=torch.float64):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@dataclasses.dataclass(frozen=True)
class Towards(Attack):
    """An attack of the user's own: x' is the same corner of the box for all points."""

    corner: float = 1.0

    def run(self, problem):
        point = torch.full_like(problem.x, self.corner)
        point[..., 0] = problem.bounds[1] - self.corner
        return point, problem.gap(point)


@dataclasses.dataclass(frozen=True)
class Corner(Attack):
    """Another corner of the box for each point, by its sample id."""

    seed: int

    def run(self, problem):
        x, (lower, upper) = problem.x, problem.bounds
        corner = random.uniform(self.seed, problem.index, 1, x[0].numel())[0].reshape(x.shape) > 0.5
        point = torch.where(corner, upper, lower).to(x.dtype)
        problem.count(None, forward=self.seed - 1)  # so that the attacks' counts differ
        return point, problem.gap(point)


class Nowhere(Attack):
    """Finds nothing."""

    def run(self, problem):
        problem.count(None, forward=2)
        return problem.x.clone(), problem.gap(problem.x)


class Recorded(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.batches = net, []

    def forward(self, x):
        self.batches.append(x.shape[0])
        return self.net(x)


@pytest.mark.parametrize("norm", NORMS)
def test_the_closest_point_of_all_attacks(net, x, norm):
    attacks = (Corner(1), Towards(0.0), Corner(2), Corner(3), Corner(4))
    found = margins(net, x, attacks=attacks, norm=norm, keep_points=True)
    alone = [margins(net, x, attacks=[attack], norm=norm) for attack in attacks]
    distance = torch.stack([part.distance for part in alone])
    assert torch.equal(found.found, distance.isfinite().any(0)) and found.found.sum() > 10 and distance.isinf().any()
    some = found.found
    torch.testing.assert_close(found.distance[some], distance.amin(0)[some], rtol=0, atol=1e-5)
    nearest = distance.sort(0).values
    clear = some & (nearest[1] > nearest[0] + 1e-4)
    assert torch.equal(found.attack[clear], distance.argmin(0)[clear]) and len(found.attack[clear].unique()) > 2
    assert torch.equal(found.attack_evaluations, torch.cat([part.attack_evaluations for part in alone]))
    assert found.norm == norm and found.attacks == ("Corner 1", "Towards", "Corner 2", "Corner 3", "Corner 4")
    # the points kept are at these distances and have another label
    labels = net(x).argmax(1)
    assert all(
        net(point[None]).argmax(1) != label for point, label in zip(found.point[some], labels[some], strict=True)
    )
    assert found.point[some].min() >= 0 and found.point[some].max() <= 1 and found.point.dtype == x.dtype
    length = torch.linalg.vector_norm((found.point - x).flatten(1), norm, dim=1)
    torch.testing.assert_close(found.distance[some], length[some])


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifier(norm):
    """BG finds the margin itself where the box is far away."""
    torch.manual_seed(0)
    model, x = nn.Linear(6, 2).double(), images(25, 6)
    found = margins(model, x, attacks=[BG(norm)], norm=norm, bounds=(-50.0, 50.0), tol=2.0**-40)
    w, logits = (model.weight[1] - model.weight[0]).detach(), model(x).detach()
    truth = (logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(w, {1: math.inf, 2: 2, math.inf: 1}[norm])
    torch.testing.assert_close(found.distance, truth, rtol=1e-9, atol=1e-10)
    assert found.fractions == {"BG": 1.0}


def test_it_is_the_attacks_and_then_the_closest_boundary(net, x):
    """Attack i draws under `fold_in(key, i)`; the gaps that the attacks know are used."""
    found = margins(net, x, attacks=ENSEMBLE, key=5)
    labels = net(x).argmax(1)
    tried = [attack(net, x, labels, key=random.fold_in(5, place)) for place, attack in enumerate(ENSEMBLE)]
    gaps = ops.logit_gap(net(x).detach(), labels), torch.stack([a.gap for a in tried])
    boundary = closest_boundary(net, x, torch.stack([a.point for a in tried]), labels=labels, gaps=gaps, bounds=(0, 1))
    torch.testing.assert_close(found.distance, boundary.distance, rtol=1e-12, atol=1e-14)
    assert torch.equal(found.attack, boundary.candidate)
    # and every fourth point and its nearest one once more, to see whether the model is noisy
    assert torch.equal(found.evaluations, boundary.evaluations + 2 * (torch.arange(30) % 4 == 0))
    assert torch.equal(found.attack_evaluations, torch.stack([a.evaluations for a in tried]))
    assert found.point is None and found.distance.dtype == torch.float64
    assert found.attack_evaluations.shape == (4, 30) and found.evaluations.dtype == torch.int64


def test_evaluations_are_all_that_the_model_sees(net, x):
    model = Recorded(net)
    found = margins(model, x, attacks=ENSEMBLE, batch_size=8)
    # one more for each point: x itself, which the search does not evaluate again
    assert sum(model.batches) == found.evaluations.sum() + found.attack_evaluations.sum() + len(x)


@pytest.mark.parametrize("batch_size", [1, 4, 30, 1000])
def test_the_model_never_sees_more_than_a_batch(net, x, batch_size):
    model = Recorded(net)
    margins(model, x, attacks=ENSEMBLE, batch_size=batch_size, probes=3)
    assert max(model.batches) == min(batch_size, 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_batch_size(net, x, dtype):
    net, x = net.to(dtype), x.to(dtype)
    together = margins(net, x, attacks=ENSEMBLE, keep_points=True, key=2)
    for batch_size in (1, 7, 29):
        parts = margins(net, x, attacks=ENSEMBLE, keep_points=True, key=2, batch_size=batch_size)
        torch.testing.assert_close(parts.distance, together.distance, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parts.point, together.point, rtol=0, atol=1e-4, equal_nan=True)
        assert torch.equal(parts.found, together.found)
        if dtype == torch.float64:
            torch.testing.assert_close(parts.distance, together.distance, rtol=1e-9, atol=1e-12)
            assert torch.equal(parts.attack, together.attack) and torch.equal(parts.evaluations, together.evaluations)
            assert torch.equal(parts.attack_evaluations, together.attack_evaluations)


def test_results_do_not_depend_on_the_order(net, x):
    index = torch.arange(100, 130)
    together = margins(net, x, attacks=ENSEMBLE, index=index, batch_size=8)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    shuffled = margins(net, x[order], attacks=ENSEMBLE, index=index[order], batch_size=11)
    torch.testing.assert_close(shuffled.distance, together.distance[order], rtol=1e-9, atol=1e-12)
    assert torch.equal(shuffled.attack, together.attack[order])
    # the draws depend on the points' sample ids and on the key
    start = [PGD(norm=2, eps=1.5, steps=1)]
    a = margins(net, x, attacks=start, index=index).distance
    assert not torch.equal(a, margins(net, x, attacks=start).distance)
    assert not torch.equal(a, margins(net, x, attacks=start, index=index, key=1).distance)
    assert torch.equal(
        margins(net, x, attacks=start).distance, margins(net, x, attacks=start, index=torch.arange(30)).distance
    )


def test_true_labels_and_the_models_own(net, x):
    predicted = net(x).argmax(1)
    truth = predicted.clone()
    truth[[2, 11, 29]] = (truth[[2, 11, 29]] + 1) % 4
    own = margins(net, x, attacks=ENSEMBLE, keep_points=True, batch_size=8)
    found = margins(net, x, attacks=ENSEMBLE, keep_points=True, labels=truth, batch_size=8)
    wrong = torch.zeros(30, dtype=torch.bool)
    wrong[[2, 11, 29]] = True
    assert (found.distance[wrong] == 0).all() and (found.attack[wrong] == -1).all() and found.found[wrong].all()
    assert torch.equal(found.point[wrong], x[wrong]) and (found.evaluations[wrong] == 0).all()
    torch.testing.assert_close(found.distance[~wrong], own.distance[~wrong], rtol=1e-9, atol=1e-12)
    assert (own.distance > 0).all()
    same = margins(net, x, attacks=ENSEMBLE, labels=predicted)
    torch.testing.assert_close(same.distance, own.distance, rtol=1e-9, atol=1e-12)


def test_misclassified_by_less_than_rounding():
    def model(x):  # label 1, by one unit in the last place
        return 0 * x[:, :1] + torch.tensor([[1.0, 1 + 2**-52]], dtype=x.dtype)

    x = images(3, 5)
    found = margins(model, x, attacks=[Nowhere()], labels=torch.zeros(3, dtype=torch.int64))
    assert found.distance.tolist() == [0, 0, 0] and found.found.all()
    assert margins(model, x, attacks=[Nowhere()]).distance.tolist() == [math.inf] * 3


def test_nothing_found(net, x):
    found = margins(net, x, attacks=[Nowhere(), Nowhere()], keep_points=True)
    assert not found.found.any() and (found.distance == math.inf).all() and (found.attack == -1).all()
    assert found.point.isnan().all() and (found.attack_evaluations == 3).all()
    assert torch.equal(found.evaluations, (torch.arange(30) % 4 == 0).long())
    assert all(math.isnan(fraction) for fraction in found.fractions.values())


def test_fractions(net, x):
    found = margins(net, x, attacks=[FGSM(0.3), Nowhere(), BG()])
    assert list(found.fractions) == ["FGSM", "Nowhere", "BG"] and sum(found.fractions.values()) == pytest.approx(1)
    assert found.fractions["Nowhere"] == 0
    assert found.fractions["FGSM"] == pytest.approx((found.attack == 0).double().sum() / found.found.sum())


def test_fractions_of_two_attacks_of_one_kind(net, x):
    """Each has its own fraction, though both have one name."""
    found = margins(net, x, attacks=[Corner(1), Corner(2), Towards()])
    assert len(found.attack.unique()) > 1 and (found.attack < 2).any()
    assert len(found.fractions) == 3 and sum(found.fractions.values()) == pytest.approx(1)


def test_stream_yields_the_parts(net, x):
    options, labels = {"attacks": ENSEMBLE, "batch_size": 8, "keep_points": True}, net(x).argmax(1)
    parts = list(MarginSearch(net, **options).stream(x, labels=labels))
    assert [len(part.distance) for part in parts] == [8, 8, 8, 6]
    assert [part.attack_evaluations.shape for part in parts] == [(4, 8)] * 3 + [(4, 6)]
    joined, together = Margins.concatenate(parts), margins(net, x, labels=labels, **options)
    for field in dataclasses.fields(Margins):
        ours, theirs = getattr(joined, field.name), getattr(together, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name
    assert Margins.concatenate(parts[:1]).distance.tolist() == parts[0].distance.tolist()


def test_stream_evaluates_one_batch_at_a_time(net, x):
    model = Recorded(net)
    parts = MarginSearch(model, [FGSM()], batch_size=10).stream(x)
    next(parts)
    first = len(model.batches)
    next(parts)
    assert first > 0 and len(model.batches) > first


@pytest.mark.parametrize("shape", [(5,), (1, 3, 4)])
def test_no_points(net, shape):
    found = margins(net, torch.empty(0, *shape), attacks=[FGSM(), BG()], keep_points=True, norm=1)
    assert [v.shape for v in (found.distance, found.attack, found.evaluations, found.found)] == [(0,)] * 4
    assert found.point.shape == (0, *shape) and found.attack_evaluations.shape == (2, 0)
    assert found.diameter == math.prod(shape) and found.attacks == ("FGSM", "BG")
    assert found.found.dtype == torch.bool and found.attack.dtype == torch.int64


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0), (0.25, 0.5)])
def test_other_bounds(net, bounds):
    """The margins on another scale of pixels are those on [0, 1] times the scale."""
    lower, scale = bounds[0], bounds[1] - bounds[0]
    x = images(20, 1, 3, 4)
    plain = margins(net, x, attacks=[BG(), FGSM(0.3)], tol=2.0**-30)

    def model(images):
        return net((images - lower) / scale)

    found = margins(
        model, lower + scale * x, attacks=[BG(), FGSM(0.3 * scale)], bounds=bounds, keep_points=True, tol=2.0**-30
    )
    assert torch.equal(found.found, plain.found)
    some = found.found
    torch.testing.assert_close(found.distance[some], scale * plain.distance[some], rtol=1e-6, atol=1e-8)
    assert found.point[some].min() >= bounds[0] and found.point[some].max() <= bounds[1]
    assert found.diameter == pytest.approx(scale * math.sqrt(12))


def test_float32_bounds_that_are_no_float32_numbers():
    """Images clamped to (0, 0.1) in float32 reach 0.100000001."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    with torch.no_grad():
        model.bias.copy_(-0.05 * model.weight.sum(1))  # the boundary passes through the middle of the box
    x = (0.2 * images(10, 6, dtype=torch.float32)).clamp(0.0, 0.1)
    found = margins(model, x, attacks=[FGSM(0.02), BG()], bounds=(0.0, 0.1), keep_points=True)
    assert found.found.any() and found.point[found.found].max() <= x.max()


@pytest.mark.parametrize(("norm", "expected"), [(1, 24.0), (2, 2 * math.sqrt(12)), (math.inf, 2.0)])
def test_diameter(net, x, norm, expected):
    assert diameter((1, 3, 4), norm, (-1.0, 1.0)) == pytest.approx(expected)
    assert margins(net, x, attacks=[Nowhere()], norm=norm, bounds=(-1, 1)).diameter == pytest.approx(expected)
    assert diameter((), norm, (0.0, 3.0)) == 3.0


def test_norms_are_ordered(net, x):
    by_norm = [margins(net, x, attacks=[Towards(), BG()], norm=norm).distance for norm in NORMS]
    some = by_norm[0].isfinite()
    assert (by_norm[0] >= by_norm[1] - 1e-5)[some].all() and (by_norm[1] >= by_norm[2] - 1e-5)[some].all()


def test_more_attacks_are_never_worse(net, x):
    few = margins(net, x, attacks=ENSEMBLE[:1]).distance
    more = margins(net, x, attacks=ENSEMBLE).distance
    assert (more <= few + 1e-5).all() and (more < few - 1e-3).any()


def test_probes_reach_the_search(x):
    """Label 1 between 0.3 and 0.4 on the line to a corner that has label 0 again: a probe in there finds it."""

    def model(x):
        t = x.flatten(1)[:, 1]
        gap = (0.3 - t) * (0.4 - t)
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    assert not margins(model, x, attacks=[Towards()]).found.any()
    found = margins(model, x, attacks=[Towards()], probes=19, norm="inf")
    assert found.distance.tolist() == pytest.approx([0.3, 0.3], abs=1e-5)


def test_the_model_is_left_unchanged(x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(18, 3)).double()
    expected = margins(net.eval(), x, attacks=ENSEMBLE).distance
    net.train()
    net[2].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    rng = torch.get_rng_state()
    assert torch.equal(margins(net, x, attacks=ENSEMBLE).distance, expected)
    assert [m.training for m in net.modules()] == [True, True, True, False, True, True]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_results_carry_no_graph(net, x):
    found = margins(net, x.requires_grad_(), attacks=[FGSM(), BG()], keep_points=True)
    assert not any(v.requires_grad for v in vars(found).values() if isinstance(v, torch.Tensor))
    assert x.grad is None


def test_nan_logits_affect_their_points_alone(net, x):
    def model(images):
        return net(images).masked_fill((images[:, 0, 0, :1] == 0.5), math.nan)

    x[[13, 14], 0, 0, 0] = 0.5
    with pytest.warns(RuntimeWarning, match="margins: 6.67% of the points have NaN logits: no label"):
        found = margins(model, x, attacks=ENSEMBLE, batch_size=8, keep_points=True, index=torch.arange(100, 130))
    assert found.distance.isnan().nonzero()[:, 0].tolist() == [13, 14] and found.diagnostics.undefined == 2
    curve, summary = MarginCurve.from_margins(found), found.summary()
    assert (summary["median"], summary["not_found"], summary["undefined"]) == (curve.median, curve.missing, 2)
    assert summary["area"] == pytest.approx(curve.area) and f"median={curve.median:.3g}" in repr(found)
    assert not found.found[13:15].any() and (found.attack[13:15] == -1).all() and found.point[13:15].isnan().all()
    assert (found.evaluations[13:15] == 0).all() and (found.attack_evaluations[:, 13:15] == 0).all()
    others = torch.arange(30)[~found.distance.isnan()]
    alone = margins(net, x[others], attacks=ENSEMBLE, index=100 + others)
    torch.testing.assert_close(found.distance[others], alone.distance, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.attack[others], alone.attack)
