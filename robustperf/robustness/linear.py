"""The exact margins of linear classifiers, in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from robustperf import check, ops
from robustperf.attacks.sparse_step import sparse_step
from robustperf.check import Box
from robustperf.classifier import Classifier, evaluating, in_fixed_batches, logits_of
from robustperf.ops.draws import check_key
from robustperf.ops.logit_gap import rounding_tolerance_of
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.margin_result import Margins, checked_points, diameter

NAME = "closed form"
"""What `Margins.attacks` holds."""

_OVERSHOOTS = 12  # by powers of 4, until the model itself changes its label

Affine = tuple[torch.Tensor, torch.Tensor]
"""(W [C, D], b [C]) float64: the logits are W x + b of a flattened point, or have the same argmax."""


def affine_of(model: Classifier, x: torch.Tensor) -> Affine | None:
    """W and b if `model` is a linear classifier of points like x [N, ...], else None.

    These are `nn.Linear`, an `nn.Sequential` of `Flatten`, `Linear`, `Identity` and `Dropout`, and modules whose class
    has a method `affine_logits` that returns W and b, or None, as those of scikit-learn estimators have. Subclasses and
    modules with hooks are none."""
    method = getattr(type(model), "affine_logits", None)
    found = _composed(model, x) if method is None else method(model)
    if found is None or found[0].shape[1] != math.prod(x.shape[1:]) or len(found[0]) < 2:
        return None
    return found if all(part.isfinite().all() for part in found) else None


def _composed(model: Classifier, x: torch.Tensor) -> Affine | None:
    layers = list(model) if type(model) is nn.Sequential else [model]
    if any(isinstance(layer, nn.Module) and (layer._forward_hooks or layer._forward_pre_hooks) for layer in layers):
        return None
    flat, found = x.dim() == 2, None
    for layer in layers:
        if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            flat = True
        elif type(layer) is nn.Linear and flat and layer.weight.dtype == x.dtype:
            weight = layer.weight.detach().double()
            bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
            if found is not None and weight.shape[1] != len(found[0]):
                return None
            found = (weight, bias) if found is None else (weight @ found[0], weight @ found[1] + bias)
        elif type(layer) not in (nn.Identity, nn.Dropout):
            return None
    return found


@dataclass(frozen=True)
class LinearSearch:
    """The settings of `margins` for a linear classifier; `stream` yields the margins batch by batch.

    The margin is the smallest distance, over the other classes j, of x to the halfspace {z : ⟨w_j - w_y, z⟩ + b_j - b_y
    >= 0} within the box, which `ops.halfspace_box_projection` solves exactly, in float64. In L0 value i can add at most
    |w_ji - w_yi| room_i: the margin is the least k for which the k largest add up to more than the gap (`sparse_step`).
    """

    model: Classifier
    affine: Affine
    norm: float = 2
    bounds: Box = (0.0, 1.0)
    key: int = 0
    batch_size: int = 256
    keep_points: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", in_fixed_batches(self.model))
        object.__setattr__(self, "norm", check.norm(self.norm, zero=True))
        check_key(self.key)
        check.integer("batch_size", self.batch_size, 1)

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """As `MarginSearch.stream`."""
        x, _, box = checked_points(x, labels, index, self.bounds)
        with evaluating(self.model), torch.no_grad():
            for first in range(0, max(len(x), 1), self.batch_size):
                part = slice(first, first + self.batch_size)
                yield self._batch(x[part], None if labels is None else labels[part], box)

    def _batch(self, x: torch.Tensor, labels: torch.Tensor | None, box: Box) -> Margins:
        count, labelled = len(x), labels is not None
        distance = torch.zeros(count, dtype=torch.float64, device=x.device)
        evaluations = torch.zeros(count, dtype=torch.int64, device=x.device)
        point, wrong = x.clone(), torch.zeros_like(evaluations, dtype=torch.bool)
        if count:
            logits = logits_of(self.model, x)
            evaluations += 1
            predicted = logits.argmax(1)
            labels = predicted if labels is None else labels
            check.labels("labels", labels, logits.shape[1], synchronise=True)
            wrong = predicted != labels
            distance, moved, tries = self._margins(x, labels, logits, box)
            distance[wrong] = 0.0
            point = torch.where(wrong.view(-1, *[1] * (x.dim() - 1)), x, moved)
            evaluations += tries.where(~wrong, 0)
        found = distance.isfinite()
        return Margins(
            distance=distance.cpu(),
            attack=torch.where(wrong | ~found, -1, 0).cpu(),
            evaluations=evaluations.cpu(),
            found=found.cpu(),
            point=point.cpu() if self.keep_points else None,
            attack_evaluations=evaluations.new_zeros(1, count).cpu(),
            attacks=(NAME,),
            norm=self.norm,
            diameter=diameter(x.shape[1:], self.norm, box),
            diagnostics=Diagnostics(points=count, flat={NAME: 0}),
            exact=torch.ones(count, dtype=torch.bool),
            labelled=labelled,
        )

    def _margins(
        self, x: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor, box: Box
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(the distances [B], points there that the model labels differently [B, ...], evaluations that they took)."""
        weight, bias = (part.to(x.device) for part in self.affine)
        flat = x.flatten(1).double()
        flat_box = check.flat_box(box, x.shape[1:])
        bounds = [b.double() if isinstance(b, torch.Tensor) else b for b in flat_box]
        z = flat @ weight.T + bias
        own = z.gather(1, labels[:, None])[:, 0]

        def step(rows, j, extra):
            normal = weight[j] - weight[labels[rows]]
            gap = own[rows] - z[rows].gather(1, j[:, None])[:, 0]
            offset = gap.clamp_min(0.0) + extra
            if self.norm == 0:
                delta, feasible = sparse_step(flat[rows], normal, offset, *bounds)
            else:
                delta, feasible = ops.halfspace_box_projection(
                    flat[rows], normal, offset, norm=self.norm, lower=bounds[0], upper=bounds[1]
                )
            return delta, feasible & (j != labels[rows])

        every = torch.arange(len(x), device=x.device)
        least, nearest = torch.full_like(own, math.inf), torch.zeros_like(labels)
        for j in range(len(weight)):
            delta, feasible = step(every, torch.full_like(labels, j), 0.0)
            length = torch.linalg.vector_norm(delta, self.norm, dim=1).masked_fill(~feasible, math.inf)
            nearest = torch.where(length < least, j, nearest)
            least = torch.minimum(least, length)

        # the margin is an infimum: a point with another label is a little farther
        point, evaluations = torch.full_like(flat, math.nan), torch.zeros_like(labels)
        overshoot = 2 * rounding_tolerance_of(logits) * torch.maximum(logits.abs().amax(1), own.abs()).double()
        rows = least.isfinite().nonzero()[:, 0]
        for power in range(_OVERSHOOTS):
            if not rows.numel():
                break
            delta, _ = step(rows, nearest[rows], overshoot[rows] * 4.0**power)
            there = torch.clamp(flat[rows] + delta, *bounds).to(x.dtype).view(-1, *x.shape[1:])
            evaluations[rows] += 1
            crossed = ops.logit_gap(logits_of(self.model, there), labels[rows]) < 0
            point[rows[crossed]] = there[crossed].flatten(1).double()
            rows = rows[~crossed]
        point = point.to(x.dtype)
        if self.norm == 0:  # where what the values can add is within rounding of the gap, it takes one more
            changed = (point != x.flatten(1)).sum(1).double()
            least = torch.where(point.isfinite().all(1), changed, least)
        return least, point.view_as(x), evaluations
