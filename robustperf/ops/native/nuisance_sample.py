import torch

from robustperf import _native
from robustperf.ops.program import delta_dim


def nuisance_sample(index, draw, codes, parameters, key):
    delta = torch.empty((draw.shape[0], index.shape[0], delta_dim(codes)), dtype=torch.float32)
    _native.nuisance_sample(
        index.contiguous(), draw.contiguous(), delta, codes, parameters, int(key) % 2**64, torch.get_num_threads()
    )
    return delta
