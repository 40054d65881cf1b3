import torch

from robustperf import _native


def halfspace_box_projection(x, w, c, norm, lower, upper):
    delta = torch.empty(x.shape, dtype=x.dtype)
    feasible = torch.empty(x.shape[0], dtype=torch.bool)
    _native.halfspace_box_projection(
        x.contiguous(), w.contiguous(), c.contiguous(), delta, feasible, norm, lower, upper, torch.get_num_threads()
    )
    return delta, feasible
