"""The line search step, driven by gaps that are plain functions of the place: every backend's state equals the
reference's bit for bit, and what a search returns is held against everything that it looked at."""

import math
import re
from pathlib import Path
from random import Random

import pytest
import torch

from robustperf.ops import line_search_step
from robustperf.ops.line_search_step import DONE, END, FIELD, INSIDE, PROBE, WAITING, new_state, patience

OP = "line_search_step"
inf, nan = math.inf, math.nan
FINE, COARSE = 2.0**-20, 2.0**-6

configurations = pytest.mark.parametrize("method, probes, tol", [
    (method, probes, tol) for method in ("chandrupatla", "bisection") for probes in (0, 3) for tol in (FINE, COARSE)
])  # fmt: skip


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class Problem:
    """B points with A lines each; `gap(p, a, step)` is what the model would answer there."""

    def __init__(self, points, lines, gap, *, gap_x=None, dim=5, dtype=torch.float64, seed=0, known=False):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.rand(points, dim, generator=g, dtype=torch.float64).to(dtype)
        self.candidates = torch.rand(lines, points, dim, generator=g, dtype=torch.float64).to(dtype)
        self.gap = gap
        self.gap_x = doubles(*(1.0 if gap_x is None else gap_x(p) for p in range(points)))
        self.length = 0.5 + torch.rand(points, lines, generator=g, dtype=torch.float64)
        self.gap_end = torch.full((points, lines), nan, dtype=torch.float64)
        if known:
            for p in range(points):
                for a in range(lines):
                    if known is True or (p + a) % 2:
                        self.gap_end[p, a] = gap(p, a, 1.0)
        self.order = torch.rand(points, lines, generator=g).argsort(1)


class Run:
    """A search from its start to its end. looks[p]: (line, step, gap) in order; states: after each step."""

    def __init__(self, problem, backend, device, *, tol=FINE, method="chandrupatla", probes=0, most=400, extra=0.0):
        self.problem, self.tol = problem, tol
        points, dim = problem.x.shape
        x, candidates, length, gap_end, order = (
            t.to(device) for t in (problem.x, problem.candidates, problem.length, problem.gap_end, problem.order))
        label = torch.arange(points, device=device) % 2
        state = new_state(problem.gap_x).to(device)
        closest = torch.full_like(x, nan)
        rows, places, logits = torch.arange(points, device=device), torch.full_like(x, nan), None
        self.states, self.looks, self.places = [], [[] for _ in range(points)], [[] for _ in range(points)]
        for _ in range(most):
            line_search_step(logits, rows, label, x, candidates, length, gap_end, order, state, places, closest,
                             tol=tol, method=method, probes=probes, allowance=0.0, backend=backend)
            self.states.append(state.cpu().clone())
            going = state[rows, FIELD["stage"]] != DONE
            rows, places = rows[going].contiguous(), places[going].contiguous()
            if not len(rows):
                break
            gaps = []
            for m, p in enumerate(rows.tolist()):
                line, step = int(state[p, FIELD["candidate"]]), state[p, FIELD["step"]].item()
                gaps.append(problem.gap(p, line, step))
                self.looks[p].append((line, step, gaps[-1]))
                self.places[p].append(places[m].cpu().clone())
            gap = torch.tensor(gaps, dtype=torch.float64, device=device)
            logits = torch.zeros(len(gaps), 2, dtype=torch.float64, device=device)  # of classes 0 and 1
            logits[torch.arange(len(gaps)), label[rows]] = gap
        else:
            pytest.fail(f"not done after {most} steps")
        self.state, self.closest = state.cpu(), closest.cpu()

    def field(self, name):
        return self.state[:, FIELD[name]].tolist()


def bits(state):
    return torch.where(state.isnan(), nan, state).contiguous().view(torch.int64)


def along(x, x_adv, step):
    """x + step (x' - x) in x's dtype."""
    t = torch.tensor(step, dtype=x.dtype)
    if t == 1:
        return x_adv
    return torch.maximum(torch.minimum(x + t * (x_adv - x), torch.maximum(x, x_adv)), torch.minimum(x, x_adv))


