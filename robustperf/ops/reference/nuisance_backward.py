import torch

from robustperf.ops.reference.nuisance import nuisance


def nuisance_backward(grad, x, delta, codes, parameters):
    with torch.inference_mode(False), torch.enable_grad():
        # copies: what was made in inference mode cannot be differentiated
        grad, x, delta = (tensor.detach().clone() for tensor in (grad, x, delta))
        inputs = x.requires_grad_(), delta.requires_grad_()
        out = nuisance(*inputs, codes, parameters)
        if not out.requires_grad:  # shot noise alone: counts jump
            return torch.zeros(x.shape).to(x), torch.zeros(delta.shape).to(delta)
        grads = torch.autograd.grad(out, inputs, grad, allow_unused=True)
    return tuple((torch.zeros_like(of) if g is None else g).contiguous() for g, of in zip(grads, inputs, strict=True))
