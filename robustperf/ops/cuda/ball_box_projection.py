from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch


def ball_box_projection(x, delta, radius, lower, upper, norm):
    out = x.new_empty(x.shape)
    tensors = (tensor.contiguous() for tensor in (x, delta, radius, lower, upper))
    launch(_native_cuda.ball_box_projection, x.device, *tensors, out, norm)
    return out