def check(run):
    """What holds for every search, told from what was looked at."""
    problem = run.problem
    for p, looks in enumerate(run.looks):
        best, line, radius = (run.field(name)[p] for name in ("best_step", "best_candidate", "radius"))
        assert run.field("stage")[p] == DONE and run.field("evaluations")[p] == len(looks)
        for (a, step, _), place in zip(looks, run.places[p], strict=True):
            assert 0 < step <= 1 and problem.length[p, a] < inf
            assert torch.equal(place, along(problem.x[p], problem.candidates[a, p], step))
        crossed = [(a, step) for a, step, gap in looks if gap < 0]
        crossed += [(a, 1.0) for a in range(len(problem.gap_end[p])) if problem.gap_end[p, a] < 0]
        crossed = [(a, step) for a, step in crossed if problem.length[p, a] < inf]
        if line == -1:
            assert best == radius == inf and run.closest[p].isnan().all() and not crossed
            continue
        line = int(line)
        assert (line, best) in crossed, "the place returned was not seen under another label"
        below = [step for a, step, gap in looks if a == line and not gap < 0 and step < best] + [0.0]
        assert best - max(below) <= run.tol, "the bracket is wider than tol"
        assert radius == best * problem.length[p, line]
        assert all(radius <= step * problem.length[p, a].item() * (1 + 1e-12) for a, step in crossed)
        assert torch.equal(run.closest[p], along(problem.x[p], problem.candidates[line, p], best))


# ---- gaps: functions of the place with g(0) > 0


def linear(root, size):
    return lambda s: size * (root - s)


def cubic(root, size):
    return lambda s: size * ((root - s) + 5 * (root - s) ** 3)


def exponential(root, size):
    return lambda s: size * (math.exp(9 * (root - s)) - 1)


def flat_then_steep(root, size):
    return lambda s: size * ((root - s) if s < root else 1e3 * (root - s) - 1e-9)


def kinked(root, size):
    return lambda s: size * min(2 * (root - s), (root - s) / 7, 0.01)


def jump(root, size):
    return lambda s: size if s < root else -size * 1e-4


def plateau(root, size):
    return lambda s: size * max(root - s, 0.0) if s < root + 0.05 else -size  # zero is not crossed


def infinite(root, size):
    return lambda s: inf if s < root else -inf


def half_infinite(root, size):
    return lambda s: size if s < root else -inf


def holes(root, size):
    return lambda s: nan if 0.3 < s < 0.35 or (root + 0.01 < s < root + 0.02) else size * (root - s)


def nothing_but_nan(root, size):
    return lambda s: nan


def wave(root, size):
    return lambda s: size * (0.2 + math.cos(s * 14 * root + root))


def never(root, size):
    return lambda s: size * (1.1 + root - s)


def at_the_end(root, size):
    return lambda s: size * (1 - s) if s < 1 else -size * 1e-12


def at_once(root, size):
    return lambda s: size * (1e-7 * root - s)


SINGLE = [linear, cubic, exponential, flat_then_steep, kinked, jump, infinite, half_infinite, at_the_end, at_once]
WILD = [plateau, holes, nothing_but_nan, wave, never]


def zoo(points, lines, kinds, seed):
    """(gap, root): each point and line with a function of its own, over sizes from 1e-280 to 1e280."""
    random = Random(seed)
    functions = {}
    for p in range(points):
        for a in range(lines):
            kind, root = random.choice(kinds), random.uniform(0.02, 0.98)
            functions[p, a] = kind(root, 10.0 ** random.choice([-280, -9, 0, 0, 0, 9, 280]))
    return lambda p, a, s: functions[p, a](s)


def crossing(gap, p, a):
    """Where a gap of one crossing crosses, by halving."""
    low, high = 0.0, 1.0
    if not gap(p, a, 1.0) < 0:
        return inf
    while high - low > 1e-12:
        middle = (low + high) / 2
        if gap(p, a, middle) < 0:
            high = middle
        else:
            low = middle
    return high


