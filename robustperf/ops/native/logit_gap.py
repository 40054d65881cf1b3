import torch

from robustperf import _native
from robustperf.ops.logit_gap import widened


def logit_gap(logits, label, rounding_tolerance):
    gap = torch.empty(logits.shape[0], dtype=torch.float64)
    _native.logit_gap(widened(logits), label.contiguous(), gap, rounding_tolerance)
    return gap
