"""The nearest decision boundary along the lines to given points (T section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from robustperf import check, ops
from robustperf.check import Box
from robustperf.classifier import Classifier, check_no_nan, evaluating, logits_of
from robustperf.ops.line_search_step import FIELD, check_search, new_search
from robustperf.result import Result

TOL = 2.0**-20
MAX_EXTENSION = 32.0
"""The factor by which a line is extended where the box has no edge."""


@dataclass(frozen=True, eq=False, repr=False)
class LineSearch(Result):
    """Attributes:
    step: [B] float64, the smallest ε found with f(x + ε (x' - x)) ≠ f(x), in (0, 1], above 1 where the line was
        extended to the edge of the box; inf where not `crossed`, 0 where the label given is not the model's at x.
    point: [B, ...] the image there, which the model itself labels differently; NaN where not `crossed`.
    crossed: [B] bool.
    evaluations: [B] int64, images that the model evaluated.
    """

    step: torch.Tensor
    point: torch.Tensor
    crossed: torch.Tensor
    evaluations: torch.Tensor

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.step), "crossed": int(self.crossed.sum())}


@dataclass(frozen=True, eq=False, repr=False)
class Boundary(Result):
    """Attributes:
    distance: [B] float64, ‖point - x‖; inf where no candidate's line crosses, 0 where the label given is not the
        model's at x.
    point: [B, ...] the nearest point found that the model labels differently; NaN where there is none.
    candidate: [B] int64, whose line it is on; -1 where distance is 0 or inf.
    evaluations: [B] int64, images that the model evaluated.
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
    gaps: tuple[torch.Tensor | None, torch.Tensor | None] | None = None,
    bounds: Box | None = None,
    backend: str | None = None,
) -> LineSearch:
    """The smallest ε > 0 with f(x + ε (x' - x)) ≠ f(x), for each point (T section 3.2): up to 1 or, given the `bounds`
    of the images, up to the edge of their box.

    Searches the logit gap z_label - max of the others, which is continuous along the segment, with Chandrupatla's
    bracketed inverse quadratic interpolation started by a secant. The model has evaluated the point
    returned and gives it another label, by a gap beyond rounding (`ops.logit_gap`); at a point at most `tol` below, it
    has not.

    Args:
        model: a classifier; run in eval mode and left as it was.
        x: [B, ...] float32 or float64, finite.
        x_adv: x', of x's shape and dtype. Where f(x') = f(x), `crossed` is False without `bounds`.
        labels: [B] int64; None takes the model's own predictions at x (T postulate P2).
        tol: the widest bracket, as a fraction of the segment, in (0, 1).
        method: "chandrupatla" or "bisection".
        probes: evaluate this many equally spaced points first and take the first crossing, for lines that cross
            more than one boundary.
        gaps: the known gaps, (`ops.logit_gap` at x [B] or None, at x' [B] or None), NaN where unknown; a gap
            at x needs `labels`.
        bounds: (lower, upper) as in `margins`: a line that has not crossed at x' is extended until its first value
            leaves the box, or to 32 times its length where none does. None ends all lines at x'.
        backend: of the step; None takes the best one.

    Raises TypeError or ValueError for a wrong argument, or logits that hold a NaN at x.
    """
    x, box = _in_box(x, bounds)
    check.tensor("x_adv", x_adv, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    check.images("x_adv", x_adv)
    if gaps is not None:
        gaps = (
            gaps[0],
            None if gaps[1] is None else check.tensor("gaps[1]", gaps[1], (x.shape[0],), dtypes=(torch.float64,))[None],
        )
    found = _search(model, x, x_adv[None], labels, gaps, None, tol, method, probes, box, backend)
    step = found.field("best_step")
    return LineSearch(step, found.closest, step.isfinite(), found.evaluations)


def closest_boundary(
    model: Classifier,
    x: torch.Tensor,
    candidates: torch.Tensor,
    *,
    norm: float = 2,
    gaps: tuple[torch.Tensor | None, torch.Tensor | None] | None = None,
    labels: torch.Tensor | None = None,
    tol: float = TOL,
    method: str = "chandrupatla",
    probes: int = 0,
    bounds: Box | None = None,
    backend: str | None = None,
) -> Boundary:
    """The nearest boundary point on the lines from x to any of the candidates (T section 3.2 and Fig. 2).

    Every line is evaluated at the distance of the nearest crossing known so far, if its end is farther (not where
    `gaps` give its end), and is dropped if it has not crossed by then. Then the line whose secant estimate is nearest
    is refined, step by step, until its crossing is located; the others are evaluated once at that distance and are
    dropped, or searched further. Where a line crosses one boundary, the paper's assumption, the answer is, within the
    tolerance, that of searching every line to the end. Given `bounds`, lines that have not crossed and end nearer than
    the crossing found are extended that far, within the box.

    Args:
        candidates: [A, B, ...] of x's dtype, the far ends of the lines, such as the attacks' points.
        norm: 1, 2 or inf, of the distance.
        gaps: the known gaps, (`ops.logit_gap` at x [B] or None, at the candidates [A, B] or None), NaN where
            unknown; a gap at x needs `labels`.
        model, x, labels, tol, method, probes, bounds, backend: as in `line_search`.

    Raises as `line_search`.
    """
    norm = check.norm(norm)
    x, box = _in_box(x, bounds)
    check.tensor("candidates", candidates, ("A", *x.shape), dtypes=(x.dtype,), device=x.device)
    check.images("candidates", candidates)
    found = _search(model, x, candidates, labels, gaps, norm, tol, method, probes, box, backend)
    distance = distances(x.detach(), found.closest, norm).where(found.field("radius").isfinite(), math.inf)
    return Boundary(distance, found.closest, found.field("best_line").long(), found.evaluations)


def distances(x: torch.Tensor, point: torch.Tensor, norm: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """[..., B] of `dtype`: ‖point - x‖ for x [B, ...] and points [..., B, ...]."""
    difference = (point - x).flatten(point.dim() - x.dim() + 1)
    if difference.shape[-1] == 0:
        return difference.new_zeros(difference.shape[:-1], dtype=dtype)
    return torch.linalg.vector_norm(difference, norm, dim=-1, dtype=dtype)


@dataclass(frozen=True)
class _Found:
    state: torch.Tensor  # [B, fields]
    closest: torch.Tensor  # [B, ...]
    initial_evaluations: torch.Tensor  # [B], before the search

    def field(self, name: str) -> torch.Tensor:
        return self.state[:, FIELD[name]].clone()

    @property
    def evaluations(self) -> torch.Tensor:
        return self.field("evaluations").long() + self.initial_evaluations


@dataclass(frozen=True)
class _Search:
    """The tensors of `ops.line_search_step` for the points of a batch."""

    labels: torch.Tensor  # [B]
    x: torch.Tensor  # [B, D]
    ends: torch.Tensor  # [A, B, D]
    lines: torch.Tensor  # of `new_search`, like `state`
    state: torch.Tensor
    closest: torch.Tensor  # [B, D]
    shape: torch.Size  # of an image
    step: Callable[..., None]  # `ops.line_search_step` with its settings


def _run(model: Classifier, search: _Search, rows: torch.Tensor) -> None:
    """Runs the search of the points `rows` [M] until all are finished. Only unfinished points are evaluated."""
    points, logits = torch.empty_like(search.x[: rows.numel()]), None
    while rows.numel():
        search.step(
            logits, rows, search.labels, search.x, search.ends, search.lines, search.state, points, search.closest
        )
        unfinished = (search.state[:, FIELD["line"]].index_select(0, rows) >= 0).nonzero()[:, 0]
        if unfinished.numel() < rows.numel():
            rows, points = rows.index_select(0, unfinished), points.index_select(0, unfinished)
        if rows.numel():
            first, logits = logits is None, logits_of(model, points.view(-1, *search.shape))
            if first:
                check.labels("labels", search.labels, logits.shape[1])


def _in_box(x, bounds):
    """x, clamped where it is beyond the bounds by rounding, and the bounds as `check.box` has them."""
    check.tensor("x", x, ("B", ...))
    box = None if bounds is None else check.box(bounds, x.shape[1:], x.dtype, x.device)
    return check.images("x", x, box), box


def _search(model, x, candidates, labels, gaps, norm, tol, method, probes, box, backend) -> _Found:
    """`norm=None`: each line's own length is the unit."""
    tol, probes = check.plain((tol, probes))
    check_search(tol, method, probes)
    x, candidates = x.detach(), candidates.detach()
    with evaluating(model), torch.no_grad():
        labels, gap_x, missed, initial = _evaluate_x(model, x, labels, None if gaps is None else gaps[0])
        gap_end = _known_gaps(None if gaps is None else gaps[1], len(candidates), x)
        lines, state = new_search(gap_x, _lengths(x, candidates, norm), gap_end)
        labels, flat, ends = labels.contiguous(), x.flatten(1).contiguous(), candidates.flatten(2).contiguous()
        closest = torch.full_like(flat, math.nan)
        # A misclassified point has margin 0, and there is nothing to search.
        closest[missed] = flat[missed]
        state[missed, FIELD["radius"]] = state[missed, FIELD["best_step"]] = 0.0
        step = partial(ops.line_search_step, tol=tol, method=method, probes=probes, backend=backend)
        search = _Search(labels, flat, ends, lines, state, closest, x.shape[1:], step)
        _run(model, search, (~missed).nonzero()[:, 0])
        if box is not None:
            _extend(model, search, norm, tol, box)
    return _Found(state, closest.view_as(x), initial)


def _extend(model: Classifier, done: _Search, norm: float | None, tol: float, box: Box) -> None:
    """Extends the lines beyond their ends, in the box and up to the nearest crossing found, searches them there, and
    updates `done`. A line whose end is nearer than the nearest crossing has not crossed by then."""
    radius, length = done.state[:, FIELD["radius"]], done.lines[..., 0]
    rows = ((length * (1 + 2 * tol) < radius[:, None]).any(1) & (radius > 0)).nonzero()[:, 0]
    if not rows.numel():
        return
    x, ends, length, radius = done.x[rows], done.ends[:, rows], length[rows], radius[rows, None]
    lower, upper = (b.expand(done.shape).flatten() if isinstance(b, torch.Tensor) else b for b in box)
    direction = ends - x
    room = torch.where(direction > 0, upper - x, x - lower) / direction.abs()
    edge = room.where(direction != 0, math.inf).amin(2).T.double()  # [B, A], in lengths
    factor = torch.minimum(edge.where(edge.isfinite(), MAX_EXTENSION), radius / length)
    longer = (length * (1 + 2 * tol) < radius) & (factor > 1 + 2 * tol)
    factor = factor.where(longer, 1.0)
    far = torch.clamp(x + factor.T[..., None].to(x.dtype) * direction, lower, upper)
    lengths = _lengths(x, far, norm).where(longer, math.inf)
    lines, state = new_search(done.state[rows, FIELD["gap_x"]], lengths, torch.full_like(lengths, math.nan))
    state[:, FIELD["radius"]] = radius[:, 0]
    extended = _Search(
        done.labels[rows], x, far.contiguous(), lines, state, torch.full_like(x, math.nan), done.shape, done.step
    )
    _run(model, extended, longer.any(1).nonzero()[:, 0])
    done.state[rows, FIELD["evaluations"]] += state[:, FIELD["evaluations"]]
    better = (state[:, FIELD["best_line"]] >= 0).nonzero()[:, 0]
    state[better, FIELD["best_step"]] *= factor[better, state[better, FIELD["best_line"]].long()]
    for name in ("radius", "best_step", "best_line"):
        done.state[rows[better], FIELD[name]] = state[better, FIELD[name]]
    done.closest[rows[better]] = extended.closest[better]


def _evaluate_x(model, x, labels, gap_x):
    """(labels, gap at x, which points are misclassified, evaluations) from one evaluation of x, or the known gap."""
    batch = x.shape[0]
    if labels is not None:
        check.tensor("labels", labels, (batch,), dtypes=(torch.int64,), device=x.device)
    if gap_x is not None:
        if labels is None:
            raise ValueError("gaps: expected labels beside a gap at x, which is the gap of a label, got None")
        check.tensor("gaps[0]", gap_x, (batch,), dtypes=(torch.float64,), device=x.device)
        if gap_x.isnan().any():
            raise ValueError("gaps: expected numbers at x, got NaN")
        return labels, gap_x, gap_x < 0, torch.zeros_like(labels)
    if batch == 0:
        nothing = torch.zeros(0, dtype=torch.int64, device=x.device)
        return nothing, nothing.double(), nothing.bool(), nothing
    logits = logits_of(model, x)
    check_no_nan(logits)
    predicted = logits.argmax(1)
    labels = predicted if labels is None else labels
    check.labels(
        "labels", labels, logits.shape[1], synchronise=True
    )  # the search synchronises with the GPU in any case
    return labels, ops.logit_gap(logits, labels), predicted != labels, torch.ones_like(labels)


def _known_gaps(gap_end, count, x):
    """[B, A] float64, NaN where unknown."""
    if gap_end is None:
        return torch.full((x.shape[0], count), math.nan, dtype=torch.float64, device=x.device)
    check.tensor("gaps[1]", gap_end, (count, x.shape[0]), dtypes=(torch.float64,), device=x.device)
    return gap_end.T


def _lengths(x, candidates, norm):
    """[B, A] float64, inf where x' = x and so there is nothing to search; 1 elsewhere for `norm=None`."""
    # The plan needs no more than x's precision, unless squares of tiny differences vanish in it.
    length = distances(x, candidates, norm or 2.0, dtype=x.dtype)
    if not length.all():
        length = distances(x, candidates, norm or 2.0)
    length = length.T.double()
    return torch.where(length == 0, math.inf, torch.ones_like(length) if norm is None else length)
