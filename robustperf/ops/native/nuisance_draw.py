from robustperf.ops.native.nuisance import transform_into


def nuisance_draw(out, x, index, draw, codes, numbers, key):
    transform_into(out, x, None, codes, numbers, key, index.contiguous(), draw.contiguous())
