"""The search of one point at a time in Python's floats, which are doubles: the results equal the native ones bit for
bit."""

import math
from dataclasses import astuple

import torch

from robustperf.ops.reference.logit_gap import logit_gap
from robustperf.ops.search_state import CLOSED, OPEN, UNSEEN, Line, Search


def line_search_step(
    logits,
    rows,
    label,
    x,
    candidates,
    lines,
    state,
    next,
    closest,
    rounding_tolerance,
    tol,
    bisection,
    probes,
    max_iterations,
):
    method = _Method(tol, bisection, probes, max_iterations)
    gaps = None if logits is None else logit_gap(logits, label[rows], rounding_tolerance).tolist()
    for m, p in enumerate(rows.tolist()):
        s, ensemble = Search(*state[p].tolist()), [Line(*line) for line in lines[p].tolist()]
        if gaps is None:
            method.begin(s, ensemble)
            nearer = method.choose(s, ensemble)
        else:
            nearer = s.line >= 0 and method.advance(s, gaps[m], ensemble)
        if nearer:
            closest[p] = along(x[p], candidates[int(s.best_line), p], s.best_step)
        if s.line >= 0:
            next[m] = along(x[p], candidates[int(s.line), p], s.step)
        state[p] = torch.tensor(astuple(s), dtype=torch.float64)
        if ensemble:
            lines[p] = torch.tensor([astuple(line) for line in ensemble], dtype=torch.float64)


def along(x, x_adv, step):
    """x + step (x' - x), never outside the interval between the two, and x' itself at step 1."""
    t = torch.tensor(step, dtype=x.dtype)
    if t == 1:
        return x_adv
    return (x + t * (x_adv - x)).clamp(torch.minimum(x, x_adv), torch.maximum(x, x_adv))


def crossed_end(line):
    return line.a if line.gap_a < 0 else line.b


def uncrossed_end(line):
    return line.b if line.gap_a < 0 else line.a


def secant_estimate(line):
    """The distance from x at which the secant of the bracket crosses zero."""
    t = line.gap_a / (line.gap_a - line.gap_b)  # of opposite signs: never zero
    return line.length * (line.a + (t if math.isfinite(t) else 0.5) * (line.b - line.a))


def open_bracket(line, place, gap):
    if abs(gap) < abs(line.gap_a):
        line.a, line.gap_a, line.b, line.gap_b = place, gap, line.a, line.gap_a
    else:
        line.b, line.gap_b = place, gap
    line.stage = OPEN


class _Method:
    def __init__(self, tol, bisection, probes, max_iterations):
        self.tol, self.bisection, self.probes, self.max_iterations = tol, bisection, probes, max_iterations

    def begin(self, s, lines):
        """Before the first evaluation: lines whose far ends are known are open or closed already."""
        for line in lines:
            line.a, line.gap_a = 0.0, s.gap_x
            if not math.isfinite(line.length):
                line.stage = CLOSED
            elif self.probes > 0 or math.isnan(line.gap_end):
                line.stage = UNSEEN
            elif line.gap_end < 0:
                open_bracket(line, 1.0, line.gap_end)
            else:
                line.stage = CLOSED

    def choose(self, s, lines):
        """Chooses the place to evaluate next; True when a bracket closed on a crossing nearer than any before."""
        nearer = False
        while True:
            for line in lines:  # a gain over the radius below the tolerance is not worth an evaluation
                if (
                    line.stage == OPEN
                    and not self.narrow(line)
                    and (uncrossed_end(line) >= s.radius / line.length - self.tol)
                ):
                    line.stage = CLOSED
            unseen = [i for i, line in enumerate(lines) if line.stage == UNSEEN]
            opened = [i for i, line in enumerate(lines) if line.stage == OPEN]
            if unseen:
                bound = min([s.radius, *(crossed_end(lines[i]) * lines[i].length for i in opened)])
                i = min(unseen, key=lambda i: lines[i].length)
                if self.advance_unseen(s, lines[i], bound):
                    s.line = i
                    return nearer
                continue
            if not opened:
                s.line = -1
                return nearer
            s.line = min(opened, key=lambda i: -1.0 if self.narrow(lines[i]) else secant_estimate(lines[i]))
            line = lines[s.line]
            within = s.radius / line.length - self.tol
            s.step = within if within < crossed_end(line) else self.inside(line)
            if abs(line.b - line.a) > self.tol and s.step not in (line.a, line.b):
                return nearer
            line.stage = CLOSED
            if crossed_end(line) * line.length < s.radius:
                s.best_step, s.best_line = crossed_end(line), s.line
                s.radius = s.best_step * line.length
                nearer = True

    def narrow(self, line):
        """Down to the tolerance: it needs no evaluation, and comes first."""
        return abs(line.b - line.a) <= self.tol

    def advance_unseen(self, s, line, bound):
        """Sets the next place on an unseen line; False when there is none or its gap is known."""
        end = min(1.0, bound / line.length - self.tol)
        place = (line.probe + 1) / (self.probes + 1)
        place = place if line.probe < self.probes and place < end else end
        if end <= line.a:
            line.stage = CLOSED
        elif place == 1.0 and not math.isnan(line.gap_end):
            if line.gap_end < 0:
                open_bracket(line, 1.0, line.gap_end)
            else:
                line.stage = CLOSED
        else:
            s.step = place
            return True
        return False

    def advance(self, s, gap, lines):
        """Takes the gap at s.step of s.line, and chooses the place to evaluate next; returns as `choose`."""
        s.evaluations += 1
        line = lines[int(s.line)]
        crossed = gap < 0
        if line.stage == OPEN:
            line.iterations += 1
            if crossed == (line.gap_a < 0):
                line.c, line.gap_c = line.a, line.gap_a
            else:
                line.c, line.gap_c = line.b, line.gap_b
                line.b, line.gap_b = line.a, line.gap_a
            line.a, line.gap_a = s.step, gap
        elif crossed:
            open_bracket(line, s.step, gap)
        else:
            line.a, line.gap_a = s.step, gap
            if s.step == (line.probe + 1) / (self.probes + 1) and s.step < 1:
                line.probe += 1
            else:
                line.stage = CLOSED
        return self.choose(s, lines)

    def inside(self, s):
        t = 0.5
        margin = 0.99 * self.tol / abs(s.b - s.a)
        trusted = not self.bisection and s.iterations < self.max_iterations
        if trusted and math.isfinite(s.gap_a) and math.isfinite(s.gap_b):
            if s.iterations == 0:
                t = s.gap_a / (s.gap_a - s.gap_b)
            elif math.isfinite(s.gap_c):
                t = self.chandrupatla(s)
            t = max(margin, min(t, 1.0 - margin)) if margin < 0.5 and t == t else 0.5
        place = s.a + t * (s.b - s.a)
        return s.a + 0.5 * (s.b - s.a) if place in (s.a, s.b) else place

    @staticmethod
    def chandrupatla(s):
        try:
            xi = (s.a - s.b) / (s.c - s.b)
            phi = (s.gap_a - s.gap_b) / (s.gap_c - s.gap_b)
            if not (1.0 - math.sqrt(1.0 - xi) < phi < math.sqrt(xi)):
                return 0.5
            return s.gap_a / (s.gap_b - s.gap_a) * (s.gap_c / (s.gap_b - s.gap_c)) + (s.c - s.a) / (s.b - s.a) * (
                s.gap_a / (s.gap_c - s.gap_a)
            ) * (s.gap_b / (s.gap_c - s.gap_b))
        except (ZeroDivisionError, ValueError):  # where C++ has NaN or an infinity, which fail its comparisons
            return 0.5
