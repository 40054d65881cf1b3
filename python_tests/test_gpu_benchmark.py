"""`benchmarks/gpu.py`: what hangs or fails is reported and the rest runs, and what is written is whole."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name):
    """A benchmark's module; its neighbours are found for the time of the import."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    before = sys.path[:]
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(loaded)
    finally:
        sys.path[:] = before
    return loaded


gpu, gpu_figures, gpu_timing, gpu_operations = map(module, ("gpu", "gpu_figures", "gpu_timing", "gpu_operations"))
BACKENDS = ("cuda", "triton")


@pytest.fixture
def results(tmp_path):
    return gpu.Results(tmp_path / "out", BACKENDS, {"device": "A | B", "driver": None})


def written(results):
    """(JSON, Markdown), every table of which has rows as long as its head."""
    markdown = (results.out / "gpu.md").read_text(encoding="utf-8")
    columns = None
    for line in markdown.splitlines():
        cells = line.replace("\\|", "").count("|") if line.startswith("|") else None
        assert columns is None or cells in (columns, None), line
        columns = cells
    assert sorted(path.name for path in results.out.iterdir()) == ["gpu.json", "gpu.md"]
    return json.loads((results.out / "gpu.json").read_text(encoding="utf-8")), markdown


def python(tmp_path, code, limit):
    return gpu.run_child([sys.executable, "-c", code], limit, tmp_path / "log")


def test_what_raises_or_hangs_is_reported_and_the_rest_runs(results, tmp_path):
    def raising(limit):
        raise ZeroDivisionError("nothing | there")

    def hanging(limit):
        status = python(tmp_path, "import time; print('asleep', flush=True); time.sleep(60)", limit)
        raise gpu.CouldNotRun(gpu.why(status, limit, tmp_path / "log"))

    def fine(limit):
        return {"checks": [{"check": "fine", "passed": 3, "failed": 0, "skipped": 1}]}

    began = time.monotonic()
    parts = [gpu.Part("raises", raising, 9), gpu.Part("hangs", hanging, 4), gpu.Part("goes on", fine, 9)]
    gpu.run_parts(parts, results, began + 100)
    gpu.run_parts([gpu.Part("too late", fine, 9)], results, time.monotonic() + 1)
    content, markdown = written(results)
    assert {row["what"]: row["because"].partition(":")[0] for row in content["could_not_run"]} == {
        "raises": "ZeroDivisionError", "hangs": "out of its 4 s, after", "too late": "out of time"}
    assert [row["check"] for row in content["checks"]] == ["fine"]
    assert [row["outcome"] for row in content["parts"]][2] == "done"
    assert "could not run: too late because out of time" in markdown and "| fine | 3 | 0 | 1 |" in markdown


def test_a_child_is_stopped_with_all_that_it_started(tmp_path):
    alive = tmp_path / "alive"
    grandchild = f"import time, pathlib; time.sleep(4); pathlib.Path({str(alive)!r}).touch()"
    code = ("import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(60)")
    began = time.monotonic()
    assert python(tmp_path, code, 2) is None
    assert time.monotonic() - began < 3.5
    time.sleep(max(5 - (time.monotonic() - began), 0))
    assert not alive.exists()


def test_a_child_that_fails_is_quoted(tmp_path):
    status = python(tmp_path, "import nothing_of_this_name", 60)
    assert status == 1
    said = gpu.why(status, 60, tmp_path / "log")
    assert said == "it ended with 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"


def test_where_a_child_hung_is_quoted(tmp_path):
    (tmp_path / "log").write_text("begun\nTraceback (most recent call last):\n  File \"a.py\", line 3\n"
                                  "    synchronise()\n    ^^^^^^^^^^^\nKeyboardInterrupt\n")
    assert gpu.why(None, 60, tmp_path / "log") == "out of its 60 s, after: synchronise()"


def test_figures_reach_both_files(results, tmp_path):
    figures = gpu_figures.Figures(tmp_path / "figures.json")
    figures.limits({"copy": 2e12, "read": 2.5e12, "launch": 2e-6, "integers": None})
    figures.time("case", (1e-3, "2 GB / copy 2000 GB/s"), {"cuda": 2e-3}, {"peer": 4e-3}, {"cuda": 1})
    figures.asked("share", 85, {"cuda": 50.0, "triton": 90.0}, "%")
    figures.asked("launches", 1, {"cuda": 1}, "", at_most=True)
    figures.could_not_run("kornia", "kornia is not installed")
    found = json.loads((tmp_path / "figures.json").read_text())
    results.add(**{**found, "limits": [{"part": "one", **found["limits"]}]})
    content, markdown = written(results)
    (row,) = content["times"]
    assert row["us"] == {"cuda": 2000.0} and row["over_floor"] == {"cuda": 2.0} and row["floor_us"] == 1000.0
    assert "| case | 1000 | 2 GB / copy 2000 GB/s | 2000 |  | 2 |  | 1 |  | peer 4000 |" in markdown
    assert "| share | ≥ 85 % | 50, not met | 90, met |" in markdown
    assert "| launches | ≤ 1 | 1, met | not measured |" in markdown
    assert "| one | 2000 | 2500 | 2 |" in markdown
    assert "could not run: kornia because kornia is not installed" in markdown


