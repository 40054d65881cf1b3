from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch
from robustperf.ops.cuda.nuisance import scratch


def nuisance_backward(grad, x, delta, codes, parameters):
    grad, x, delta = grad.contiguous(), x.contiguous(), delta.contiguous()
    grads_x, grad_delta = x.new_empty((delta.shape[0], *x.shape)), delta.new_empty(delta.shape)
    launch(
        _native_cuda.nuisance_backward,
        x.device,
        grad,
        x,
        delta,
        grads_x,
        grad_delta,
        scratch(x, delta, codes, parameters, True),
        codes,
        parameters,
    )
    return grads_x[0] if len(grads_x) == 1 else grads_x.sum(0), grad_delta
