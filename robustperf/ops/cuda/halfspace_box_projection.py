import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch


def halfspace_box_projection(x, w, c, norm, lower, upper):
    delta = x.new_empty(x.shape)
    feasible = x.new_empty(x.shape[0], dtype=torch.bool)
    launch(
        _native_cuda.halfspace_box_projection,
        x.device,
        x.contiguous(),
        w.contiguous(),
        c.contiguous(),
        delta,
        feasible,
        norm,
        lower,
        upper,
    )
    return delta, feasible
