"""The base of all attacks: argument checks, evaluation mode, losses and gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from robustperf import check, ops, random
from robustperf.check import Box
from robustperf.classifier import Classifier, evaluating, logits_of
from robustperf.result import Result

LOSSES = ("gap", "dlr", "cross_entropy")
"""The losses that an attack can ascend, see `loss_of`."""


@dataclass(frozen=True, eq=False, repr=False)
class Adversarial(Result):
    """What an attack found.

    Attributes:
        point: [B, ...] x', in the bounds; crossing or not.
        gap: [B] float64, `ops.logit_gap` at x': negative where the label has changed, NaN where it is not known.
        evaluations: [B] int64, forward passes for each point.
        flat: [B] bool, where a gradient that the attack computed was zero or not finite while the label had not yet
            changed; None for an attack that uses no gradient.
    """

    point: torch.Tensor
    gap: torch.Tensor
    evaluations: torch.Tensor
    flat: torch.Tensor | None = None

    def _facts(self) -> dict[str, Any]:
        return {"n": len(self.gap), "crossed": int((self.gap < 0).sum())}


class Attack(check.Settings):
    """An attack is called with a model and points, and returns `Adversarial`. A subclass writes `run`."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def published(self) -> bool:
        """Whether this is one of T section 3.2's three attacks with the settings that it was published with."""
        return False

    def __call__(
        self,
        model: Classifier,
        x: torch.Tensor,
        labels: torch.Tensor,
        *,
        key: int = 0,
        index: torch.Tensor | None = None,
        bounds: Box = (0.0, 1.0),
    ) -> Adversarial:
        """Searches for x' near each point that the model labels differently from `labels`.

        Args:
            model: a classifier; run in eval mode, left as it was.
            x: [B, ...] float32 or float64, within `bounds`; a pixel beyond them by rounding is clamped.
            labels: [B] int64, the labels that x' must not have.
            key, index: of the random start: its 64-bit key and [B] int64, the points' sample ids (0..B-1 by default).
            bounds: (lower, upper), the box that x' must stay in: numbers, arrays [C] for each channel ([D] for each
                feature), or arrays that broadcast to x[0]; ±inf where there is no bound.

        Where `run` returns a point that is not finite, x takes its place, with a gap of NaN, and `flat` is set.

        Raises TypeError or ValueError for a wrong argument, or for what `run` of a subclass returned: tensors of
        another shape or dtype, or points outside the bounds; RuntimeError inside `torch.inference_mode()` and for a
        model whose logits have no gradient in x, where the attack needs one.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attacks need gradients, which torch.inference_mode() forbids; torch.no_grad() is fine")
        check.tensor("x", x, ("B", ...))
        bounds = check.box(bounds, x.shape[1:], x.dtype, x.device)
        x = check.images("x", x, bounds)
        check.tensor("labels", labels, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        if index is None:
            index = torch.arange(x.shape[0], device=x.device)
        check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
        x = x.clone() if x.is_inference() else x.detach()  # an inference tensor takes no gradients, its copy does
        with evaluating(model):
            found = self.run(model, x, labels, key=random.key(key), index=index, bounds=bounds)
        return self._checked(_finite(self.name, found, x), x, bounds)

    def _checked(self, found: Adversarial, x: torch.Tensor, bounds: Box) -> Adversarial:
        """What `run` returned, which a subclass of the caller's own wrote."""
        for name, dtype in (("gap", torch.float64), ("evaluations", torch.int64)):
            check.tensor(f"{self.name}: {name}", getattr(found, name), (len(x),), dtypes=(dtype,), device=x.device)
        point = check.images(f"{self.name}: point", found.point, bounds)
        return found if point is found.point else replace(found, point=point)

    def run(
        self, model: Classifier, x: torch.Tensor, labels: torch.Tensor, *, key: int, index: torch.Tensor, bounds: Box
    ) -> Adversarial:
        """The search, with checked arguments; `bounds` are two numbers, or two tensors that broadcast to an image."""
        raise NotImplementedError


def _finite(name: str, found: Adversarial, x: torch.Tensor) -> Adversarial:
    """`found` with x in place of points that are not finite, and `flat` for each point."""
    check.tensor(f"{name}: point", found.point, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    wrong = ~found.point.flatten(1).isfinite().all(1)
    return replace(
        found,
        point=torch.where(per_sample(wrong, x).bool(), x, found.point),
        gap=found.gap.masked_fill(wrong, torch.nan),
        flat=wrong if found.flat is None else found.flat | wrong,
    )


def gap_at(model: Classifier, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] float64: `ops.logit_gap` of the model's logits at x."""
    with torch.no_grad():
        return ops.logit_gap(logits_of(model, x), labels)


def check_loss(loss: str) -> None:
    """ValueError for what is not in LOSSES."""
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")


def loss_of(logits: torch.Tensor, labels: torch.Tensor, loss: str) -> torch.Tensor:
    """[B], what an attack ascends, of logits z [B, C] and labels y [B].

    - "gap": max_{j≠y} z_j - z_y, the negative logit gap. Its gradient does not vanish where the model is confident, and
      a step along the gradient's sign or direction does not depend on the scale of the logits.
    - "dlr": the difference of logits ratio, (max_{j≠y} z_j - z_y) / (z_π1 - z_π3) with z_π1 >= z_π2 >= ... the sorted
      logits (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
      attacks", ICML 2020, equation 6). ValueError for fewer than three classes.
    - "cross_entropy": the loss that FGSM and PGD were published with. Where the label's probability rounds to 1 its
      gradient is zero.
    """
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, labels, reduction="none")
    own, label = logits.gather(1, labels[:, None])[:, 0], labels[:, None]
    gap = logits.scatter(1, label, -torch.inf).max(1).values - own
    if loss == "gap":
        return gap
    if logits.shape[1] < 3:
        raise ValueError(f"loss: dlr expected logits of at least three classes, got {logits.shape[1]}; gap takes two")
    largest = logits.topk(3, dim=1).values
    return gap / (largest[:, 0] - largest[:, 2])


def loss_gradient(
    model: Classifier, x: torch.Tensor, labels: torch.Tensor, loss: str = "gap"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(∇_x of `loss_of` [B, ...], `ops.logit_gap` at x [B], [B] bool where the gradient is zero or not finite though
    the label has not changed) from one forward and one backward pass; no parameter's `.grad` is touched. A gradient
    that is not finite counts as zero."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_of(model, x)
        check.labels("labels", labels, logits.shape[1])
        (gradient,) = input_gradients(loss_of(logits, labels, loss).sum(), x)
    size = gradient.flatten(1).abs().amax(1)
    finite = size.isfinite()  # NaN and infinity show in the largest
    gradient = gradient.masked_fill(per_sample(~finite, gradient).bool(), 0.0)
    gap = ops.logit_gap(logits.detach(), labels)
    return gradient, gap, (~finite | (size == 0)) & ~(gap < 0)


def input_gradients(
    output: torch.Tensor, x: torch.Tensor, *seeds: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, ...]:
    """`torch.autograd.grad` of the model's output in x; RuntimeError that names the model where there is none."""
    gradients = (None,)
    if output.requires_grad:
        gradients = torch.autograd.grad(output, x, *seeds, allow_unused=True, **options)
    if gradients[0] is None:
        raise RuntimeError(
            "model(x): expected logits with a gradient in x, got some that do not depend on it: does "
            "the model detach, run under torch.no_grad(), pass through NumPy, or return labels?"
        )
    return gradients


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] -> [B, 1, ..., 1], to multiply `like` [B, ...]."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
