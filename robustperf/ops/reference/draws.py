import torch

from robustperf.ops.philox import MASK, philox


def draws(key, index, draw, dim, normal):
    blocks = (dim + 3) // 4
    shape = (draw.shape[0], index.shape[0], blocks)
    block = torch.arange(blocks, device=index.device)
    index = index[None, :, None]
    counter = [block, draw[:, None, None], index & MASK, index >> 32]
    words = philox([c.expand(shape) for c in counter], (key & MASK, (key >> 32) & MASK))
    words = torch.stack(words, -1).flatten(2)[..., :dim] >> 8
    return _normal(words) if normal else words.float() * 2.0**-24


def _normal(words):
    """Giles' polynomials for the quantile, step by step as in csrc/core/philox.hpp: the bits are the contract."""
    x = (2 * words + 1 - 2**24).float() * 2.0**-24
    w = -_log((1.0 - x) * (1.0 + x))
    central = _horner(
        w - 2.5,
        2.81022636e-08,
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    )
    root = w.clamp_min(0.0).double().sqrt().float()  # torch's float32 root is not correctly rounded
    tail = _horner(
        root - 3.0,
        -0.000200214257,
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
        0.00943887047,
        1.00167406,
        2.83297682,
    )
    return torch.where(w < 5.0, central, tail) * x * 1.41421356


def _log(y):
    offset = y.view(torch.int32) - 0x3F3504F3
    e = (offset >> 23).float()
    m = ((offset & 0x007FFFFF) + 0x3F3504F3).view(torch.float32) - 1.0
    p = _horner(
        m,
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
    square = m * m
    low = p * m * square + e * -2.12194440e-4 - 0.5 * square
    return (m + low) + e * 0.693359375


def _horner(s, first, *others):
    p = torch.full_like(s, first)
    for coefficient in others:
        p = p * s + coefficient
    return p
