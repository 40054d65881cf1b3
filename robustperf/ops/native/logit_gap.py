import torch

from robustperf import _native
from robustperf.check import HALF


def logit_gap(logits, label, allowance):
    gap = torch.empty(logits.shape[0], dtype=torch.float64)
    _native.logit_gap(logits.contiguous(), label.contiguous(), gap, allowance, torch.get_num_threads())
    return gap


def widened(logits):
    """Contiguous float32 or float64 of the same values."""
    return (logits.float() if logits.dtype in HALF else logits).contiguous()
