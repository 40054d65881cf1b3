"""The order in which a search evaluates its lines, and what it spares."""

import pytest
import torch

from python_tests.support.line_search import (
    COARSE,
    FINE,
    SINGLE,
    Problem,
    Run,
    along,
    arguments,
    check,
    configurations,
    cubic,
    doubles,
    flat_then_steep,
    inf,
    jump,
    kinked,
    linear,
    nan,
    zoo,
)
from robustperf.ops import line_search_step
from robustperf.ops.search_state import CLOSED, FIELD, OPEN, UNSEEN
from robustperf.ops.search_state import LINE_FIELD as LINE

OP = "line_search_step"


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
