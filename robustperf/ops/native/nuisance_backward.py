import torch

from robustperf import _native


def nuisance_backward(grad, x, delta, codes, parameters):
    grad_x, grad_delta = torch.empty(x.shape, dtype=x.dtype), torch.empty(delta.shape, dtype=delta.dtype)
    _native.nuisance_backward(
        grad.contiguous(),
        x.contiguous(),
        delta.contiguous(),
        grad_x,
        grad_delta,
        None,
        codes,
        parameters,
        torch.get_num_threads(),
    )
    return grad_x, grad_delta
