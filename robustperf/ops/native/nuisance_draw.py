from robustperf.ops.native.nuisance import transformed


def nuisance_draw(x, index, draw, codes, numbers, key):
    return transformed(x, None, draw.shape[0], codes, numbers, key, index.contiguous(), draw.contiguous())
