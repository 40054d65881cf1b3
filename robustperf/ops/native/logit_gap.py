import torch

from robustperf import _native


def logit_gap(logits, label, rounding_tolerance):
    gap = torch.empty(logits.shape[0], dtype=torch.float64)
    _native.logit_gap(logits.contiguous(), label.contiguous(), gap, rounding_tolerance, torch.get_num_threads())
    return gap