# ---- the backends


@configurations
@pytest.mark.parametrize("dtype, known", [(torch.float32, False), (torch.float64, "half")], ids=["float32", "float64"])
def test_backends_agree_bit_for_bit_over_a_zoo_of_gaps(backend, device, dtype, known, method, probes, tol):
    points, lines = 40, 3
    problem = Problem(points, lines, zoo(points, lines, SINGLE + WILD, seed=probes), dtype=dtype, known=known,
                      gap_x=lambda p: (1.0, 1e-280, 1e9, inf)[p % 4])
    problem.length[3] = inf
    problem.length[::5, 1] = inf
    problem.length[1::5, 2] = problem.length[1::5, 0]
    run = Run(problem, backend, device, tol=tol, method=method, probes=probes)
    check(run)
    assert run.looks[3] == [] and run.field("best_candidate")[3] == -1
    assert len({line for looks in run.looks for line, _, _ in looks}) == lines
    if backend != "reference":
        want = Run(problem, "reference", "cpu", tol=tol, method=method, probes=probes)
        assert len(run.states) == len(want.states)
        for step, (got, state) in enumerate(zip(run.states, want.states, strict=True)):
            assert torch.equal(bits(got), bits(state)), f"the states part at step {step}"
        assert torch.equal(bits(run.closest.double()), bits(want.closest.double()))
        assert all(torch.equal(a, b) for got, places in zip(run.places, want.places, strict=True)
                   for a, b in zip(got, places, strict=True))


@configurations
def test_of_lines_with_one_crossing_the_nearest_is_found(backend, device, method, probes, tol):
    points, lines = 30, 4
    gap = zoo(points, lines, SINGLE + [never], seed=5)
    problem = Problem(points, lines, gap, known="half")
    run = Run(problem, backend, device, tol=tol, method=method, probes=probes)
    check(run)
    for p in range(points):
        exact = [crossing(gap, p, a) * problem.length[p, a].item() for a in range(lines)]
        assert min(exact) - 1e-9 <= run.field("radius")[p]
        assert run.field("radius")[p] <= min(exact) + tol * problem.length[p].max().item() + 1e-9 or min(exact) == inf


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("tol", [FINE, COARSE])
def test_bisection_takes_the_logarithm_of_tol(backend, device, tol, known):
    gap = zoo(30, 1, SINGLE, seed=6)
    run = Run(Problem(30, 1, gap, known=known), backend, device, tol=tol, method="bisection")
    check(run)
    for looks in run.looks:
        assert abs(len(looks) - (not known) + math.log2(tol)) <= 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tol", [FINE, COARSE])
def test_no_gap_takes_more_than_three_bisections(backend, device, tol, seed):
    """The gap is made up as the search goes, so that the larger part of the bracket is what remains."""
    points = 25
    random = Random(seed)
    brackets = [[0.0, 1.0] for _ in range(points)]

    def adversary(p, a, s):
        low, high = brackets[p]
        if s == 1.0:
            return -size()
        keeps_upper = high - s > s - low
        brackets[p][not keeps_upper] = s
        return size() if keeps_upper else -size()

    def size():
        return (1 + random.random()) * 10.0 ** random.choice([0, 0, random.uniform(-3, 3), random.uniform(-200, 200)])

    run = Run(Problem(points, 1, adversary), backend, device, tol=tol)
    check(run)
    assert max(map(len, run.looks)) <= 3 * -math.log2(tol) + 1  # and the look at the end of the line


def test_a_bracket_is_halved_when_patience_ends(backend, device):
    assert patience(FINE) == 40 and patience(COARSE) == 12 and patience(0.3) == 4
    for looks, halved in ((0, False), (38, False), (39, True), (100, True)):
        args = {k: v.to(device) if v is not None else v for k, v in arguments(logits=False).items()}
        bracket = {"stage": INSIDE, "a": 0.5, "gap_a": -0.1, "b": 0.0, "gap_b": 0.5, "c": 1.0, "gap_c": -0.8,
                   "step": 0.4, "looks": looks, "end": 1.0, "position": 0.0}  # fmt: skip
        for name, value in bracket.items():
            args["state"][:, FIELD[name]] = value
        args["logits"] = torch.tensor([[0.02, 0.0]], device=device).repeat(3, 1)
        line_search_step(**args, tol=FINE, allowance=0.0, backend=backend)
        step = args["state"][0, FIELD["step"]].item()
        assert (step == (0.4 + 0.5) / 2) is halved, looks
        assert args["state"][0, FIELD["looks"]] == looks + 1


