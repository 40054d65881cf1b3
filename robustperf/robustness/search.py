"""The search for the nearest decision boundary on the lines from points to candidates.

`boundary` and `margins` check the images once and run it; `ops.line_search_step` is its inner step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, ops
from robustperf.check import Box
from robustperf.classifier import Classifier, check_no_nan, evaluating, in_fixed_batches, logits_of
from robustperf.ops.line_search_step import check_search
from robustperf.ops.search_state import FIELD, new_search

TOL = 2.0**-20
"""The default width of the final bracket, as a fraction of the line."""

MAX_EXTENSION = 32.0
"""The factor by which a line is extended where the box has no edge."""

Gaps = tuple[torch.Tensor | None, torch.Tensor | None]
"""(`ops.logit_gap` at x [B] or None, at the candidates [A, B] or None), float64, NaN where unknown."""


@dataclass(frozen=True)
class Crossings:
    """What a search found.

    Attributes:
        state: [B, fields] float64, the columns are those of `FIELD`.
        closest: [B, ...] the nearest point that the model labels differently; x where misclassified, NaN where none.
        evaluations: [B] int64, images that the model evaluated.
    """

    state: torch.Tensor
    closest: torch.Tensor
    evaluations: torch.Tensor

    def field(self, name: str) -> torch.Tensor:
        """[B] float64."""
        return self.state[:, FIELD[name]].clone()


@dataclass(frozen=True)
class _Lines:
    """The tensors of `ops.line_search_step` for the points of a batch."""

    labels: torch.Tensor  # [B]
    x: torch.Tensor  # [B, D]
    ends: torch.Tensor  # [A, B, D]
    lines: torch.Tensor  # of `new_search`, like `state`
    state: torch.Tensor
    closest: torch.Tensor  # [B, D]
    shape: torch.Size  # of an image


@dataclass(frozen=True)
class BoundarySearch:
    """A search of given settings; `run` searches the lines of a batch.

    Args:
        model: the classifier.
        norm: 1, 2 or inf, in which crossings of different lines are compared; None takes each line's own length as the
            unit.
        tol, method, probes, backend: as in `boundary.line_search`.
        box: the bounds, as `check.box` returns them, up to which lines are extended; None ends lines at the candidates.

    Raises ValueError for a wrong tol, method or number of probes.
    """

    model: Classifier
    norm: float | None = None
    tol: float = TOL
    method: str = "chandrupatla"
    probes: int = 0
    box: Box | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", in_fixed_batches(self.model))
        for name in ("tol", "probes"):
            object.__setattr__(self, name, check.plain(getattr(self, name)))
        check_search(self.tol, self.method, self.probes)

    def run(
        self, x: torch.Tensor, candidates: torch.Tensor, labels: torch.Tensor | None = None, gaps: Gaps = (None, None)
    ) -> Crossings:
        """Searches the lines from x [B, ...] to candidates [A, B, ...], both finite, of one dtype and on one device.

        Args:
            labels: [B] int64; None takes the model's own labels at x.
            gaps: the known gaps; a gap at x needs `labels`.

        Raises TypeError or ValueError for wrong labels or gaps, or logits that hold a NaN at x.
        """
        x, candidates = x.detach(), candidates.detach()
        with evaluating(self.model), torch.no_grad():
            labels, gap_x, misclassified, evaluations = self._evaluate_x(x, labels, gaps[0])
            gap_end = _known_gaps(gaps[1], len(candidates), x)
            lines, state = new_search(gap_x, self._lengths(x, candidates), gap_end)
            labels, flat, ends = labels.contiguous(), x.flatten(1).contiguous(), candidates.flatten(2).contiguous()
            closest = torch.full_like(flat, math.nan)
            # A misclassified point has margin 0, and there is nothing to search.
            closest[misclassified] = flat[misclassified]
            state[misclassified, FIELD["radius"]] = state[misclassified, FIELD["best_step"]] = 0.0
            search = _Lines(labels, flat, ends, lines, state, closest, x.shape[1:])
            self._search(search, (~misclassified).nonzero()[:, 0])
            if self.box is not None:
                self._extend(search, self.box)
        return Crossings(state, closest.view_as(x), state[:, FIELD["evaluations"]].long() + evaluations)

    def _evaluate_x(self, x, labels, gap_x):
        """(labels, gap at x, which points are misclassified, evaluations) from one evaluation of x, or the known
        gap."""
        batch = x.shape[0]
        if labels is not None:
            check.tensor("labels", labels, (batch,), dtypes=(torch.int64,), device=x.device)
        if gap_x is not None:
            if labels is None:
                raise ValueError("gaps: expected labels beside a gap at x, which is the gap of a label, got None")
            check.tensor("gaps[0]", gap_x, (batch,), dtypes=(torch.float64,), device=x.device)
            if gap_x.isnan().any():
                raise ValueError("gaps: expected known gaps at x, got NaN")
            return labels, gap_x, gap_x < 0, torch.zeros_like(labels)
        if batch == 0:
            nothing = torch.zeros(0, dtype=torch.int64, device=x.device)
            return nothing, nothing.double(), nothing.bool(), nothing
        logits = logits_of(self.model, x)
        check_no_nan(logits)
        predicted = logits.argmax(1)
        labels = predicted if labels is None else labels
        # the search synchronises with the GPU in any case
        check.labels("labels", labels, logits.shape[1], synchronise=True)
        return labels, ops.logit_gap(logits, labels), predicted != labels, torch.ones_like(labels)

    def _search(self, search: _Lines, rows: torch.Tensor) -> None:
        """Runs the search of the points `rows` [M] until all are finished. Only unfinished points are evaluated."""
        points, logits = torch.empty_like(search.x[: rows.numel()]), None
        while rows.numel():
            ops.line_search_step(
                logits, rows, search.labels, search.x, search.ends, search.lines, search.state, points, search.closest,
                tol=self.tol, method=self.method, probes=self.probes, backend=self.backend,
            )  # fmt: skip
            unfinished = (search.state[:, FIELD["line"]].index_select(0, rows) >= 0).nonzero()[:, 0]
            if unfinished.numel() < rows.numel():
                rows, points = rows.index_select(0, unfinished), points.index_select(0, unfinished)
            if rows.numel():
                first, logits = logits is None, logits_of(self.model, points.view(-1, *search.shape))
                if first:
                    check.labels("labels", search.labels, logits.shape[1])

    def _extend(self, done: _Lines, box: Box) -> None:
        """Extends the lines beyond their ends, in the box and up to the nearest crossing found, searches them there,
        and updates `done`. A line whose end is nearer than the nearest crossing has not crossed by then."""
        radius, length = done.state[:, FIELD["radius"]], done.lines[..., 0]
        rows = ((length * (1 + 2 * self.tol) < radius[:, None]).any(1) & (radius > 0)).nonzero()[:, 0]
        if not rows.numel():
            return
        x, ends, length, radius = done.x[rows], done.ends[:, rows], length[rows], radius[rows, None]
        lower, upper = check.flat_box(box, done.shape)
        direction = ends - x
        room = torch.where(direction > 0, upper - x, x - lower) / direction.abs()
        edge = room.where(direction != 0, math.inf).amin(2).T.double()  # [B, A], in lengths
        factor = torch.minimum(edge.where(edge.isfinite(), MAX_EXTENSION), radius / length)
        longer = (length * (1 + 2 * self.tol) < radius) & (factor > 1 + 2 * self.tol)
        factor = factor.where(longer, 1.0)
        far = torch.clamp(x + factor.T[..., None].to(x.dtype) * direction, lower, upper)
        lengths = self._lengths(x, far).where(longer, math.inf)
        lines, state = new_search(done.state[rows, FIELD["gap_x"]], lengths, torch.full_like(lengths, math.nan))
        state[:, FIELD["radius"]] = radius[:, 0]
        nothing_yet = torch.full_like(x, math.nan)
        extended = _Lines(done.labels[rows], x, far.contiguous(), lines, state, nothing_yet, done.shape)
        self._search(extended, longer.any(1).nonzero()[:, 0])
        done.state[rows, FIELD["evaluations"]] += state[:, FIELD["evaluations"]]
        better = (state[:, FIELD["best_line"]] >= 0).nonzero()[:, 0]
        state[better, FIELD["best_step"]] *= factor[better, state[better, FIELD["best_line"]].long()]
        for name in ("radius", "best_step", "best_line"):
            done.state[rows[better], FIELD[name]] = state[better, FIELD[name]]
        done.closest[rows[better]] = extended.closest[better]

    def _lengths(self, x, candidates):
        """[B, A] float64, inf where x' = x and so there is nothing to search; 1 elsewhere where there is no norm."""
        # Lengths need no more than x's precision, unless squares of tiny differences underflow in it.
        length = distances(x, candidates, self.norm or 2.0, dtype=x.dtype)
        if not length.all():
            length = distances(x, candidates, self.norm or 2.0)
        length = length.T.double()
        return torch.where(length == 0, math.inf, torch.ones_like(length) if self.norm is None else length)


def _known_gaps(gap_end, count, x):
    """[B, A] float64, NaN where unknown."""
    if gap_end is None:
        return torch.full((x.shape[0], count), math.nan, dtype=torch.float64, device=x.device)
    check.tensor("gaps[1]", gap_end, (count, x.shape[0]), dtypes=(torch.float64,), device=x.device)
    return gap_end.T


def distances(x: torch.Tensor, point: torch.Tensor, norm: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """[..., B] of `dtype`: ‖point - x‖ for x [B, ...] and points [..., B, ...]."""
    difference = (point - x).flatten(point.dim() - x.dim() + 1)
    if difference.shape[-1] == 0:
        return difference.new_zeros(difference.shape[:-1], dtype=dtype)
    return torch.linalg.vector_norm(difference, norm, dim=-1, dtype=dtype)
