"""Random calls of operations, functions and readers of files, each block in a process of its own.

A failure names the subject and the seed: `python -c "from python_tests.support.fuzz import subjects;
print(subjects()['ops.draws'](SEED))"` repeats the call.
"""

import os

import pytest

from python_tests.support import fuzz

COUNT = int(os.environ.get("ROBUSTPERF_FUZZ", 8000))
"""The number of calls of each operation. Other subjects are slower and get fewer."""

SHARE = {"ops": 1, "functions": 8, "files": 20}


@pytest.mark.parametrize("subject", sorted(fuzz.subjects()))
def test_random_calls(subject, tmp_path):
    count = max(1, COUNT // SHARE[subject.partition(".")[0]])
    assert (fault := fuzz.run(subject, 10**6, count, tmp_path)) is None, fault