def test_outcomes_of_pytest_are_read(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no disk')\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'one is not two'\n"
        "def test_broken(broken): pass\n"
        "def test_left(): pytest.skip('why not')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
               f"--junitxml={tmp_path / 'out.xml'}", str(tmp_path / "test_three.py")]
    assert gpu.run_child(command, 60, tmp_path / "log") == 1
    counts, failures = gpu.read_junit(tmp_path / "out.xml")
    assert counts == {"passed": 1, "failed": 2, "skipped": 1}
    assert [each["name"] for each in failures] == ["test_three::test_bad", "test_three::test_broken"]
    assert any("one is not two" in line for line in failures[0]["last_lines"])
    assert any("no disk" in line for line in failures[1]["last_lines"])


def test_every_part_is_planned_and_every_file_with_backends_tested(tmp_path):
    assert tuple(module("gpu_speed").PARTS) == gpu.SPEED
    names = [part.name for part in gpu.plan("cuda", False, 10, tmp_path, tmp_path)]
    assert names[0] == "build" and len(set(names)) == len(names)
    assert names.index(gpu.SPEED[-1]) < names.index("tests, cuda") < names.index("compute-sanitizer memcheck")
    files = {path.name for path in gpu.test_files("cuda", False)}
    assert {"test_best_of_k.py", "test_nuisance.py", "test_boundary.py"} <= files and "test_files.py" not in files


@pytest.mark.parametrize("lines, status, found", [
    ("draws: as the reference\n========= ERROR SUMMARY: 0 errors", 0, (1, 0)),
    ("draws: as the reference\n========= Invalid read\n========= ERROR SUMMARY: 1 error", 99, (0, 1)),
    ("draws: out of memory\n========= ERROR SUMMARY: 0 errors", 1, None),
    ("========= Device not supported", 1, None),
    ("draws: as the reference\n========= ERROR SUMMARY: 0 errors", 139, None),
])
def test_a_sanitizer_is_clean_only_where_operations_ran(tmp_path, monkeypatch, lines, status, found):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if found is None:
        with pytest.raises(gpu.CouldNotRun, match=f"it ended with {status}"):
            gpu.sanitizer("memcheck", "cuda", tmp_path, 60)
        return
    rows = gpu.sanitizer("memcheck", "cuda", tmp_path, 60)
    assert (rows["checks"][0]["passed"], rows["checks"][0]["failed"]) == found
    assert any("Invalid read" in line for row in rows["failures"] for line in row["last_lines"]) == bool(found[1])


def test_no_gpu_is_said_and_nothing_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "describe", lambda folder: {"device": None})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out")])
    assert gpu.main() == 2
    assert "no GPU" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_turns_leave_out_what_raises():
    counts, failures = {"good": 0}, {}

    def good():
        counts["good"] += 1

    def bad():
        raise RuntimeError("an illegal address")

    times = gpu_timing.take_turns({"bad": bad, "good": [good, good]}, "cpu", repeats=2, failed=failures.__setitem__)
    assert set(times) == {"good"} and times["good"] > 0 and counts["good"] > 4
    assert failures == {"bad": "RuntimeError: an illegal address"}


@pytest.mark.parametrize("moved, operations, expected, word", [
    (4e9, 0, 2.0, "MB / read 2 GB/s"), (4e9, 3e10, 3.0, "integer operations"), (1, 0, 1e-6, "a launch")])
def test_floor_is_the_longest_of_its_parts(moved, operations, expected, word):
    limits = gpu_timing.Limits(copy=1e9, read=2e9, launch=1e-6, integers=1e10)
    seconds, model = limits.floor(moved, "read", operations)
    assert seconds == pytest.approx(expected) and word in model


def test_an_operation_that_differs_or_raises_is_found():
    name, make = next(each for each in gpu_operations.calls() if each[0] == "logit_gap float32")
    assert gpu_operations.check(name, make, "native", "cpu") == {"operation": name, "wrong": None}

    def wrong(backend, device):
        (gap,) = make(backend, device)
        return (gap + (backend == "native"),)

    assert "37 of 37 numbers" in gpu_operations.check(name, wrong, "native", "cpu")["wrong"]
    assert "backend" in gpu_operations.check(name, make, "no such one", "cpu")["wrong"]
    called = {name.split()[0] for name, _ in gpu_operations.calls()}
    assert called >= {"best_of_k", "draws", "halfspace_box_projection", "line_search_step", "logit_gap", "nuisance",
                      "nuisance_draw", "nuisance_sample"}
