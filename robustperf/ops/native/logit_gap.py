import torch

from robustperf import _native
from robustperf.check import HALF


def logit_gap(logits, label, allowance):
    gap = torch.empty(logits.shape[0], dtype=torch.float64)
    _native.logit_gap(widened(logits), label.contiguous(), gap, allowance)
    return gap


def widened(logits):
    """Contiguous float32 or float64 of the same values."""
    return (logits.float() if logits.dtype in HALF else logits).contiguous()