def test_smooth_gaps_take_few_looks(backend, device):
    problem = Problem(60, 1, zoo(60, 1, [linear, cubic, exponential], seed=7), gap_x=None, known=True)
    problem.gap_x = doubles(*(problem.gap(p, 0, 0.0) for p in range(60)))
    run = Run(problem, backend, device)
    check(run)
    looks = sorted(map(len, run.looks))
    assert looks[30] <= 8 and looks[-1] <= 16  # where bisection takes 20


def test_a_straight_line_takes_two_looks(backend, device):
    problem = Problem(1, 1, lambda p, a, s: 0.3 - s, gap_x=lambda p: 0.3, known=True)
    run = Run(problem, backend, device)
    check(run)
    first, *second = (step for _, step, _ in run.looks[0])
    assert first == pytest.approx(0.3, abs=1e-15) and len(second) == 1
    assert abs(second[0] - first) == pytest.approx(0.99 * FINE)


def test_probes_find_the_first_of_several_crossings(backend, device):
    def window(p, a, s):  # crossed within [0.45, 0.55] and from 0.9 on
        return -1.0 if 0.45 <= s < 0.55 or s >= 0.9 else 1.0

    without, probed = (Run(Problem(1, 1, window), backend, device, probes=n) for n in (0, 3))
    check(probed)
    assert [step for _, step, _ in probed.looks[0][:2]] == [0.25, 0.5]
    assert probed.field("best_step")[0] == pytest.approx(0.45, abs=FINE)
    assert without.looks[0][0][1] == 1.0
    none = Run(Problem(1, 1, lambda p, a, s: 1.0), backend, device, probes=3)
    assert [step for _, step, _ in none.looks[0]] == [0.25, 0.5, 0.75, 1.0]
    # a known gap at the end does not take the probes' place
    known = Run(Problem(1, 1, window, known=True), backend, device, probes=3)
    assert known.looks == probed.looks


def test_a_farther_line_is_dropped_after_one_look(backend, device):
    problem = Problem(1, 3, lambda p, a, s: (0.5, 0.9, 0.2)[a] - s)
    problem.length[:], problem.order[0] = torch.tensor([1.0, 2.0, 1.5]), torch.tensor([0, 1, 2])
    run = Run(problem, backend, device)
    check(run)
    second = [step for a, step, _ in run.looks[0] if a == 1]
    assert len(second) == 1 and second[0] == pytest.approx(0.25, abs=FINE)
    assert run.field("best_candidate") == [2.0] and run.field("radius")[0] == pytest.approx(0.3, abs=2 * FINE)
    third = [step for a, step, _ in run.looks[0] if a == 2]
    assert third[0] == pytest.approx(1 / 3, abs=FINE) and max(third) == third[0]


def test_the_lines_are_searched_in_the_order_given(backend, device):
    problem = Problem(4, 4, lambda p, a, s: 1.0)
    run = Run(problem, backend, device)
    assert [[a for a, _, _ in looks] for looks in run.looks] == problem.order.tolist()
    assert run.field("evaluations") == [4.0] * 4 and run.closest.isnan().all()


def test_a_known_gap_saves_the_look_at_the_end(backend, device):
    for known in (False, True):
        run = Run(Problem(1, 1, lambda p, a, s: 0.25 - s, gap_x=lambda p: 0.25, known=known), backend, device)
        assert (run.looks[0][0][1] == 1.0) is not known
        check(run)


