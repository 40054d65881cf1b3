"""The line search step over a zoo of gaps: every backend's lines and state equal the reference's bit for bit, and the
result of a search is held against everything that it evaluated."""

import math
from random import Random

import pytest
import torch

from python_tests.support.line_search import (
    COARSE,
    FINE,
    SINGLE,
    WILD,
    Problem,
    Run,
    arguments,
    bits,
    check,
    configurations,
    cubic,
    doubles,
    exponential,
    inf,
    linear,
    never,
    zoo,
)
from robustperf.ops import line_search_step
from robustperf.ops.line_search_step import max_iterations
from robustperf.ops.search_state import CLOSED, FIELD, OPEN
from robustperf.ops.search_state import LINE_FIELD as LINE

OP = "line_search_step"


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
