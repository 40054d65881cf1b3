"""The search of one point at a time in Python's floats, which are doubles: the state equals the native one's bits."""

import math
from dataclasses import astuple

import torch

from robustperf.ops.line_search_step import DONE, END, INSIDE, PROBE, Search
from robustperf.ops.reference.logit_gap import logit_gap


def line_search_step(logits, rows, label, x, candidates, length, gap_end, order, state, next, closest, allowance, tol,
                     bisection, probes, patience):
    gaps = None if logits is None else logit_gap(logits, label[rows], allowance).tolist()
    for m, p in enumerate(rows.tolist()):
        s = Search(*state[p].tolist())
        if s.stage == DONE:
            continue
        line = _Lines(length[p].tolist(), gap_end[p].tolist(), order[p].tolist(), tol, bisection, probes, patience)
        if gaps is None:
            line.next_line(s)
        elif line.advance(s, gaps[m]):
            closest[p] = along(x[p], candidates[int(s.best_candidate), p], s.best_step)
        if s.stage != DONE:
            next[m] = along(x[p], candidates[int(s.candidate), p], s.step)
        state[p] = torch.tensor(astuple(s), dtype=torch.float64)


def along(x, x_adv, step):
    """x + step (x' - x), never outside the interval between the two, and x' itself at step 1."""
    t = torch.tensor(step, dtype=x.dtype)
    if t == 1:
        return x_adv
    return (x + t * (x_adv - x)).clamp(torch.minimum(x, x_adv), torch.maximum(x, x_adv))


class _Lines:
    """What is known of a point's lines, and how to search them."""

    def __init__(self, length, gap_end, order, tol, bisection, probes, patience):
        self.length, self.gap_end, self.order = length, gap_end, order
        self.tol, self.bisection, self.probes, self.patience = tol, bisection, probes, patience

    def next_line(self, s):
        while True:
            s.position += 1
            if s.position >= len(self.order):
                s.stage = DONE
                return
            candidate = self.order[int(s.position)]
            length = self.length[candidate]
            if not math.isfinite(length):
                continue
            s.candidate = candidate
            s.end = min(1.0, s.radius / length - self.tol)
            if s.end <= 0:
                continue
            s.a, s.gap_a = 0.0, s.gap_x
            s.probe = 0
            if self.probes == 0 and s.end == 1.0 and self.gap_end[candidate] < 0:
                self.open_bracket(s, 1.0, self.gap_end[candidate])
            else:
                self.look_ahead(s)
            return

    def look_ahead(self, s):
        s.probe += 1
        place = s.probe / (self.probes + 1)
        ahead = s.probe <= self.probes and place < s.end
        s.stage, s.step = (PROBE, place) if ahead else (END, s.end)

    def open_bracket(self, s, crossed, gap):
        if abs(gap) < abs(s.gap_a):
            s.a, s.gap_a, s.b, s.gap_b = crossed, gap, s.a, s.gap_a
        else:
            s.b, s.gap_b = crossed, gap
        s.stage, s.looks = INSIDE, 0
        s.step = self.inside(s)

    def inside(self, s):
        t = 0.5
        margin = 0.99 * self.tol / abs(s.b - s.a)
        trusted = not self.bisection and s.looks < self.patience
        if trusted and math.isfinite(s.gap_a) and math.isfinite(s.gap_b):
            if s.looks == 0:
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

    def advance(self, s, gap):
        """Takes the gap seen at s.step; True when a crossing was closed in on."""
        s.evaluations += 1
        crossed = gap < 0
        if s.stage != INSIDE:
            if not crossed:
                s.a, s.gap_a = s.step, gap
                if s.stage == PROBE:
                    self.look_ahead(s)
                else:
                    self.next_line(s)
                return False
            self.open_bracket(s, s.step, gap)
        else:
            s.looks += 1
            if crossed == (s.gap_a < 0):
                s.c, s.gap_c = s.a, s.gap_a
            else:
                s.c, s.gap_c = s.b, s.gap_b
                s.b, s.gap_b = s.a, s.gap_a
            s.a, s.gap_a = s.step, gap
            s.step = self.inside(s)
        if abs(s.b - s.a) > self.tol and s.step not in (s.a, s.b):
            return False
        s.best_step = s.a if s.gap_a < 0 else s.b
        s.best_candidate = s.candidate
        s.radius = s.best_step * self.length[int(s.candidate)]
        self.next_line(s)
        return True
