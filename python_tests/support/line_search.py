"""Searches that are driven by gaps that are plain functions of the place, and what holds for every search."""

import math
from random import Random

import pytest
import torch

from robustperf.ops import line_search_step
from robustperf.ops.search_state import CLOSED, FIELD, UNSEEN, new_search
from robustperf.ops.search_state import LINE_FIELD as LINE

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
    """A line that has not been evaluated yet comes before any refinement, and of several the shortest one."""
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


def infinite(root, size):
    return lambda s: inf if s < root else -inf


def half_infinite(root, size):
    return lambda s: size if s < root else -inf


def at_the_end(root, size):
    return lambda s: size * (1 - s) if s < 1 else -size * 1e-12


def at_once(root, size):
    return lambda s: size * (1e-7 * root - s)


SINGLE = [linear, cubic, exponential, flat_then_steep, kinked, jump, infinite, half_infinite, at_the_end, at_once]


def plateau(root, size):
    return lambda s: size * max(root - s, 0.0) if s < root + 0.05 else -size  # zero is not crossed


def holes(root, size):
    return lambda s: nan if 0.3 < s < 0.35 or (root + 0.01 < s < root + 0.02) else size * (root - s)


def nothing_but_nan(root, size):
    return lambda s: nan


def wave(root, size):
    return lambda s: size * (0.2 + math.cos(s * 14 * root + root))


def never(root, size):
    return lambda s: size * (1.1 + root - s)


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
