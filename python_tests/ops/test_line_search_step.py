"""The line search step, driven by gaps that are plain functions of the place: every backend's lines and state equal
the reference's bit for bit, and what a search returns is held against everything that it evaluated."""

import dataclasses
import math
import re
from pathlib import Path
from random import Random

import pytest
import torch

from robustperf.ops import line_search_step
from robustperf.ops.line_search_step import max_iterations
from robustperf.ops.search_state import CLOSED, FIELD, OPEN, UNSEEN, Line, Search, new_search
from robustperf.ops.search_state import LINE_FIELD as LINE

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


class Run:
    """A search from its start to its end. visits[p]: (line, step, gap) in order; states and lines: after each step."""

    def __init__(self, problem, backend, device, *, tol=FINE, method="chandrupatla", probes=0, most=400):
        self.problem, self.tol = problem, tol
        points, dim = problem.x.shape
        x, candidates = problem.x.to(device), problem.candidates.to(device)
        label = torch.arange(points, device=device) % 2
        lines, state = new_search(*(t.to(device) for t in (problem.gap_x, problem.length, problem.gap_end)))
        closest = torch.full_like(x, nan)
        rows, places, logits = torch.arange(points, device=device), torch.full_like(x, nan), None
        self.states, self.lines = [], []
        self.visits, self.places = [[] for _ in range(points)], [[] for _ in range(points)]
        for _ in range(most):
            line_search_step(
                logits,
                rows,
                label,
                x,
                candidates,
                lines,
                state,
                places,
                closest,
                tol=tol,
                method=method,
                probes=probes,
                rounding_tolerance=0.0,
                backend=backend,
            )
            self.states.append(state.cpu().clone())
            self.lines.append(lines.cpu().clone())
            going = state[rows, FIELD["line"]] >= 0
            rows, places = rows[going].contiguous(), places[going].contiguous()
            if not len(rows):
                break
            gaps = []
            for m, p in enumerate(rows.tolist()):
                line, step = int(state[p, FIELD["line"]]), state[p, FIELD["step"]].item()
                gaps.append(problem.gap(p, line, step))
                self.visits[p].append((line, step, gaps[-1]))
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
    """What holds for every search, read from what was evaluated."""
    problem = run.problem
    assert (run.lines[-1][..., LINE["stage"]] == CLOSED).all()
    for p, visits in enumerate(run.visits):
        best, line, radius = (run.field(name)[p] for name in ("best_step", "best_line", "radius"))
        assert run.field("line")[p] == -1 and run.field("evaluations")[p] == len(visits)
        assert len({(a, step) for a, step, _ in visits}) == len(visits), "a place was evaluated twice"
        for (a, step, _), place in zip(visits, run.places[p], strict=True):
            assert 0 < step <= 1 and problem.length[p, a] < inf
            assert torch.equal(place, along(problem.x[p], problem.candidates[a, p], step))
        check_every_line_first(run, p)
        ends = {a: gap for a, gap in enumerate(problem.gap_end[p].tolist()) if not math.isnan(gap)}
        seen = visits + [(a, 1.0, gap) for a, gap in ends.items()]
        seen = [(a, step, gap < 0) for a, step, gap in seen if problem.length[p, a] < inf]
        crossed = [(a, step) for a, step, below_zero in seen if below_zero]
        for a, length in enumerate(problem.length[p].tolist()):
            if length == inf:
                continue
            first = min([step for b, step in crossed if b == a], default=inf)
            before = max([step for b, step, below_zero in seen if b == a and not below_zero and step < first] + [0.0])
            within = min(1.0, radius / length - run.tol)
            assert before >= within - 1e-12, "a line was left where it could have held a nearer crossing"
        if line == -1:
            assert best == radius == inf and run.closest[p].isnan().all() and not crossed
            continue
        line = int(line)
        assert (line, best) in crossed, "the place returned was not seen under another label"
        below = [step for a, step, below_zero in seen if a == line and not below_zero and step < best] + [0.0]
        assert best - max(below) <= run.tol, "the bracket is wider than tol"
        assert radius == best * problem.length[p, line]
        assert all(radius <= step * problem.length[p, a].item() * (1 + 1e-12) for a, step in crossed)
        assert torch.equal(run.closest[p], along(problem.x[p], problem.candidates[line, p], best))


