"""The Triton kernels without a GPU: the operations' own tests under Triton's interpreter, which runs the kernels'
arithmetic on the CPU, and every kernel compiled ahead of time. Processes of their own, for the interpreter is chosen
when Triton is imported."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from python_tests.support.op_files import files_of
from robustperf.ops import registry

pytest.importorskip("triton", reason="triton is not installed: pip install 'robustperf[triton]'")

HERE = Path(__file__).parent

# Files of tests by operation, and those for Triton alone.
FILES = {op: [f"{stem}.py" for stem in files_of(op)] for op in registry.ops() if files_of(op)}
FILES |= {name: [f"{name}.py"] for name in ("triton_philox", "triton_searches")}

# Kernels whose bits are those of csrc/core. Of the others some take a function of float64 from the device's library,
# whose products and sums are contracted as they come.
EXACT = (
    "ball_box_projection",
    "draws",
    "logit_gap",
    "halfspace_box_projection",
    "line_search_step",
    "nuisance_sample_kernel",
)


def run(*command, **environment):
    paths = os.pathsep.join([str(HERE.parents[1]), *sys.path])
    # options that are for the run as a whole, such as those that require backends, are not for its parts
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""} | environment
    done = subprocess.run([sys.executable, *command], cwd=HERE, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_under_the_interpreter(note_backend):
    output = run(
        "-m",
        "pytest",
        "-v",
        "-p",
        "python_tests.ops.triton_interpreted",
        "-p",
        "no:cacheprovider",
        "--only-backends=triton",
        *itertools.chain(*FILES.values()),
        TRITON_INTERPRET="1",
    )
    for name, of_name in FILES.items():
        assert re.search(rf"({'|'.join(of_name)})::\S+ PASSED", output), f"no test of {name} passed:\n{output}"
    assert "SKIPPED" not in output, output
    note_backend("triton-interpreted")


def test_every_kernel_compiles_ahead_of_time(tmp_path):
    ops = [op for op in registry.ops() if "triton" in registry.implemented(op)]
    assert ops == list(registry.ops())
    lines = run("triton_ahead_of_time.py", *ops, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    for op in ops:
        for target in ("sm_80", "sm_90"):
            # a draw runs the nuisance kernel, and the backward pass of an SVM needs its kernel's values too
            kernel = {"nuisance_draw": "nuisance_kernel", "rbf_decision_backward": "rbf_decision_kernel"}.get(op, op)
            assert any(re.match(rf"{target} \d+ fused {kernel}", line) for line in lines), f"{op} for {target}"
    fused = [line for line in lines if line.split()[3].startswith(EXACT) and line.split()[1] != "0"]
    assert not fused, "\n".join(fused)
