import torch

from robustperf import _native, check
from robustperf.ops.program import channels_out


def nuisance(x, delta, codes, numbers):
    out = torch.empty((delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]), dtype=x.dtype)
    transform_into(out, x, delta.contiguous(), codes, numbers)
    return out


def transform_into(out, x, delta, codes, numbers, key=0, index=None, draw=None):
    """x under delta or, where it is None, under draws."""
    faults = _native.nuisance(
        x.contiguous(), delta, out, codes, numbers, int(key) % 2**64, index, draw, torch.get_num_threads()
    )
    if faults:  # put in words by
        clamped = check.images("x", x, (0.0, 1.0))
        if delta is not None:
            check.finite("delta", delta)
        if clamped is not x:  # pixels beyond the box by rounding
            transform_into(out, clamped, delta, codes, numbers, key, index, draw)
