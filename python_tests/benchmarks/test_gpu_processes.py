"""Child processes of `benchmarks.gpu`: what hangs is stopped, what dies is replaced, their work is done."""

import sys
import time

import pytest

from benchmarks.gpu import checks, processes
from benchmarks.gpu.shared_work import SharedWork, read_outcomes, read_started

CONTEXT_LOST = processes.CONTEXT_LOST


def python(tmp_path, code, limit):
    return processes.run_child([sys.executable, "-c", code], limit, tmp_path / "log")


def test_a_child_is_stopped_with_all_that_it_started(tmp_path):
    alive = tmp_path / "alive"
    grandchild = f"import time\nwhile True:\n    open({str(alive)!r}, 'a').write('.')\n    time.sleep(0.05)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(60)"
    )
    began = time.monotonic()
    assert python(tmp_path, code, 3) is None
    assert time.monotonic() - began < 30
    size = alive.stat().st_size
    time.sleep(0.5)
    assert alive.stat().st_size == size > 0


def test_a_child_that_fails_is_quoted(tmp_path):
    status = python(tmp_path, "import nothing_of_this_name", 60)
    assert status == 1
    reason = processes.why(status, 60, tmp_path / "log")
    assert reason == "it ended with 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"


def test_where_a_child_hung_is_quoted(tmp_path):
    (tmp_path / "log").write_text(
        'started\nTraceback (most recent call last):\n  File "a.py", line 3\n'
        "    synchronise()\n    ^^^^^^^^^^^\nKeyboardInterrupt\n"
    )
    assert processes.why(None, 60, tmp_path / "log") == "out of its 60 s, after: synchronise()"


def test_a_stopped_run_starts_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_stopped", False)
    processes.stop_all()
    with pytest.raises(processes.CouldNotRun, match="stopped"):
        python(tmp_path, "open('there', 'w')", 60)


def test_processes_share_a_list_without_overlap_from_different_starts(tmp_path):
    names = [f"name {number}" for number in range(10)]
    one, two = (SharedWork(tmp_path, number, 2) for number in range(2))
    first, second = one.take(names), two.take(names)
    assert [next(first), next(second), next(second), next(first)] == ["name 0", "name 5", "name 6", "name 1"]
    rest = [*first]
    assert rest == [f"name {number}" for number in (2, 3, 4, 7, 8, 9)] and not list(second)
    assert sorted(read_started(tmp_path)) == names


def test_a_record_that_was_cut_off_costs_no_other(tmp_path):
    (tmp_path / "outcomes-0").write_text('\n{"name": "one"}\n\n{"name": "tw')
    SharedWork(tmp_path).record("three")
    assert read_outcomes(tmp_path) == [{"name": "one"}, {"name": "three"}]


WORKER = """
import argparse, os, pathlib, sys, time
from benchmarks.gpu.shared_work import SharedWork
options = argparse.ArgumentParser()
for name in ("--share", "--process", "--processes"):
    options.add_argument(name)
arguments = options.parse_args()
work = SharedWork(pathlib.Path(arguments.share), int(arguments.process), int(arguments.processes))
for name in work.take([f"name {number}" for number in range(12)]):
    print("now", name, flush=True)
    if name == "name 2": os._exit(75)
    if name == "name 3": os.abort()
    if name == "name 7": time.sleep(60)
    work.record(name, found=name)
"""


def test_an_item_that_dies_or_hangs_costs_only_itself(tmp_path):
    found = processes.run_shared([sys.executable, "-c", WORKER], 3, tmp_path, "work", 10)
    assert sorted(found.outcomes) == sorted(f"name {number}" for number in range(12) if number not in (2, 3, 7))
    assert all(outcome == {"found": name} for name, outcome in found.outcomes.items())
    assert {name: how.partition(":")[0] for name, how in found.died.items()} == {
        "name 2": "it ended with 75",
        "name 3": "it ended with -6",
    }
    assert found.not_reached == ["name 7"] and not found.reasons
    printed = "".join((tmp_path / f"work-{number}.log").read_text() for number in range(3))
    assert sorted(line.removeprefix("now ") for line in printed.splitlines() if line.startswith("now")) == sorted(
        f"name {number}" for number in range(12)
    )


