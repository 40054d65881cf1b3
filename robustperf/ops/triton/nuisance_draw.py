from robustperf.ops.triton.nuisance import transform_into
from robustperf.ops.triton.nuisance_sample import nuisance_sample


def nuisance_draw(out, x, index, draw, codes, parameters, key):
    transform_into(out, x, nuisance_sample(index, draw, codes, parameters, key).to(x.dtype), codes, parameters)
