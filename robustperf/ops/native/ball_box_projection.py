import torch

from robustperf import _native


def ball_box_projection(x, delta, radius, lower, upper, norm):
    out = torch.empty(x.shape, dtype=x.dtype)
    tensors = (tensor.contiguous() for tensor in (x, delta, radius, lower, upper))
    _native.ball_box_projection(*tensors, out, norm, torch.get_num_threads())
    return out
