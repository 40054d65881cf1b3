"""What an attack works on: the points of one call, the model, and the passes spent."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from robustperf import check, ops
from robustperf.attacks.losses import gap_gradients, length, logit_gradients, loss_gradient, per_sample
from robustperf.check import Box
from robustperf.classifier import Classifier, logits_of
from robustperf.ops.logit_gap import rounding_tolerance_of


class Problem:
    """The points that one call of an attack starts from, and the model that it queries.

    The methods evaluate the model at `point` [M, ...], images that belong to the points `rows` [M] int64 (each at most
    once; None for all, in order), and count a pass for each of these. An attack passes the rows it still works on.
    Where none are left, `gap`, `gradient` and `gradient_to` return empty tensors without a pass.

    Attributes:
        model: the classifier, in eval mode. What an attack evaluates itself it reports with `count`.
        x: [B, ...] float32 or float64, within `bounds`.
        labels: [B] int64, the labels that an adversarial example must not have.
        bounds: (lower, upper), two numbers or two tensors that broadcast to an image.
        key: 64 bits, of random draws; of further ones `random.fold_in(key, n)`.
        index: [B] int64, the points' sample ids: draws under them do not depend on the batch.
        evaluations, backward: [B] int64, the forward and the backward passes so far.
        flat: [B] bool, where a gradient was zero or not finite though the label had not changed.
        best: the nearest point that earlier attacks found, in the norm of the margins; None for the first attack. An
            attack may start from it or stop where it cannot come nearer.

    >>> class Step(rp.attacks.Attack):
    ...     def run(self, problem):
    ...         gradient, gap = problem.gradient(problem.x)  # one forward and one backward pass
    ...         point = problem.clamp(problem.x + 0.5 * gradient.sign())
    ...         return point, problem.gap(point)
    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> Step()(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0])).evaluations
    tensor([2, 2])
    """

    x: torch.Tensor
    model: Classifier
    labels: torch.Tensor
    bounds: Box
    key: int
    index: torch.Tensor
    flat: torch.Tensor
    evaluations: torch.Tensor
    backward: torch.Tensor
    best: Nearest | None

    def __init__(
        self,
        model: Classifier,
        x: torch.Tensor,
        labels: torch.Tensor,
        *,
        bounds: Box,
        key: int,
        index: torch.Tensor,
        best: Nearest | None = None,
    ) -> None:
        """The arguments must have been checked, as `Attack.__call__` and `margins` do."""
        # an inference tensor takes no gradients, its copy does
        self.x = x.clone() if x.is_inference() else x.detach()
        self.model, self.labels = model, labels
        self.bounds, self.key, self.index, self.best = bounds, key, index, best
        self.flat = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._passes = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
        self.evaluations, self.backward = self._passes

    @property
    def rows(self) -> torch.Tensor:
        """[B] int64: all rows, to select the active ones from."""
        return torch.arange(len(self.x), device=self.x.device)

    def unknown(self) -> torch.Tensor:
        """[B] float64 NaN: the gaps of points that have not been evaluated, to be filled in."""
        return torch.full((len(self.x),), math.nan, dtype=torch.float64, device=self.x.device)

    def clamp(self, point: torch.Tensor) -> torch.Tensor:
        """`point` [..., *image] clamped to the bounds."""
        return point.clamp(*self.bounds)

    def logits(self, point: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """[M, C], from one forward pass without gradients."""
        with torch.no_grad():
            logits = logits_of(self.model, point)
        self.count(rows, forward=1)
        return logits

    def gap(self, point: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """[M] float64, `ops.logit_gap`: negative where the label has changed. One forward pass."""
        if not len(point):
            return self.unknown()[:0]
        logits = self.logits(point, rows)
        check.labels("labels", labels := self._labels(rows), logits.shape[1])
        return ops.logit_gap(logits, labels)

    def gradient(
        self, point: torch.Tensor, rows: torch.Tensor | None = None, loss: str = "gap"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(the gradient of `losses.loss_of` in the image [M, ...], the gap [M] as in `gap`) from one forward and one
        backward pass. A gradient that is not finite is returned as zero; `flat` is set there and where it is zero."""
        if not len(point):
            return point, self.unknown()[:0]
        gradient, gap, _, flat = loss_gradient(self.model, point, self._labels(rows), loss)
        self.count(rows, forward=1, backward=1)
        self.mark_flat(flat, rows)
        return gradient, gap

    def gradient_to(
        self, point: torch.Tensor, rows: torch.Tensor, target: torch.Tensor | None, loss: str = "gap"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(gradient, gap) as `gradient` returns them for the loss of the classes `target` [M] int64 (-1, or None for
        all: of the runner-up), and that loss [M] float64."""
        if not len(point):
            return point, self.unknown()[:0], self.unknown()[:0]
        gradient, gap, value, flat = loss_gradient(self.model, point, self._labels(rows), loss, target)
        self.count(rows, forward=1, backward=1)
        self.mark_flat(flat, rows)
        return gradient, gap, value

    def logit_gradients(
        self, point: torch.Tensor, rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [M, C], the gradient of each logit [M, C, D], which may not be finite) from one forward and C
        backward passes."""
        logits, gradients = logit_gradients(self.model, point)
        check.labels("labels", self.labels, logits.shape[1])
        self.count(rows, forward=1, backward=logits.shape[1])
        return logits, gradients

    def linearised(self, point: torch.Tensor, rows: torch.Tensor | None = None, count: int = 1) -> Halfspaces:
        """The regions beyond the boundaries to the `count` other classes of the highest logits (to all if there are
        fewer), of the model linearised at `point`. One forward and `count` backward passes."""
        labels = self._labels(rows)
        logits, target, normal = gap_gradients(self.model, point, labels, count)
        self.count(rows, forward=1, backward=target.shape[1])
        x = self.x if rows is None else self.x[rows]
        gap = logits.gather(1, labels[:, None]).double() - logits.gather(1, target).double()
        moved = torch.einsum("mjd,md->mj", normal.double(), (point - x).flatten(1).double())
        scale = logits.abs().masked_fill(~logits.isfinite(), 0.0).amax(1).double()
        least = 2 * rounding_tolerance_of(logits) * scale
        # a point of the halfspace is rounded too, to its pixels' precision
        rounding = torch.linalg.vector_norm(normal.double() * x.flatten(1)[:, None].double(), dim=2)
        least = least[:, None] + 2 * torch.finfo(x.dtype).eps * rounding
        return Halfspaces(ops.logit_gap(logits, labels), target, normal, gap + moved + least)

    def count(self, rows: torch.Tensor | None, *, forward: int, backward: int = 0) -> None:
        """Adds passes to the points' counts."""
        rows = slice(None) if rows is None else rows
        if forward == backward:
            self._passes[:, rows] += forward
        else:
            self.evaluations[rows] += forward
            if backward:
                self.backward[rows] += backward

    def mark_flat(self, flat: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """Sets `flat` where `flat` [M] bool is."""
        self.flat[slice(None) if rows is None else rows] |= flat

    def _labels(self, rows: torch.Tensor | None) -> torch.Tensor:
        return self.labels if rows is None else self.labels[rows]


class Halfspaces(NamedTuple):
    """{x + δ: ⟨normal, δ⟩ >= offset} for each of J classes: where the linearised model prefers the class to the label,
    by no more than what `ops.logit_gap` counts as a change (twice its rounding tolerance) and the rounding of x + δ.

    Attributes:
        gap: [M] float64, `ops.logit_gap` of the model where it was linearised.
        target: [M, J] int64, the classes, from the highest logit on.
        normal: [M, J, D], ∇(z_target - z_label); may not be finite.
        offset: [M, J] float64.
    """

    gap: torch.Tensor
    target: torch.Tensor
    normal: torch.Tensor
    offset: torch.Tensor


class Nearest:
    """The best point so far of each point: the nearest one offered that crosses; until one does, the first offered.

    Attributes:
        point: [B, ...]; x before any was offered.
        gap: [B] float64, `ops.logit_gap` there; NaN before.
        distance: [B] of x's dtype, ‖point - x‖ where the gap is negative, inf where it is not; NaN before.

    >>> class Shades(rp.attacks.Attack):
    ...     def run(self, problem):
    ...         nearest = Nearest(problem, norm=2)
    ...         for amount in (0.2, 0.3, 0.5, 0.7):
    ...             point = problem.clamp(problem.x - amount)
    ...             nearest.offer(point, problem.gap(point))
    ...         return nearest.point, nearest.gap
    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> Shades()(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0])).point
    tensor([[0.4000, 0.5000],
            [0.4000, 0.4000]])
    """

    point: torch.Tensor
    gap: torch.Tensor
    distance: torch.Tensor

    def __init__(self, problem: Problem, norm: float) -> None:
        """`norm`: 0 (the number of changed values), 1, 2 or inf, of the distance."""
        self._x, self._norm = problem.x, norm
        self.point, self.gap = problem.x.clone(), problem.unknown()
        self.distance = self.gap.to(problem.x.dtype, copy=True)

    def offer(self, point: torch.Tensor, gap: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """Keeps those of `point` [M, ...] with `gap` [M] that are better; `rows` as in `Problem`."""
        rows = torch.arange(len(point), device=point.device) if rows is None else rows
        distance = length(point - self._x.index_select(0, rows), self._norm)
        distance = distance.masked_fill(~(gap < 0), math.inf)
        better = (distance < self.distance[rows]) | self.distance[rows].isnan()
        kept = torch.where(per_sample(better, point).bool(), point, self.point.index_select(0, rows))
        self.point.index_copy_(0, rows, kept)  # several times faster than indexing
        self.gap[rows] = torch.where(better, gap, self.gap[rows])
        self.distance[rows] = torch.where(better, distance, self.distance[rows])
