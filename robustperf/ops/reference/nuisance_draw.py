from robustperf.ops.reference.nuisance import nuisance
from robustperf.ops.reference.nuisance_sample import nuisance_sample


def nuisance_draw(out, x, index, draw, codes, parameters, key):
    delta = nuisance_sample(index, draw, codes, parameters, key)
    out.copy_(nuisance(x, delta.to(x.dtype), codes, parameters))
