"""The options of this folder's conftest.py, in one process and where `pytest -n` runs the tests in two. CI has the case
in which they are satisfied."""

import os
import sys
from pathlib import Path

import pytest

from python_tests.support.processes import start

FILES = {
    "test_backends.py": 'OP = "logit_gap"\n\n\ndef test_each(backend):\n    pass\n',
    "test_of_another_process.py": 'def test_it(note_backend):\n    note_backend("emulated")\n',
    "test_one_skipped.py": 'import pytest\n\n\ndef test_it():\n    pass\n\n\ndef test_not():\n    pytest.skip("why")\n',
}


def run_pytest(folder, arguments):
    os.chdir(folder)
    sys.exit(pytest.main(arguments))


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one process", "two"])
def test_what_was_required_and_did_not_run_is_named_and_fails(processes, tmp_path):
    if processes:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    arguments = [
        "-p", "python_tests.conftest", "-p", "no:cacheprovider", *processes, str(tmp_path),
        "--only-backends=reference,native", "--require-backends=reference,emulated,warp",
        "--forbid-skips=test_backends.py,test_of_another_process.py,test_one_skipped.py,test_absent.py",
    ]  # fmt: skip
    log = tmp_path / "log"
    process = start(run_pytest, tmp_path, arguments, log=log, PYTEST_ADDOPTS="", PYTHONPATH=paths)
    process.join()
    output = log.read_text()
    assert process.exitcode == 1 and "failed" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("backends that ran: ")]
    ran = set(line.removeprefix("backends that ran: ").split(", "))
    assert {"reference", "emulated"} <= ran <= {"reference", "native", "emulated"}
    assert "skipped:     1  why" in output
    assert "backends that were required and did not run: warp\n" in output
    assert "files whose tests were all to run and did not: test_absent.py, test_one_skipped.py\n" in output
