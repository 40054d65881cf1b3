"""How far a point's logits are from another label."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry


def logit_gap(logits: torch.Tensor, label: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
    """gap = z_label - max of the other logits + a rounding tolerance. A negative gap is a crossing: another label.

    The rounding tolerance is `rounding_tolerance_of(logits)` times the row's largest finite |logit|: convolutions round
    differently by batch size, and a point that counts as crossed must also be crossed when the model evaluates it
    alone. Without it, the gap is T section 3.2's decision function along the segment.

    Args:
        logits: [B, C] float32, float64, bfloat16 or float16, C >= 2.
        label: [B] int64, in 0..C-1.

    Returns [B] float64; NaN where a logit is NaN. Not differentiable.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, label or backend. Labels on a GPU are not
    checked, which would synchronise: one out of range gives NaN.

    >>> rp.ops.logit_gap(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0])) < 0
    tensor([False,  True])
    """
    check.tensor("logits", logits, ("B", "C"), dtypes=check.REAL + check.HALF)
    batch, classes = logits.shape
    if classes < 2:
        raise ValueError(f"logits: expected at least two classes, got shape {list(logits.shape)}")
    check.tensor("label", label, (batch,), dtypes=(torch.int64,), device=logits.device)
    check.labels("label", label, classes)
    return _logit_gap(
        registry.choose("logit_gap", backend, logits.device), logits, label, rounding_tolerance_of(logits)
    )


def rounding_tolerance_of(logits: torch.Tensor) -> float:
    """How far beyond zero a gap must lie to count as a crossing, relative to the row's largest |logit|.

    Convolutions round differently by batch size: over batches of 1, 7 and 256 the logits of trained networks moved by
    up to 5 units in the last place of the largest, and a gap is the difference of two. So 32 units; 4 where the dtype
    is a half, whose units are the rounding of the last layer alone, and 4 of TensorFloat-32 on a GPU that may use it,
    for some batch sizes and not for others: torch's default for convolutions of float32.
    """
    if logits.is_cuda and logits.dtype == torch.float32 and _may_use_tf32():
        return 4 * 2.0**-10
    return (4 if logits.dtype in check.HALF else 32) * torch.finfo(logits.dtype).eps


def _may_use_tf32() -> bool:
    try:
        return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # torch refuses to answer where precisions were set through its newer settings
        return True


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Contiguous float32 or float64 logits of the same values."""
    return (logits.float() if logits.dtype in check.HALF else logits).contiguous()


def _fake(logits, label, rounding_tolerance, backend):
    return logits.new_empty(logits.shape[0], dtype=torch.float64)


_logit_gap = registry.register(
    "logit_gap", "(Tensor logits, Tensor label, float rounding_tolerance, str backend) -> Tensor", _fake
)