def check_every_line_first(run, p):
    """A line that has not been told apart yet comes before any refinement, and of several the shortest one."""
    for state, lines in zip(run.states, run.lines, strict=True):
        unseen = (lines[p, :, LINE["stage"]] == UNSEEN).nonzero()[:, 0].tolist()
        if unseen:
            assert int(state[p, FIELD["line"]]) == min(unseen, key=lambda a: run.problem.length[p, a].item())


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
    problem = Problem(
        points,
        lines,
        zoo(points, lines, SINGLE + WILD, seed=probes),
        dtype=dtype,
        known=known,
        gap_x=lambda p: (1.0, 1e-280, 1e9, inf)[p % 4],
    )
    problem.length[3] = inf
    problem.length[::5, 1] = inf
    problem.length[1::5, 2] = problem.length[1::5, 0]
    run = Run(problem, backend, device, tol=tol, method=method, probes=probes)
    check(run)
    assert run.visits[3] == [] and run.field("best_line")[3] == -1
    assert len({line for visits in run.visits for line, _, _ in visits}) == lines
    if backend != "reference":
        want = Run(problem, "reference", "cpu", tol=tol, method=method, probes=probes)
        assert len(run.states) == len(want.states)
        for step, (got, state) in enumerate(zip(run.states, want.states, strict=True)):
            assert torch.equal(bits(got), bits(state)), f"the states part at step {step}"
        for step, (got, lines) in enumerate(zip(run.lines, want.lines, strict=True)):
            assert torch.equal(bits(got), bits(lines)), f"the lines part at step {step}"
        assert torch.equal(bits(run.closest.double()), bits(want.closest.double()))
        assert all(
            torch.equal(a, b)
            for got, places in zip(run.places, want.places, strict=True)
            for a, b in zip(got, places, strict=True)
        )


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
    for visits in run.visits:
        assert abs(len(visits) - (not known) + math.log2(tol)) <= 1


@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tol", [FINE, COARSE])
def test_no_gap_takes_more_than_three_bisections(backend, device, tol, seed, lines):
    """The gap is made up as the search goes, so that the larger part of the bracket is what remains."""
    points = 25
    random = Random(seed)
    brackets = {}

    def adversary(p, a, s):
        if (p, a) not in brackets:
            brackets[p, a] = [0.0, s]
            return -size()
        low, high = brackets[p, a]
        if not low < s < high:  # where the line is dropped or known already
            return size() if s <= low else -size()
        keeps_upper = high - s > s - low
        brackets[p, a][not keeps_upper] = s
        return size() if keeps_upper else -size()

    def size():
        return (1 + random.random()) * 10.0 ** random.choice([0, 0, random.uniform(-3, 3), random.uniform(-200, 200)])

    run = Run(Problem(points, lines, adversary), backend, device, tol=tol)
    check(run)
    for visits in run.visits:
        for a in range(lines):
            # and the first evaluation, and one for each other line whose bracket closed before
            assert sum(line == a for line, _, _ in visits) <= 3 * -math.log2(tol) + 1 + lines - 1


def test_a_bracket_is_halved_at_the_iteration_cap(backend, device):
    assert max_iterations(FINE) == 40 and max_iterations(COARSE) == 12 and max_iterations(0.3) == 4
    for iterations, halved in ((0, False), (38, False), (39, True), (100, True)):
        args = {k: v.to(device) for k, v in arguments().items()}
        bracket = {"a": 0.5, "gap_a": -0.1, "b": 0.0, "gap_b": 0.5, "c": 1.0, "gap_c": -0.8, "iterations": iterations,
                   "probe": 0.0, "stage": OPEN}  # fmt: skip
        args["lines"][..., LINE["stage"]] = CLOSED
        for name, value in bracket.items():
            args["lines"][:, 1, LINE[name]] = value
        args["state"][:, FIELD["line"]], args["state"][:, FIELD["step"]] = 1.0, 0.4
        args["logits"] = torch.tensor([[0.02, 0.0]], device=device).repeat(3, 1)
        line_search_step(**args, tol=FINE, rounding_tolerance=0.0, backend=backend)
        step = args["state"][0, FIELD["step"]].item()
        assert args["state"][0, FIELD["line"]] == 1 and 0.4 < step < 0.5
        assert (step == (0.4 + 0.5) / 2) is halved, iterations
        assert args["lines"][0, 1, LINE["iterations"]] == iterations + 1


