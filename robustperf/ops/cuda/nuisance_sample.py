import torch

from robustperf import _native_cuda
from robustperf.ops.cuda.launch import bits_of, launch
from robustperf.ops.program import delta_dim


def nuisance_sample(index, draw, codes, parameters, key):
    delta = index.new_empty((draw.shape[0], index.shape[0], delta_dim(codes)), dtype=torch.float32)
    launch(
        _native_cuda.nuisance_sample,
        index.device,
        index.contiguous(),
        draw.contiguous(),
        delta,
        codes,
        parameters,
        bits_of(key),
    )
    return delta
