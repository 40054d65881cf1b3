import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import bits_of, launch


def draws(key, index, draw, dim, normal):
    out = index.new_empty((draw.shape[0], index.shape[0], dim), dtype=torch.float32)
    launch(_native_cuda.draws, index.device, index.contiguous(), draw.contiguous(), out, bits_of(key), normal)
    return out