def test_smooth_gaps_take_few_evaluations(backend, device):
    problem = Problem(60, 1, zoo(60, 1, [linear, cubic, exponential], seed=7), gap_x=None, known=True)
    problem.gap_x = doubles(*(problem.gap(p, 0, 0.0) for p in range(60)))
    run = Run(problem, backend, device)
    check(run)
    visits = sorted(map(len, run.visits))
    assert visits[30] <= 8 and visits[-1] <= 16  # where bisection takes 20


def test_a_straight_line_takes_two_evaluations(backend, device):
    problem = Problem(1, 1, lambda p, a, s: 0.3 - s, gap_x=lambda p: 0.3, known=True)
    run = Run(problem, backend, device)
    check(run)
    first, *second = (step for _, step, _ in run.visits[0])
    assert first == pytest.approx(0.3, abs=1e-15) and len(second) == 1
    assert abs(second[0] - first) == pytest.approx(0.99 * FINE)


def test_probes_find_the_first_of_several_crossings(backend, device):
    def window(p, a, s):  # crossed within [0.45, 0.55] and from 0.9 on
        return -1.0 if 0.45 <= s < 0.55 or s >= 0.9 else 1.0

    without, probed = (Run(Problem(1, 1, window), backend, device, probes=n) for n in (0, 3))
    check(probed)
    assert [step for _, step, _ in probed.visits[0][:2]] == [0.25, 0.5]
    assert probed.field("best_step")[0] == pytest.approx(0.45, abs=FINE)
    assert without.visits[0][0][1] == 1.0
    for known, last in ((False, [1.0]), (True, [])):
        none = Run(Problem(1, 1, lambda p, a, s: 1.0, known=known), backend, device, probes=3)
        assert [step for _, step, _ in none.visits[0]] == [0.25, 0.5, 0.75, *last]
        at_end = Run(Problem(1, 1, lambda p, a, s: 1.0 if s < 1 else -1.0, known=known), backend, device, probes=3)
        assert [step for _, step, _ in at_end.visits[0]][:5] == [0.25, 0.5, 0.75, *last, 0.875, 0.9375][:5]
        check(none)
        check(at_end)
    # a known gap at the end does not take the probes' place
    known = Run(Problem(1, 1, window, known=True), backend, device, probes=3)
    assert known.visits == probed.visits


def test_probes_beyond_the_nearest_crossing_known_are_left_out(backend, device):
    problem = Problem(1, 2, lambda p, a, s: (0.3, 2.0)[a] - s)
    problem.length[0] = doubles(1.0, 2.0)
    run = Run(problem, backend, device, probes=3)
    check(run)
    assert run.visits[0][:2] == [(0, 0.25, 0.3 - 0.25), (0, 0.5, 0.3 - 0.5)]  # the shorter line up to its crossing
    # of the longer one the nearer half of that place is of interest; the probe at 0.25 is its end and not within
    assert [(a, step) for a, step, _ in run.visits[0]][2] == (1, 0.25 - FINE)
    assert [step for a, step, _ in run.visits[0] if a == 1] == [0.25 - FINE]
    problem.length[0] = doubles(1.0, 1.5)
    run = Run(problem, backend, device, probes=3)
    assert [step for a, step, _ in run.visits[0] if a == 1] == [0.25, pytest.approx(1 / 3 - FINE)]


def test_every_line_is_evaluated_once_from_the_shortest_on(backend, device):
    problem = Problem(4, 4, lambda p, a, s: 1.0)
    problem.length[3] = 1.0
    run = Run(problem, backend, device)
    check(run)
    for p, visits in enumerate(run.visits):
        shortest_first = problem.length[p].argsort(stable=True).tolist()
        assert [(a, step) for a, step, _ in visits] == [(a, 1.0) for a in shortest_first]
    assert [a for a, _, _ in run.visits[3]] == [0, 1, 2, 3], "of lines of one length the first comes first"
    assert run.field("evaluations") == [4.0] * 4 and run.closest.isnan().all()