def test_stages_follow_each_other(backend, device):
    problem = Problem(1, 2, lambda p, a, s: 0.6 - s)
    assert set(new_state(problem.gap_x)[:, FIELD["stage"]].tolist()) == {WAITING}
    run = Run(problem, backend, device, probes=3)
    stages = [int(state[0, FIELD["stage"]]) for state in run.states]
    first = stages.index(INSIDE)
    assert stages[:first] == [PROBE] * 3 and stages[-1] == DONE
    assert END in [int(s[0, FIELD["stage"]]) for s in Run(problem, backend, device).states]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_places_lie_between_x_and_its_candidate(backend, device, dtype):
    dim = 400
    problem = Problem(20, 2, zoo(20, 2, SINGLE, seed=8), dim=dim, dtype=dtype)
    problem.candidates[0] = problem.x + 1e-7 * (problem.candidates[0] - problem.x)  # little between the two
    problem.candidates[:, :, ::7] = problem.x[:, ::7]
    problem.x[:, 3] = 0.0
    run = Run(problem, backend, device)
    check(run)
    for p, places in enumerate(run.places):
        for (a, step, _), place in zip(run.looks[p], places, strict=True):
            x, x_adv = problem.x[p], problem.candidates[a, p]
            assert (place >= torch.minimum(x, x_adv)).all() and (place <= torch.maximum(x, x_adv)).all()
            if step == 1.0:
                assert torch.equal(place, x_adv)
            exact = x.double() + step * (x_adv.double() - x.double())
            assert (place.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps


def test_places_of_all_backends_agree_just_below_one(backend, device):
    """The second line is longer than the first by less than float32 can tell: its end rounds to 1."""
    problem = Problem(1, 2, lambda p, a, s: 1.0 if a == 1 or s < 1 else -1.0, dim=500, dtype=torch.float32, known=True)
    problem.order[0] = torch.tensor([0, 1])
    problem.length[0] = doubles(1.0, 1.0 + 2.0**-30)
    run, want = (Run(problem, name, place, tol=2.0**-31) for name, place in ((backend, device), ("reference", "cpu")))
    assert run.looks[0][-1][0] == 1 and 1 - 2.0**-29 < run.looks[0][-1][1] < 1
    assert torch.equal(run.places[0][-1], want.places[0][-1])


def test_far_ends_beyond_half_of_the_number_range(backend, device):
    problem = Problem(1, 1, lambda p, a, s: 0.5 - s, dtype=torch.float32)
    top = torch.finfo(torch.float32).max
    problem.x[:], problem.candidates[:] = -top, top  # their difference overflows
    run = Run(problem, backend, device, tol=COARSE)
    assert all(place.isfinite().all() for place in run.places[0]) and run.closest.isfinite().all()


# ---- what the step leaves alone


def arguments(points=3, lines=2, dim=4, active=None, logits=True):
    problem = Problem(points, lines, lambda p, a, s: 0.5 - s)
    active = points if active is None else active
    state = new_state(problem.gap_x)
    return {"logits": torch.tensor([[1.0, 0.0]]).repeat(active, 1) if logits else None,
            "rows": torch.arange(active), "label": torch.zeros(points, dtype=torch.int64), "x": problem.x[:, :dim]
            .contiguous(), "candidates": problem.candidates[..., :dim].contiguous(), "length": problem.length,
            "gap_end": problem.gap_end, "order": problem.order, "state": state,
            "next": torch.full((active, dim), -5.0, dtype=torch.float64),
            "closest": torch.full((points, dim), -7.0, dtype=torch.float64)}  # fmt: skip


def test_rows_that_are_done_or_not_active_are_left_alone(backend, device):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points=5, active=2, logits=False).items()}
    args["rows"] = torch.tensor([4, 1], device=device)
    args["state"][1, FIELD["stage"]] = DONE
    before = args["state"].clone()
    line_search_step(**args, tol=FINE, backend=backend)
    assert torch.equal(bits(args["state"][:4].cpu()), bits(before[:4].cpu()))
    assert (args["next"][1] == -5).all() and (args["closest"] == -7).all()
    first = int(args["order"][4, 0])
    assert torch.equal(args["next"][0], args["candidates"][first, 4])
    assert args["state"][4, FIELD["stage"]] == END


