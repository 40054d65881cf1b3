"""A sample of the nightly random calls of the operations: valid ones agree with the reference, others are refused."""

import pytest

from python_tests.support import fuzz_ops


@pytest.mark.parametrize("op", fuzz_ops.OPS)
def test_random_calls(op):
    faults = {seed: fault for seed in range(40) if (fault := fuzz_ops.fault_of(op, seed)) is not None}
    assert not faults