@configurations
def test_every_line_is_evaluated_before_any_is_refined(backend, device, method, probes, tol):
    points, lines = 20, 4
    problem = Problem(points, lines, zoo(points, lines, SINGLE, seed=9), known="half")
    run = Run(problem, backend, device, tol=tol, method=method, probes=probes)
    check(run)
    refined_at_last = 0
    for p, visits in enumerate(run.visits):
        known = {a for a in range(lines) if problem.gap_end[p, a] < 0}
        crossed = set() if probes else known.copy()
        first_lengths, bound, refining = [], min([problem.length[p, a].item() for a in crossed], default=inf), False
        for a, step, gap in visits:
            length = problem.length[p, a].item()
            if a in crossed:
                refining = True
                continue
            assert not refining, "a line was evaluated for the first time after another was refined"
            end = min(1.0, bound / length - tol)  # or where the nearest crossing known lies
            assert step == end or (step < end and step * (probes + 1) in range(1, probes + 1))
            first_lengths += [length] if length not in first_lengths else []
            if gap < 0:
                crossed.add(a)
                bound = min(bound, step * length)
            elif step == probes / (probes + 1) and a in known and end == 1:  # what is at the end is known
                crossed.add(a)
                bound = min(bound, length)
        assert first_lengths == sorted(first_lengths), "not from the shortest on"
        assert probes or len(first_lengths) == problem.gap_end[p].isnan().sum()
        refined_at_last += refining
    assert refined_at_last == points


def test_a_line_that_has_not_crossed_by_the_bound_costs_one_evaluation(backend, device):
    problem = Problem(1, 3, lambda p, a, s: (0.5, 0.9, 0.2)[a] - s)
    problem.length[:] = torch.tensor([1.0, 2.0, 1.5])
    run = Run(problem, backend, device)
    check(run)
    assert [a for a, _, _ in run.visits[0]][:3] == [0, 2, 1]
    second = [step for a, step, _ in run.visits[0] if a == 1]
    assert second == [pytest.approx(0.5 - FINE, abs=2 * FINE)] and second[0] < 0.5
    assert run.field("best_line") == [2.0] and run.field("radius")[0] == pytest.approx(0.3, abs=2 * FINE)
    third = [step for a, step, _ in run.visits[0] if a == 2]
    assert third[0] == 1 / 1.5 - FINE and max(third) == third[0]


def test_a_line_that_has_not_crossed_by_the_radius_costs_one_evaluation_more(backend, device):
    problem = Problem(1, 3, lambda p, a, s: (0.3, 0.6, 0.4)[a] - s)
    problem.gap_x, problem.length[:] = doubles(0.3), doubles(1.0, 1.0, 1.25)
    problem.gap = lambda p, a, s: (0.3 - s, (0.6 - s) / 2, (0.4 - s) * 0.75)[a]  # of one gap at x
    run = Run(problem, backend, device)
    check(run)
    (a, first), (b, second), (c, third), *rest = ((line, step) for line, step, _ in run.visits[0])
    assert [(a, first), (b, second), (c, third)] == [(0, 1.0), (1, 1.0 - FINE), (2, (1.0 - FINE) / 1.25 - FINE)]
    assert [line for line, _ in rest] == [0, 0, 2, 1], "the nearest promise first"
    radius = run.field("radius")[0]
    assert run.field("best_line") == [0.0] and radius == pytest.approx(0.3, abs=FINE)
    assert rest[2][1] == radius / 1.25 - FINE and rest[3][1] == radius - FINE


def test_a_line_that_has_crossed_by_the_radius_is_searched_on(backend, device):
    """The second line promises 0.6 and crosses at 0.1."""
    gap = lambda p, a, s: 0.3 - s if a == 0 else (0.1 - s) * 3 if s < 0.1 else (0.1 - s) * 0.2 / 0.9  # noqa: E731
    problem = Problem(1, 2, gap, gap_x=lambda p: 0.3)
    problem.length[:] = 1.0
    run = Run(problem, backend, device)
    check(run)
    radii = sorted({state[0, FIELD["radius"]].item() for state in run.states}, reverse=True)
    assert radii == [inf, pytest.approx(0.3, abs=FINE), pytest.approx(0.1, abs=FINE)]
    assert run.field("best_line") == [1.0] and run.field("radius")[0] == radii[2]
    assert [a for a, _, _ in run.visits[0]][:5] == [0, 1, 0, 0, 1] and run.visits[0][4][1] == radii[1] - FINE


