"""The build's one option, as far as it can be tested without building."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("wanted, message", [
    ("maybe", "ROBUSTPERF_CUDA: expected AUTO, ON or OFF, got 'MAYBE'"),
    ("on", "ROBUSTPERF_CUDA=ON, but no CUDA compiler"),
])  # fmt: skip
def test_a_wrong_or_impossible_option_fails_at_once(tmp_path, wanted, message):
    pytest.importorskip("setuptools", reason="setuptools is not installed beside pytest")
    shutil.copy(ROOT / "setup.py", tmp_path)
    environment = {**os.environ, "ROBUSTPERF_CUDA": wanted, "PATH": str(tmp_path), "CUDA_HOME": str(tmp_path)}
    environment.pop("CUDACXX", None)
    process = subprocess.run(
        [sys.executable, "setup.py", "build_ext"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert message in process.stderr


def test_setup_stays_small():
    assert len((ROOT / "setup.py").read_text().splitlines()) <= 120
