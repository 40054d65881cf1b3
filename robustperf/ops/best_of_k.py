"""The worst of k draws: cross-entropy and selection in one pass over the logits."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from robustperf import check
from robustperf.names import check_name
from robustperf.ops import registry
from robustperf.tangents import has_tangent

SELECTIONS = ("sample", "batch")

_FLOAT32, _FLOAT64 = check.REAL

_DEFAULTS = ("sample", 0.0, -100, 0)  # of the settings, which need no check


def best_of_k(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    selection: str = "sample",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    running: tuple[torch.Tensor, torch.Tensor] | None = None,
    first: int = 0,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each of K draws and the draw that maximises it, as in R Algorithm 2, lines 4-11.

    "sample" takes the worst draw of each sample; "batch", the pseudo-code as printed, takes for all samples the draw
    whose losses sum to the most, over the rows that are not ignored. Of equal draws the lowest index wins. A NaN, be it
    a sample's loss or a batch's sum, never wins; where there is nothing else, the index is 0 and the loss NaN (in
    "batch", of every sample).

    Draws may come in chunks, in their order, so that memory need not grow with their number; any chunks give the bits
    that one call gives:

        running = None
        for first in range(0, k, chunk):
            running = best_of_k(model(draws(first, chunk)), target, running=running, first=first)
        loss, index = running

    Args:
        logits: [K, B, C] float32, float64, bfloat16 or float16, K >= 1 and C >= 1.
        target: [B] int64, in 0..C-1 or `ignore_index`.
        selection: "sample" or "batch".
        label_smoothing: s in [0, 1]; a loss is (1 - s) (-log p_y) + s mean_j (-log p_j).
        ignore_index: rows with this target have loss 0 and index 0.
        running: what an earlier call returned, with the same target and settings: updated in place. A loss of NaN and
            an index of 0 are those of no draw at all. Both contiguous.
        first: the index of the draw logits[0].

    Returns (loss [B], index [B] int64), in float64 for float64 logits and else in float32; those of `running` where it
    is given. Where the logits require a gradient, the loss has that of the draws chosen, softmax(z) minus the smoothed
    target in their rows and 0 in all others (the choice itself has none), so that R Algorithm 2, line 12 follows:

        loss, index = best_of_k(model(draws).unflatten(0, (k, -1)), target)
        loss.mean().backward()

    Draws in chunks are for choosing alone: they take logits without a gradient (`with torch.no_grad():`).

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, target, setting or backend, and for
    `running` beside logits that require a gradient.

    >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])  # two draws of two samples
    >>> loss, index = rp.ops.best_of_k(logits, torch.tensor([0, 0]))
    >>> loss, index
    (tensor([2.1269, 0.6931]), tensor([1, 0]))
    """
    if (selection, label_smoothing, ignore_index, first) != _DEFAULTS:
        label_smoothing, ignore_index, first = check.plain((label_smoothing, ignore_index, first))
        _check_settings(selection, label_smoothing, ignore_index, first)
    loss, index = _new_state(logits, target) if running is None else _running_state(logits, running)
    backend = registry.choose("best_of_k", backend, logits.device)
    batch = selection == "batch"
    _best_of_k(backend, logits, target, loss, index, first, running is None, batch, label_smoothing, ignore_index)
    if running is None and _is_differentiated(logits):
        loss = _with_gradient(logits, target, loss, index - first, label_smoothing, ignore_index)
    return loss, index


def _new_state(logits, target):
    try:
        batch, dtype = logits.size(1), logits.dtype
        full = dtype is _FLOAT32 or dtype is _FLOAT64
        loss = logits.new_empty(batch) if full else logits.new_empty(batch, dtype=_FLOAT32)
        return loss, torch.empty_like(target)
    except (AttributeError, IndexError, TypeError):
        _check_operands(logits, target)
        raise


def _running_state(logits, running):
    try:
        loss, index = running
    except (TypeError, ValueError):
        raise TypeError(f"running: expected (loss, index), got {running!r}") from None
    if torch.is_grad_enabled():
        for name, value in (("logits", logits), ("running loss", loss)):
            if isinstance(value, torch.Tensor) and value.requires_grad:
                raise ValueError(
                    f"{name}: expected a tensor that requires no gradient beside running, which is updated in "
                    "place, got one that does: choose among chunks under torch.no_grad()"
                )
    return loss, index


def _is_differentiated(logits):
    """Whether a gradient is wanted, or a tangent comes along (forward mode, `torch.func.jvp`)."""
    return logits.requires_grad or has_tangent(logits)


def _with_gradient(logits, target, loss, draw, label_smoothing, ignore_index):
    """The loss with the gradient of the draws chosen: torch's cross-entropy of their rows, a K-th of all rows."""
    if not torch.is_grad_enabled():
        return loss
    draws, batch, _ = logits.shape
    draw = draw.clamp(0, draws - 1)  # an ignored row's index is 0, whatever the first draw's number
    rows = logits.flatten(0, 1).index_select(0, draw * batch + torch.arange(batch, device=draw.device))
    rows = rows.to(loss.dtype).masked_fill((target == ignore_index)[:, None], 0.0)  # a NaN there is ignored too
    again = cross_entropy(rows, target, reduction="none", label_smoothing=label_smoothing, ignore_index=ignore_index)
    # where a batch's sums are all NaN, the loss of each sample is NaN
    return again * torch.where(loss.isnan(), torch.nan, 1.0)


def _check_settings(selection, label_smoothing, ignore_index, first):
    check_name("selection", selection, SELECTIONS)
    check.number("label_smoothing", label_smoothing, least=0, most=1)
    check.integer("ignore_index", ignore_index, -(2**63), 2**63 - 1)
    check.integer("first", first, 0, 2**62 - 1)


def _check_operands(logits, target):
    check.tensor("logits", logits, ("K", "B", "C"), dtypes=check.REAL + check.HALF)
    draws, batch, classes = logits.shape
    if draws < 1 or classes < 1:
        raise ValueError(f"logits: expected at least one draw and one class, got shape {list(logits.shape)}")
    check.tensor("target", target, (batch,), dtypes=(torch.int64,), device=logits.device)


def _check(logits, target, loss, index, first, first_chunk, whole_batch, label_smoothing, ignore_index):
    _check_operands(logits, target)
    if not first_chunk:
        dtype = torch.float32 if logits.dtype in check.HALF else logits.dtype
        for name, value, wanted in (("running loss", loss, dtype), ("running index", index, torch.int64)):
            check.tensor(name, value, target.shape, dtypes=(wanted,), device=logits.device)
            if not value.is_contiguous():
                raise ValueError(f"{name}: expected a contiguous tensor, got strides {value.stride()}")


def _fake(*args):
    return None


_best_of_k = registry.register(
    "best_of_k",
    "(Tensor logits, Tensor target, Tensor(a!) loss, Tensor(b!) index, int first, bool first_chunk, bool whole_batch, "
    "float label_smoothing, int ignore_index, str backend) -> ()",
    _fake,
    check=_check,
    carries_tangents=True,
)