@configurations
def test_the_line_of_the_nearest_promise_is_refined(backend, device, method, probes, tol):
    """The estimate is the secant's of the bracket, read from what was evaluated."""
    points, lines = 20, 4
    kinds = [linear, cubic, flat_then_steep, kinked, jump]
    gap, gap_x = zoo(points, lines, kinds, seed=10), 0.7
    problem = Problem(points, lines, gap, gap_x=lambda p: gap_x)
    run = Run(problem, backend, device, tol=tol, method=method, probes=probes)
    check(run)
    choices = 0
    for p, visits in enumerate(run.visits):
        length = problem.length[p].tolist()
        low, high = {a: (0.0, gap_x) for a in range(lines)}, {}
        for state, stages in zip(run.states, (lines[p, :, LINE["stage"]] for lines in run.lines), strict=True):
            turn, evaluations = int(state[p, FIELD["line"]]), int(state[p, FIELD["evaluations"]])
            if evaluations and turn >= 0:
                a, step, seen = visits[evaluations - 1]
                (high if seen < 0 else low)[a] = step, seen
            if turn < 0 or (stages == UNSEEN).any():
                continue
            opened = (stages == OPEN).nonzero()[:, 0].tolist()
            promises = {}
            for a in opened:
                (s, g), (t, h) = low[a], high[a]
                promises[a] = length[a] * (s + (t - s) * g / (g - h))
            assert promises[turn] <= min(promises.values()) + 1e-12
            choices += len(opened) > 1
    assert choices > 20


def test_the_nearest_crossing_seen_is_the_one_returned(backend, device):
    """The second line's bracket is down to tol; then the first one's is, at a crossing farther by less than tol."""
    args = {k: v.to(device) for k, v in arguments(points=1).items()}
    near, far = 0.5 + 0.5 * COARSE, 0.5 + 0.9 * COARSE
    first = {"length": 1.0, "a": 0.5, "gap_a": 0.1, "b": 0.9, "gap_b": -9.0, "iterations": 0.0, "stage": OPEN}
    second = {"length": 1.0, "a": 0.5 - 0.05 * COARSE, "gap_a": 0.1, "b": near, "gap_b": -0.1, "iterations": 0.0,
              "stage": OPEN}  # fmt: skip
    for a, bracket in enumerate((first, second)):
        for name, value in bracket.items():
            args["lines"][:, a, LINE[name]] = value
    args["state"][:, FIELD["line"]], args["state"][:, FIELD["step"]] = 0.0, far
    args["logits"] = torch.tensor([[0.0, 9.0]], device=device)
    line_search_step(**args, tol=COARSE, rounding_tolerance=0.0, backend=backend)
    state, closest = (args[name][0].cpu() for name in ("state", "closest"))
    assert state[FIELD["line"]] == -1 and state[FIELD["best_line"]] == 1
    assert state[FIELD["radius"]] == state[FIELD["best_step"]] == near
    assert torch.equal(closest, along(args["x"][0].cpu(), args["candidates"][1, 0].cpu(), near))


def test_of_identical_candidates_the_first_wins(backend, device):
    for count, crosses in ((4, True), (4, False), (1, True)):
        root = 0.3 if crosses else 1.3
        problem = Problem(1, count, lambda p, a, s, root=root: root - s, gap_x=lambda p, root=root: root)
        problem.length[:] = 1.25
        run = Run(problem, backend, device)
        check(run)
        per_line = [sum(line == a for line, _, _ in run.visits[0]) for a in range(count)]
        if crosses:  # the end and two inside; another one's nearest crossing known and the radius
            assert per_line == [3] + [2] * (count - 1)
            assert run.field("best_line") == [0.0]
            assert run.field("radius")[0] == pytest.approx(0.375, abs=2 * FINE)
        else:
            assert per_line == [1] * count and run.field("best_line") == [-1.0]


