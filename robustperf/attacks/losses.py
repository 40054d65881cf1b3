"""What attacks ascend: losses of the logits, and their gradients in the image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from robustperf import check, ops
from robustperf.classifier import Classifier, logits_of
from robustperf.names import check_name

LOSSES = ("gap", "dlr", "cross_entropy")
"""The losses that an attack can ascend, see `loss_of`."""


def check_loss(loss: str) -> None:
    """ValueError for a name that is not in LOSSES."""
    check_name("loss", loss, LOSSES)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, loss: str, target: torch.Tensor | None = None) -> torch.Tensor:
    """[B], the loss of logits z [B, C] and labels y [B] int64.

    - "gap": max_{j≠y} z_j - z_y, the negative logit gap, or z_t - z_y with a target t [B] int64 (-1: the runner-up, as
      without targets). Its gradient does not vanish where the model is confident, and a step along the gradient's sign
      or direction does not depend on the scale of the logits.
    - "dlr": the difference of logits ratio, (max_{j≠y} z_j - z_y) / (z_π1 - z_π3) with z_π1 >= z_π2 >= ... the sorted
      logits (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
      attacks", ICML 2020, equation 6); with a target, (z_t - z_y) / (z_π1 - (z_π3 + z_π4) / 2) (equation 7, which with
      three classes has z_π3 for both). ValueError for fewer than three classes.
    - "cross_entropy": the loss that FGSM and PGD were published with. Where the label's probability rounds to 1 its
      gradient is zero.
    """
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, labels, reduction="none")
    label = labels[:, None]
    other = logits.scatter(1, label, -torch.inf).amax(1)
    if target is not None:
        other = torch.where(target < 0, other, logits.gather(1, target.clamp_min(0)[:, None])[:, 0])
    gap = other - logits.gather(1, label)[:, 0]
    if loss == "gap":
        return gap
    if logits.shape[1] < 3:
        raise ValueError(f"loss: dlr expected logits of at least three classes, got {logits.shape[1]}; gap takes two")
    largest = logits.topk(min(4, logits.shape[1]), dim=1).values
    lowest = largest[:, 2]
    if target is not None:
        lowest = torch.where(target < 0, lowest, (lowest + largest[:, -1]) / 2)
    return gap / (largest[:, 0] - lowest)


def gap_at(model: Classifier, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] float64: `ops.logit_gap` of the model's logits at x, without gradients."""
    with torch.no_grad():
        return ops.logit_gap(logits_of(model, x), labels)


def loss_gradient(
    model: Classifier, x: torch.Tensor, labels: torch.Tensor, loss: str = "gap", target: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(∇_x of `loss_of` [B, ...], `ops.logit_gap` at x [B], the loss [B] float64, [B] bool where the gradient is zero
    or not finite though the label has not changed) from one forward and one backward pass. Parameters' `.grad` is
    left as it was. A gradient that is not finite is returned as zero."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_of(model, x)
        check.labels("labels", labels, logits.shape[1])
        value = loss_of(logits, labels, loss, target)
        (gradient,) = _input_gradients(value.sum(), x)
    size = length(gradient, math.inf)
    finite = size.isfinite()  # NaN and infinity show in the largest
    gradient = gradient.where(per_sample(finite, gradient).bool(), 0.0)
    gap = ops.logit_gap(logits.detach(), labels)
    return gradient, gap, value.detach().double(), (~finite | (size == 0)) & ~(gap < 0)


def logit_gradients(model: Classifier, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [B, C], the gradient of each logit [B, C, D]) from one forward pass and one batched backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_of(model, x)
        classes = logits.shape[1]
        seeds = torch.eye(classes, dtype=logits.dtype, device=x.device)[:, None].expand(classes, *logits.shape)
        return logits.detach(), _several_gradients(logits, x, seeds)


def gap_gradients(
    model: Classifier, x: torch.Tensor, labels: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits [B, C], the J = min(count, C - 1) other classes t of the highest logits [B, J], ∇_x (z_t - z_y) of each
    [B, J, D]) from one forward pass and one batched backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = logits_of(model, x)
        check.labels("labels", labels, logits.shape[1])
        others = logits.detach().scatter(1, labels[:, None], -torch.inf)
        target = others.topk(min(count, logits.shape[1] - 1), dim=1).indices
        seeds = torch.zeros(target.shape[1], *logits.shape, dtype=logits.dtype, device=x.device)
        seeds.scatter_(2, target.T[:, :, None], 1.0).scatter_(2, labels.expand(len(seeds), -1)[:, :, None], -1.0)
        return logits.detach(), target, _several_gradients(logits, x, seeds)


def _several_gradients(logits: torch.Tensor, x: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """[B, J, D]: the gradients in x of the sums of logits [B, C] that are weighted by `seeds` [J, B, C]."""
    try:
        (gradients,) = _input_gradients(logits, x, seeds, is_grads_batched=True, retain_graph=True)
    except RuntimeError:  # an operation in the model that vmap does not know: one by one
        gradients = torch.stack([_input_gradients(logits, x, s, retain_graph=True)[0] for s in seeds])
    return gradients.flatten(2).transpose(0, 1)


def _input_gradients(
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


def length(delta: torch.Tensor, norm: float) -> torch.Tensor:
    """[B]: ‖δ‖_p of each δ [B, ...]; p may be 0, the number of values that are not zero."""
    delta = delta.flatten(1)
    # several times faster than `vector_norm` of infinity
    return delta.abs().amax(1) if norm == math.inf else torch.linalg.vector_norm(delta, norm, dim=1)


def per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] -> [B, 1, ..., 1] of the dtype of `like` [B, ...], to multiply it."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
