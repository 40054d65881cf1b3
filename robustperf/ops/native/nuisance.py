import torch

from robustperf import _native, check
from robustperf.ops.program import channels_out


def nuisance(x, delta, codes, numbers):
    return transformed(x, delta.contiguous(), delta.shape[0], codes, numbers)


def transformed(x, delta, draws, codes, numbers, key=0, index=None, draw=None):
    """x under delta or, where it is None, under draws."""
    out = torch.empty((draws, x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]), dtype=x.dtype)
    fine = _native.nuisance(x.contiguous(), delta, out, codes, numbers, key % 2**64, index, draw,
                            torch.get_num_threads())
    if not fine:
        check.images("x", x, (0.0, 1.0))
    return out
