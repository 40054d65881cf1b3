import torch

from robustperf import _native


def ball_box_projection(x, delta, radius, lower, upper, norm):
    out = torch.empty(x.shape, dtype=x.dtype)
    _native.ball_box_projection(
        x.contiguous(),
        delta.contiguous(),
        radius.contiguous(),
        lower.contiguous(),
        upper.contiguous(),
        out,
        norm,
        torch.get_num_threads(),
    )
    return out
