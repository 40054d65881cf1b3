"""What every attack shares: the checks, the evaluation mode, the bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from robustperf import check, ops, random
from robustperf.classifier import Classifier, evaluating, logits_of
from robustperf.ops.logit_gap import check_labels
from robustperf.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Adversarial(Result):
    """What an attack found.

    Attributes:
        point: [B, ...] x', in the bounds; crossing or not.
        gap: [B] float64, `ops.logit_gap` at x': negative where the label has changed.
        evaluations: [B] int64, forward passes for each point.
    """

    point: torch.Tensor
    gap: torch.Tensor
    evaluations: torch.Tensor

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.gap), "crossed": int((self.gap < 0).sum())}


class Attack:
    """An attack is called with a model and points, and returns `Adversarial`. A subclass writes `run`."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def __call__(
        self, model: Classifier, x: torch.Tensor, labels: torch.Tensor, *, key: int = 0,
        index: torch.Tensor | None = None, bounds: tuple[float, float] = (0.0, 1.0),
    ) -> Adversarial:
        """Searches x' with another label than `labels` near each point.

        Args:
            model: a classifier; run in eval mode, left as it was.
            x: [B, ...] float32 or float64, within `bounds`.
            labels: [B] int64, the labels to get away from.
            key, index: of the random start: its 64-bit key and [B] int64, the points' numbers (0..B-1 by default).
            bounds: the box that x' must stay in.

        Raises TypeError or ValueError for a wrong argument, RuntimeError inside `torch.inference_mode()`.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attacks need gradients, which torch.inference_mode() forbids; torch.no_grad() is fine")
        bounds = check.bounds(bounds)
        check.images("x", x, bounds)
        bounds = check.rounded(bounds, x.dtype)
        check.tensor("labels", labels, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        if index is None:
            index = torch.arange(x.shape[0], device=x.device)
        check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        with evaluating(model):
            return self.run(model, x.detach(), labels, key=random.key(key), index=index, bounds=bounds)

    def run(self, model, x, labels, *, key, index, bounds) -> Adversarial:
        raise NotImplementedError


def gap_at(model: Classifier, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] float64: `ops.logit_gap` of the model's logits at x."""
    with torch.no_grad():
        return ops.logit_gap(logits_of(model, x), labels)


def loss_gradient(model: Classifier, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(∇_x of the cross-entropy [B, ...], `ops.logit_gap` at x [B]) from one forward and one backward pass; no
    parameter's `.grad` is touched."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_of(model, x)
        check_labels("labels", labels, logits.shape[1])
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), x)
    return gradient, ops.logit_gap(logits.detach(), labels)


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] -> [B, 1, ..., 1], to multiply `like` [B, ...]."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