def test_known_gaps_save_the_evaluations_at_the_ends(backend, device):
    for known in (False, True):
        run = Run(Problem(1, 1, lambda p, a, s: 0.25 - s, gap_x=lambda p: 0.25, known=known), backend, device)
        assert (run.visits[0][0][1] == 1.0) is not known
        check(run)
    # of several lines: those that have not crossed are closed from the start, the others open
    gap = lambda p, a, s: (0.3, 1.5, 0.6, 1.2)[a] - s  # noqa: E731
    run = Run(Problem(1, 4, gap, gap_x=lambda p: 0.3, known=True), backend, device)
    check(run)
    assert run.lines[0][0, :, LINE["stage"]].tolist() == [OPEN, CLOSED, OPEN, CLOSED]
    assert {a for a, _, _ in run.visits[0]} <= {0, 2}
    never_crossing = Run(Problem(2, 3, lambda p, a, s: 1.0, known=True), backend, device)
    check(never_crossing)
    assert never_crossing.visits == [[], []] and never_crossing.field("line") == [-1.0, -1.0]


def test_a_known_crossing_bounds_the_lines_that_are_not_known(backend, device):
    problem = Problem(1, 3, lambda p, a, s: (0.5, 0.9, 1.5)[a] - s)
    problem.length[0], problem.gap_end[0] = doubles(1.0, 2.0, 0.5), doubles(-0.5, nan, nan)
    run = Run(problem, backend, device)
    check(run)
    assert [(a, step) for a, step, _ in run.visits[0]][:2] == [(2, 1.0), (1, 0.5 - FINE)]
    assert {a for a, _, _ in run.visits[0][2:]} == {0}


def test_stages_follow_each_other(backend, device):
    problem = Problem(1, 2, lambda p, a, s: 0.6 - s)
    problem.length[0] = doubles(1.0, 1.5)
    lines, state = new_search(problem.gap_x, problem.length, problem.gap_end)
    assert (lines[..., LINE["stage"]] == UNSEEN).all() and (state[:, FIELD["line"]] == -1).all()
    run = Run(problem, backend, device, probes=3)
    check(run)
    stages = [tuple(map(int, lines[0, :, LINE["stage"]].tolist())) for lines in run.lines]
    # three probes of the first line, two of the second, up to the crossing found
    assert stages[:3] == [(UNSEEN, UNSEEN)] * 3 and stages[3] == (OPEN, UNSEEN) and stages[-1] == (CLOSED, CLOSED)
    for before, after in zip(stages, stages[1:], strict=False):
        assert all(one <= other for one, other in zip(before, after, strict=True)), "a stage came back"
    assert [lines[0, 0, LINE["probe"]].item() for lines in run.lines[:4]] == [0, 1, 2, 2]


@pytest.mark.parametrize("known", [True, False])
def test_a_bracket_starts_from_the_end_of_the_smaller_gap(backend, device, known):
    """Chandrupatla's choice at the second evaluation depends on which of the two is the latest place."""
    for at_x, at_end, a, b in ((0.25, -9.0, 0.0, 1.0), (9.0, -0.25, 1.0, 0.0), (1.0, -1.0, 0.0, 1.0)):
        root = at_x / (at_x - at_end)
        problem = Problem(
            1,
            1,
            lambda p, a, s, size=at_x / root, root=root: size * (root - s),
            gap_x=lambda p, at_x=at_x: at_x,
            known=known,
        )
        lines = Run(problem, backend, device).lines
        line = Line(*lines[0 if known else 1][0, 0].tolist())
        assert (line.a, line.b, line.stage, line.iterations) == (a, b, OPEN, 0)
        gaps = {0.0: at_x, 1.0: at_end}
        assert (line.gap_a, line.gap_b) == (pytest.approx(gaps[a]), pytest.approx(gaps[b]))
        assert math.isnan(line.c) and math.isnan(line.gap_c)


