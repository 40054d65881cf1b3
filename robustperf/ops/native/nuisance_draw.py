import torch

from robustperf import _native, check
from robustperf.ops.native.nuisance import run_again_clamped


def nuisance_draw(out, x, index, draw, codes, parameters, key):
    index, draw, key = index.contiguous(), draw.contiguous(), int(key) % 2**64

    def run(x):
        return _native.nuisance_draw(out, x.contiguous(), index, draw, codes, parameters, key, torch.get_num_threads())

    if run(x):
        run_again_clamped(run, x, check.images("x", x, (0.0, 1.0)))
