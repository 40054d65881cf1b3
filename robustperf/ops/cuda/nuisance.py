import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch
from robustperf.ops.program import channels_out


def nuisance(x, delta, codes, numbers):
    out = x.new_empty((delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]))
    transform_into(out, x.contiguous(), delta.contiguous(), codes, numbers)
    return out


def transform_into(out, x, delta, codes, numbers):
    launch(_native_cuda.nuisance, x.device, x, delta, out, scratch(x, delta, codes, numbers, False), codes, numbers)


def scratch(x, delta, codes, numbers, back):
    with torch.cuda.device(x.device):  # the kernels' grid depends on it
        count = _native_cuda.nuisance_scratch(x, delta, codes, numbers, back)
    return x.new_empty(count, dtype=torch.int64)
