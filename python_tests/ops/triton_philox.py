"""Philox in Triton, on counters that no draw has. Run by test_triton.py, under the interpreter."""

import pytest
import torch
import triton
import triton.language as tl

from python_tests.ops.test_draws import KNOWN
from python_tests.support.philox import plain_philox
from robustperf.ops.triton.philox import philox


@triton.jit
def philox_kernel(counter, key, out):
    c = [tl.load(counter + i).to(tl.uint32) for i in tl.static_range(4)]
    words = philox(c[0], c[1], c[2], c[3], tl.load(key).to(tl.uint32), tl.load(key + 1).to(tl.uint32))
    for i in tl.static_range(4):
        tl.store(out + i, words[i].to(tl.int64))


@pytest.mark.parametrize("counter, key, words", [
    *KNOWN, ((1, 2**31, 2**16, 2**32 - 1), (2**31 - 1, 7), plain_philox((1, 2**31, 2**16, 2**32 - 1), (2**31 - 1, 7))),
])  # fmt: skip
def test_known_answers_of_random123(counter, key, words):
    out = torch.zeros(4, dtype=torch.int64)
    philox_kernel[(1,)](torch.tensor(counter), torch.tensor(key), out)
    assert tuple(out.tolist()) == tuple(words)
