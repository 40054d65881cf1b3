from robustperf.ops.cuda.nuisance import transform_into
from robustperf.ops.cuda.nuisance_sample import nuisance_sample


def nuisance_draw(out, x, index, draw, codes, parameters, key):
    delta = nuisance_sample(index, draw, codes, parameters, key)
    transform_into(out, x.contiguous(), delta.to(x.dtype), codes, parameters)
