import torch

from robustperf import _native


def draws(key, index, draw, dim, normal):
    out = torch.empty((draw.shape[0], index.shape[0], dim), dtype=torch.float32)
    _native.draws(index.contiguous(), draw.contiguous(), out, int(key) % 2**64, normal, torch.get_num_threads())
    return out