def test_a_new_search_knows_lengths_and_ends_alone():
    problem = Problem(3, 2, lambda p, a, s: 0.6 - s, known="half", gap_x=lambda p: p + 1.0)
    lines, state = new_search(problem.gap_x, problem.length, problem.gap_end)
    assert lines.shape == (3, 2, len(LINE)) and state.shape == (3, len(FIELD))
    assert lines.dtype == state.dtype == torch.float64 and lines.is_contiguous() and state.is_contiguous()
    assert torch.equal(lines[..., LINE["length"]], problem.length)
    assert torch.equal(bits(lines[..., LINE["gap_end"]]), bits(problem.gap_end))
    for row in lines.flatten(0, 1).tolist():
        line = Line(*row)
        assert (line.iterations, line.probe, line.stage) == (0, 0, UNSEEN)
        assert all(map(math.isnan, (line.a, line.gap_a, line.b, line.gap_b, line.c, line.gap_c)))
    for p, row in enumerate(state.tolist()):
        search = Search(*row)
        assert (search.gap_x, search.line, search.best_line, search.evaluations) == (p + 1.0, -1, -1, 0)
        assert search.radius == search.best_step == inf


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
        for (a, step, _), place in zip(run.visits[p], places, strict=True):
            x, x_adv = problem.x[p], problem.candidates[a, p]
            assert (place >= torch.minimum(x, x_adv)).all() and (place <= torch.maximum(x, x_adv)).all()
            if step == 1.0:
                assert torch.equal(place, x_adv)
            exact = x.double() + step * (x_adv.double() - x.double())
            assert (place.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps


def test_places_of_all_backends_agree_just_below_one(backend, device):
    """The second line is longer than the first by less than float32 can tell: what is of interest of it rounds to 1."""
    problem = Problem(1, 2, lambda p, a, s: 1.0 if a == 1 or s < 1 else -1.0, dim=500, dtype=torch.float32, known=True)
    problem.length[0], problem.gap_end[0, 1] = doubles(1.0, 1.0 + 2.0**-30), nan
    run, want = (Run(problem, name, place, tol=2.0**-31) for name, place in ((backend, device), ("reference", "cpu")))
    check(run)
    assert run.visits[0][0][0] == 1 and 1 - 2.0**-29 < run.visits[0][0][1] < 1
    assert all(torch.equal(place, other) for place, other in zip(run.places[0], want.places[0], strict=True))


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
    known, state = new_search(problem.gap_x, problem.length, problem.gap_end)
    return {"logits": torch.tensor([[1.0, 0.0]]).repeat(active, 1) if logits else None,
            "rows": torch.arange(active), "label": torch.zeros(points, dtype=torch.int64), "x": problem.x[:, :dim]
            .contiguous(), "candidates": problem.candidates[..., :dim].contiguous(), "lines": known, "state": state,
            "next": torch.full((active, dim), -5.0, dtype=torch.float64),
            "closest": torch.full((points, dim), -7.0, dtype=torch.float64)}  # fmt: skip


def test_rows_that_are_done_or_not_active_are_left_alone(backend, device):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points=5, active=2, logits=False).items()}
    args["rows"] = torch.tensor([4, 1], device=device)
    before = {name: args[name].clone() for name in ("lines", "state")}
    line_search_step(**args, tol=FINE, backend=backend)
    for name, was in before.items():
        assert all(torch.equal(bits(args[name][p].cpu()), bits(was[p].cpu())) for p in (0, 2, 3)), name
    assert (args["closest"] == -7).all()
    for m, p in ((0, 4), (1, 1)):
        first = int(args["lines"][p, :, LINE["length"]].argmin())
        assert args["state"][p, FIELD["line"]] == first and args["state"][p, FIELD["step"]] == 1
        assert torch.equal(args["next"][m], args["candidates"][first, p])
        assert (args["lines"][p, :, LINE["stage"]] == UNSEEN).all()
    args["state"][1, FIELD["line"]] = -1.0  # done
    args["logits"] = torch.tensor([[0.0, 1.0]], device=device).repeat(2, 1)
    args["next"][1] = -5.0
    before = {name: args[name].clone() for name in ("lines", "state")}
    line_search_step(**args, tol=FINE, backend=backend)
    for name, was in before.items():
        assert torch.equal(bits(args[name][:4].cpu()), bits(was[:4].cpu())), name
        assert not torch.equal(bits(args[name][4].cpu()), bits(was[4].cpu())), name
    assert (args["next"][1] == -5).all() and (args["closest"] == -7).all()


@pytest.mark.parametrize("points, lines", [(0, 2), (3, 0)])
def test_nothing_to_search(backend, device, points, lines):
    args = {k: v.to(device) if v is not None else v for k, v in arguments(points, lines, logits=False).items()}
    line_search_step(**args, tol=FINE, backend=backend)
    for seen in (None, torch.zeros(points, 2, device=device)):
        args["logits"] = seen
        line_search_step(**args, tol=FINE, backend=backend)
        assert (args["state"][:, FIELD["line"]] == -1).all() and (args["state"][:, FIELD["best_line"]] == -1).all()
        assert (args["next"] == -5).all() and (args["closest"] == -7).all()


