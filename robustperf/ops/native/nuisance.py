import torch

from robustperf import _native, check
from robustperf.ops.program import channels_out


def nuisance(x, delta, codes, parameters):
    out = torch.empty((delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]), dtype=x.dtype)
    delta = delta.contiguous()

    def run(x):
        return _native.nuisance(x.contiguous(), delta, out, None, codes, parameters, torch.get_num_threads())

    if run(x):
        clamped = check.images("x", x, (0.0, 1.0))
        check.finite("delta", delta)
        run_again_clamped(run, x, clamped)
    return out


def run_again_clamped(run, x, clamped):
    """Runs once more on `clamped`, x without pixels that were outside [0, 1] by rounding."""
    if clamped is not x:
        run(clamped)
