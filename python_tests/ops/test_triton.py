"""The Triton kernels without a GPU: the operations' own tests under Triton's interpreter, which runs the kernels'
arithmetic on the CPU, and every kernel compiled ahead of time. Processes of their own, for the interpreter is chosen
when Triton is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustperf.ops import registry

pytest.importorskip("triton", reason="triton is not installed: pip install 'robustperf[triton]'")

HERE = Path(__file__).parent

# The tests of each operation, and those among them that are too long for an interpreter.
INTERPRETED = {
    "test_draws.py": "quarter_of_a_million or normals_are_the_quantiles or grow_past_the_lanes",
    "triton_philox.py": "",
}


def run(*command, **environment):
    paths = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
    return subprocess.run([sys.executable, *command], cwd=HERE, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment)


@pytest.mark.parametrize("tests", INTERPRETED)
def test_under_the_interpreter(tests):
    too_long = INTERPRETED[tests]
    wanted = f"triton and not ({too_long})" if too_long else "triton"
    done = run("-m", "pytest", "-q", "-p", "triton_interpreted", "-p", "no:cacheprovider", "-k", wanted, tests,
               TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout) and "skipped" not in done.stdout, done.stdout


def test_every_kernel_compiles_ahead_of_time():
    ops = [op for op in registry.OPS if "triton" in registry.implemented(op)]
    done = run("triton_ahead_of_time.py", *ops)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for op in ops:
        for target in ("sm_80", "sm_90"):
            assert any(line.startswith(f"{target} 0 fused {op}") for line in lines), f"{op} for {target}"