def test_a_process_that_takes_nothing_is_not_started_again(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such device')"]
    found = processes.run_shared(command, 2, tmp_path, "work", 60)
    assert found.reasons == ["it ended with 1: no such device"] * 2
    assert not (found.outcomes or found.died or found.not_reached)


OPERATIONS = """
import os, torch
from benchmarks.gpu import operations
lost = []
def right(backend, device):
    assert not lost, "a call after the loss"
    return (torch.ones(3),)
def wrong(backend, device):
    return (torch.full((3,), 2.0 if backend == "native" else 1.0),)
def loses(backend, device):
    if backend == "native":
        lost.append(True)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return right(backend, device)
def dies(backend, device):
    if backend == "native":
        os.abort()
    return right(backend, device)
operations.calls = lambda: [("a", right), ("b", loses), ("c", right), ("d", wrong), ("e", dies), ("f", right)]
operations.context_works = lambda device: not lost
operations.main()
"""


def test_an_operation_that_breaks_the_device_leaves_the_others_right(tmp_path):
    command = [sys.executable, "-c", OPERATIONS, "--backend", "native", "--device", "cpu"]
    found = processes.run_shared(command, 1, tmp_path, "operations", 1500)
    assert [name for name, outcome in found.outcomes.items() if outcome["wrong"] is None] == ["a", "c", "f"]
    assert found.statuses == [CONTEXT_LOST, -6, 0]
    rows = checks.operation_rows("native", found, "operations-*.log")
    assert rows["checks"] == [
        {"check": "every operation once, native", "passed": 3, "failed": 3, "skipped": 0, "not_reached": 0}
    ]
    assert {row["name"]: row["last_lines"][0].partition(":")[0] for row in rows["failures"]} == {
        "b, native": "RuntimeError",
        "d, native": "3 of 3 values of result 0 differ from the reference's",
        "e, every operation once, native": "its process ended",
    }


TESTS = """
import os, pytest
from benchmarks.gpu import shared_tests
shared_tests.context_works = lambda device: not lost
lost = []
@pytest.fixture(scope="module")
def broken(): raise OSError('no disk')
@pytest.mark.parametrize("number", range(4))
def test_good(number): assert not lost
def test_bad(): assert 1 == 2, 'one is not two'
def test_broken(broken): pass
def test_loses():
    lost.append(True)
    raise RuntimeError("CUDA error: misaligned address")
def test_dies(): os.abort()
def test_left(): pytest.skip('why not')
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_of_a_backend(backend): assert not lost
"""


def test_outcomes_of_tests_that_several_processes_share(tmp_path):
    (tmp_path / "test_stub.py").write_text(TESTS)
    (tmp_path / "test_other.py").write_text("def test_of_another_file(): pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-summary",
        "-p",
        "benchmarks.gpu.shared_tests",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        "--device",
        "cpu",
        tmp_path / "test_stub.py",
        tmp_path / "test_other.py",
    ]
    found = processes.run_shared(command, 2, tmp_path, "tests", 1500)
    rows = checks.test_rows(found, ("native", "reference"), "tests-*.log")
    counts = {row.pop("check"): row for row in rows["checks"]}
    assert counts == {
        "test_stub.py, native": {"passed": 5, "failed": 4, "skipped": 1, "not_reached": 0},
        "test_stub.py, reference": {"passed": 1, "failed": 0, "skipped": 0, "not_reached": 0},
        "test_other.py, native": {"passed": 1, "failed": 0, "skipped": 0, "not_reached": 0},
    }
    failures = {row["name"]: "\n".join(row["last_lines"]) for row in rows["failures"]}
    assert {
        name: text
        for name, text in (
            ("test_stub.py::test_bad", "one is not two"),
            ("test_stub.py::test_broken", "no disk"),
            ("test_stub.py::test_loses", "misaligned address"),
            ("test_stub.py::test_dies, tests", "it ended with -6"),
        )
        if text in failures[name]
    }.keys() == failures.keys()
    logs = "".join(path.read_text() for path in tmp_path.glob("tests-*.log"))
    assert "one is not two" in logs
    assert "the device no longer works in this process since test_stub.py::test_loses" in logs


def test_tests_that_were_not_reached_are_named():
    found = processes.Shared(
        {"test_a.py::test_one[triton]": {"outcome": "passed", "last_lines": []}},
        {},
        ["test_a.py::test_two[triton]", "test_a.py::test_three"],
        [None],
        [],
    )
    rows = checks.test_rows(found, ("cuda", "triton"), "tests-*.log")
    assert rows["not_reached"] == [{"what": "tests", "names": found.not_reached}] and not rows["failures"]
    assert {row["check"]: (row["passed"], row["not_reached"]) for row in rows["checks"]} == {
        "test_a.py, triton": (1, 1),
        "test_a.py, cuda": (0, 1),
    }