@pytest.mark.parametrize("points, lines", [(0, 2), (3, 0)])
def test_nothing_to_search(backend, device, points, lines):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points, lines, logits=False).items()}
    line_search_step(**args, tol=FINE, backend=backend)
    assert (args["state"][:, FIELD["stage"]] == DONE).all() and (args["state"][:, FIELD["best_candidate"]] == -1).all()


@pytest.mark.parametrize("dtype, crossed", [
    (torch.float64, True), (torch.float32, False), (torch.bfloat16, False), (torch.float16, False)
], ids=str)  # fmt: skip
def test_the_allowance_is_that_of_the_logits_dtype(backend, device, dtype, crossed):
    for allowance, expected in ((None, crossed), (0.0, True), (1.0, False)):
        args = {k: v.to(device) if v is not None else v for k, v in arguments(logits=False).items()}
        line_search_step(**args, tol=FINE, backend=backend)
        # the second class leads by one unit of the dtype, or by 1e-12
        lead = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps
        args["logits"] = torch.tensor([[1.0, 1.0 + lead]] * 3, dtype=dtype, device=device)
        assert (args["logits"][:, 1] > args["logits"][:, 0]).all()
        line_search_step(**args, tol=FINE, allowance=allowance, backend=backend)
        assert ((args["state"][:, FIELD["stage"]] == INSIDE) == expected).all()


def test_the_fields_are_those_of_the_native_core():
    header = Path(__file__).parents[2] / "csrc" / "core" / "bracket.hpp"
    struct = re.search(r"struct Search \{(.*?)\};", header.read_text(), re.DOTALL).group(1)
    names = [name.strip() for line in re.findall(r"double ([^;]*);", struct) for name in line.split(",")]
    assert names == list(FIELD)
    stages = re.search(r"enum Stage : int \{(.*?)\}", header.read_text()).group(1)
    assert [int(v) for v in re.findall(r"= (\d)", stages)] == [WAITING, PROBE, END, INSIDE, DONE]


# ---- wrong arguments


def test_an_unknown_method_or_backend_is_named():
    with pytest.raises(ValueError, match="method: expected one of chandrupatla, bisection, got 'newton'"):
        line_search_step(**arguments(), tol=FINE, method="newton")
    with pytest.raises(ValueError, match="backend: expected one of .* got 'fast'"):
        line_search_step(**arguments(), tol=FINE, backend="fast")


@pytest.mark.parametrize("name, change", [
    ("logits", lambda t: t[:2].clone()), ("rows", lambda t: t.int()), ("label", lambda t: t[:2].clone()),
    ("label", lambda t: t.int()), ("x", lambda t: t.long()), ("candidates", lambda t: t.float()),
    ("candidates", lambda t: t[:, :2].clone()), ("length", lambda t: t.float()), ("length", lambda t: t[:, :1].clone()),
    ("gap_end", lambda t: t.T.contiguous()), ("order", lambda t: t.int()), ("state", lambda t: t[:, :-1].clone()),
    ("state", lambda t: t.float()), ("next", lambda t: t[:2].clone()), ("next", lambda t: t.float()),
    ("closest", lambda t: t[:, :2].clone()), ("closest", lambda t: t.t().contiguous().t()),
])  # fmt: skip
def test_a_wrong_tensor_is_named(backend, device, name, change):
    if backend == "reference":
        pytest.skip("the reference does not look at its tensors")
    args = {k: v.to(device) for k, v in arguments().items()}
    args[name] = change(args[name])
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        line_search_step(**args, tol=FINE, backend=backend)


@pytest.mark.parametrize("name, value", [("tol", 0.0), ("tol", -1.0), ("tol", nan), ("probes", -1)])
def test_a_wrong_number_is_named(backend, device, name, value):
    args = {k: v.to(device) for k, v in arguments().items()}
    with pytest.raises(ValueError, match=f"^{name}: "):
        line_search_step(**args, **({"tol": FINE} | {name: value}), backend=backend)
