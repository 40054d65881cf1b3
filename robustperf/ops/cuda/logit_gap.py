import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch


def logit_gap(logits, label, rounding_tolerance):
    gap = logits.new_empty(logits.shape[0], dtype=torch.float64)
    launch(_native_cuda.logit_gap, logits.device, logits.contiguous(), label.contiguous(), gap, rounding_tolerance)
    return gap
