"""Philox4x32-10 in Python's integers, the truth that the draws are held to."""

M = 0xFFFFFFFF


def plain_philox(counter, key):
    """The four output words for four counter words and two key words."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & M, (p0 >> 32) ^ c[3] ^ k1, p0 & M]
        k0, k1 = (k0 + 0x9E3779B9) & M, (k1 + 0xBB67AE85) & M
    return tuple(c)