@pytest.mark.parametrize("dtype, crossed", [
    (torch.float64, True), (torch.float32, False), (torch.bfloat16, False), (torch.float16, False)
], ids=str)  # fmt: skip
def test_the_rounding_tolerance_is_that_of_the_logits_dtype(backend, device, dtype, crossed):
    for tolerance, expected in ((None, crossed), (0.0, True), (1.0, False)):
        args = {k: v.to(device) if v is not None else v for k, v in arguments(logits=False).items()}
        line_search_step(**args, tol=FINE, backend=backend)
        # the second class leads by one unit of the dtype, or by 1e-12
        lead = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps
        args["logits"] = torch.tensor([[1.0, 1.0 + lead]] * 3, dtype=dtype, device=device)
        assert (args["logits"][:, 1] > args["logits"][:, 0]).all()
        line_search_step(**args, tol=FINE, rounding_tolerance=tolerance, backend=backend)
        first = args["lines"][:, :, LINE["length"]].argmin(1)
        stages = args["lines"][torch.arange(3, device=device), first, LINE["stage"]]
        assert (stages == (OPEN if expected else CLOSED)).all()


def test_the_fields_are_those_of_the_native_core():
    header = (Path(__file__).parents[2] / "csrc" / "core" / "bracket.hpp").read_text()
    for name, mine in (("Line", Line), ("Search", Search)):
        struct = re.search(rf"struct {name} \{{(.*?)\}};", header, re.DOTALL).group(1)
        names = [name.strip() for line in re.findall(r"double ([^;]*);", struct) for name in line.split(",")]
        assert names == [field.name for field in dataclasses.fields(mine)]
    assert list(FIELD.items()) == [(field.name, i) for i, field in enumerate(dataclasses.fields(Search))]
    stages = re.search(r"enum Stage : int \{(.*?)\}", header).group(1)
    assert re.findall(r"k(\w+) = (\d)", stages) == [("Unseen", str(UNSEEN)), ("Open", str(OPEN)),
                                                     ("Closed", str(CLOSED))]  # fmt: skip


# ---- wrong arguments


def test_an_unknown_method_or_backend_is_named():
    with pytest.raises(ValueError, match="method: expected one of chandrupatla, bisection, got 'newton'"):
        line_search_step(**arguments(), tol=FINE, method="newton")
    with pytest.raises(ValueError, match="backend: expected one of .* got 'fast'"):
        line_search_step(**arguments(), tol=FINE, backend="fast")


@pytest.mark.parametrize("name, change", [
    ("logits", lambda t: t[:2].clone()), ("rows", lambda t: t.int()), ("label", lambda t: t[:2].clone()),
    ("label", lambda t: t.int()), ("x", lambda t: t.long()), ("candidates", lambda t: t.float()),
    ("candidates", lambda t: t[:, :2].clone()), ("lines", lambda t: t.float()), ("lines", lambda t: t[:, :1].clone()),
    ("lines", lambda t: t[:2].clone()), ("lines", lambda t: t[..., :-1].clone()),
    ("lines", lambda t: t.transpose(0, 1).contiguous()),
    ("lines", lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)), ("state", lambda t: t[:, :-1].clone()),
    ("state", lambda t: t.float()), ("next", lambda t: t[:2].clone()), ("next", lambda t: t.float()),
    ("closest", lambda t: t[:, :2].clone()), ("closest", lambda t: t.t().contiguous().t()),
])  # fmt: skip
def test_a_wrong_tensor_is_named(backend, device, name, change):
    args = {k: v.to(device) for k, v in arguments().items()}
    args[name] = change(args[name])
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        line_search_step(**args, tol=FINE, backend=backend)


@pytest.mark.parametrize("name, value", [("tol", 0.0), ("tol", -1.0), ("tol", nan), ("probes", -1)])
def test_a_wrong_number_is_named(backend, device, name, value):
    args = {k: v.to(device) for k, v in arguments().items()}
    with pytest.raises(ValueError, match=f"^{name}: "):
        line_search_step(**args, **({"tol": FINE} | {name: value}), backend=backend)
