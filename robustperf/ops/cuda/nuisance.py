import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch
from robustperf.ops.program import channels_out


def nuisance(x, delta, codes, parameters):
    out = x.new_empty((delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]))
    transform_into(out, x.contiguous(), delta.contiguous(), codes, parameters)
    return out


def transform_into(out, x, delta, codes, parameters):
    launch(
        _native_cuda.nuisance, x.device, x, delta, out, scratch(x, delta, codes, parameters, False), codes, parameters
    )


def scratch(x, delta, codes, parameters, backward):
    with torch.cuda.device(x.device):  # the size of the grid depends on it
        count = _native_cuda.nuisance_scratch(x, delta, codes, parameters, backward)
    return x.new_empty(count, dtype=torch.int64)
