"""The nearest decision boundary along the lines to given points (T section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check
from robustperf.check import Box
from robustperf.classifier import Classifier
from robustperf.result import Result
from robustperf.robustness.search import TOL, BoundarySearch, Gaps, distances


@dataclass(frozen=True, eq=False, repr=False)
class LineSearch(Result):
    """Where the segments from x to x' cross the boundary; what `line_search` returns.

    Attributes:
        step: [B] float64, the smallest ε found with f(x + ε (x' - x)) ≠ f(x), in (0, 1], or above 1 where the line was
            extended into the box; inf where not `crossed`, 0 where the label given is not the model's at x.
        point: [B, ...] the image there, which the model itself labels differently; NaN where not `crossed`.
        crossed: [B] bool.
        evaluations: [B] int64, images that the model evaluated.

    >>> model = lambda images: torch.cat([0.25 - images, images - 0.25], 1)  # another label from 0.25 on
    >>> line_search(model, torch.zeros(2, 1), torch.tensor([[1.0], [0.1]]))
    LineSearch(n=2, crossed=1)
    """

    step: torch.Tensor
    point: torch.Tensor
    crossed: torch.Tensor
    evaluations: torch.Tensor

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.step), "crossed": int(self.crossed.sum())}


@dataclass(frozen=True, eq=False, repr=False)
class Boundary(Result):
    """The nearest crossing over an ensemble of candidates; what `closest_boundary` returns.

    Attributes:
        distance: [B] float64, ‖point - x‖; inf where no candidate's line crosses, 0 where the label given is not the
            model's at x.
        point: [B, ...] the nearest point found that the model labels differently; NaN where there is none.
        candidate: [B] int64, whose line it is on; -1 where distance is 0 or inf.
        evaluations: [B] int64, images that the model evaluated.

    >>> model = lambda images: torch.cat([0.25 - images, images - 0.25], 1)  # another label from 0.25 on
    >>> closest_boundary(model, torch.zeros(2, 1), torch.ones(1, 2, 1))
    Boundary(n=2, found=2)
    """

    distance: torch.Tensor
    point: torch.Tensor
    candidate: torch.Tensor
    evaluations: torch.Tensor

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.distance), "found": int(self.distance.isfinite().sum())}


def line_search(
    model: Classifier,
    x: torch.Tensor,
    x_adv: torch.Tensor,
    *,
    labels: torch.Tensor | None = None,
    tol: float = TOL,
    method: str = "chandrupatla",
    probes: int = 0,
    gaps: Gaps | None = None,
    bounds: Box | None = None,
    backend: str | None = None,
) -> LineSearch:
    """The smallest ε > 0 with f(x + ε (x' - x)) ≠ f(x), for each point (T section 3.2): up to 1 or, given the `bounds`
    of the images, up to the edge of their box.

    Searches the logit gap z_label - max of the others, which is continuous along the segment, with Chandrupatla's
    bracketed inverse quadratic interpolation (Chandrupatla, Advances in Engineering Software 28, 1997), started by a
    secant. The model has evaluated the point returned and gives it another label, by a gap beyond rounding
    (`ops.logit_gap`); at a point at most `tol` nearer to x it keeps the label.

    Args:
        model: a classifier; run in eval mode and left unchanged.
        x: [B, ...] float32 or float64, finite.
        x_adv: x', of x's shape and dtype. Where f(x') = f(x), `crossed` is False without `bounds`.
        labels: [B] int64; None takes the model's own predictions at x (T postulate P2).
        tol: the widest bracket, as a fraction of the segment, in (0, 1).
        method: "chandrupatla" or "bisection".
        probes: evaluate this many equally spaced points first and take the first crossing, for lines that cross
            more than one boundary.
        gaps: the known gaps, (`ops.logit_gap` at x [B] or None, at x' [B] or None), NaN where unknown; a gap
            at x needs `labels`.
        bounds: (lower, upper), numbers or arrays that broadcast to an image: a line that has not crossed at x' is
            extended until its first value leaves the box, or to 32 times its length where none does. None ends all
            lines at x'.
        backend: of `ops.line_search_step`; None takes the best one.

    Raises TypeError or ValueError for a wrong argument, or NaN logits at x.

    >>> model = lambda images: torch.cat([0.25 - images, images - 0.25], 1)  # another label from 0.25 on
    >>> line_search(model, torch.zeros(1, 1), torch.ones(1, 1)).step
    tensor([0.2500], dtype=torch.float64)
    """
    x, box = _in_box(x, bounds)
    check.tensor("x_adv", x_adv, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    check.images("x_adv", x_adv)
    gap_x, gap_end = gaps or (None, None)
    if gap_end is not None:
        gap_end = check.tensor("gaps[1]", gap_end, (x.shape[0],), dtypes=(torch.float64,))[None]
    search = BoundarySearch(model, None, tol, method, probes, box, backend)
    found = search.run(x, x_adv[None], labels, (gap_x, gap_end))
    step = found.field("best_step")
    return LineSearch(step, found.closest, step.isfinite(), found.evaluations)


def closest_boundary(
    model: Classifier,
    x: torch.Tensor,
    candidates: torch.Tensor,
    *,
    norm: float = 2,
    gaps: Gaps | None = None,
    labels: torch.Tensor | None = None,
    tol: float = TOL,
    method: str = "chandrupatla",
    probes: int = 0,
    bounds: Box | None = None,
    backend: str | None = None,
) -> Boundary:
    """The nearest boundary point on the lines from x to any of the candidates (T section 3.2 and Fig. 2).

    Each line is evaluated at its end, or at the distance of the nearest crossing so far if that is nearer (not where
    `gaps` gives its end), and is dropped if it has not crossed there. Then the line whose secant estimate is nearest
    is refined until its crossing is located. Each other line is evaluated once at that distance, and is dropped or
    refined in turn. Where every line crosses one boundary, which is the paper's assumption, the result is, within the
    tolerance, that of searching every line to the end. Given `bounds`, lines that have not crossed and end nearer than
    the crossing found are extended that far, within the box.

    Args:
        model: a classifier; run in eval mode and left unchanged.
        x: [B, ...] float32 or float64, finite.
        candidates: [A, B, ...] of x's dtype, the far ends of the lines, such as the attacks' points.
        norm: 1, 2 or inf, of the distance.
        gaps: the known gaps, (`ops.logit_gap` at x [B] or None, at the candidates [A, B] or None), NaN where
            unknown; a gap at x needs `labels`.
        labels: [B] int64; None takes the model's own predictions at x (T postulate P2).
        tol: the widest bracket, as a fraction of a line, in (0, 1).
        method: "chandrupatla" or "bisection".
        probes: evaluate this many equally spaced points of each line first and take the first crossing.
        bounds: (lower, upper), numbers or arrays that broadcast to an image; None ends all lines at the candidates.
        backend: of `ops.line_search_step`; None takes the best one.

    Raises TypeError or ValueError for a wrong argument, or NaN logits at x.

    >>> model = lambda images: torch.cat([0.25 - images, images - 0.25], 1)  # another label from 0.25 on
    >>> closest_boundary(model, torch.zeros(1, 1), torch.tensor([[[-1.0]], [[1.0]]])).candidate
    tensor([1])
    """
    norm = check.norm(norm)
    x, box = _in_box(x, bounds)
    check.tensor("candidates", candidates, ("A", *x.shape), dtypes=(x.dtype,), device=x.device)
    check.images("candidates", candidates)
    search = BoundarySearch(model, norm, tol, method, probes, box, backend)
    return nearest_crossing(search, x, candidates, labels, gaps or (None, None))


def nearest_crossing(
    search: BoundarySearch, x: torch.Tensor, candidates: torch.Tensor, labels: torch.Tensor | None, gaps: Gaps
) -> Boundary:
    """`closest_boundary` by a search with a norm, for images that have been checked: x within the bounds, candidates
    finite, of one dtype and on one device."""
    found = search.run(x, candidates, labels, gaps)
    distance = distances(x.detach(), found.closest, search.norm).where(found.field("radius").isfinite(), math.inf)
    return Boundary(distance, found.closest, found.field("best_line").long(), found.evaluations)


def _in_box(x: torch.Tensor, bounds: Box | None) -> tuple[torch.Tensor, Box | None]:
    """x, clamped where it is beyond the bounds by rounding, and the bounds as `check.box` returns them."""
    check.tensor("x", x, ("B", ...))
    box = None if bounds is None else check.box(bounds, x.shape[1:], x.dtype, x.device)
    return check.images("x", x, box), box
