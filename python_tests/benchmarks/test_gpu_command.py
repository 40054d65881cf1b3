"""`benchmarks.gpu`: both passes without a GPU from end to end, their budgets, and what is reported of what fails."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import checks, passes, processes, speed
from benchmarks.gpu.checks import Place
from benchmarks.gpu.results import Results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def one_process(monkeypatch):
    """The parts that measure times run in this process: importing torch takes longer than most of them."""

    def child(command, limit, log, **environment):
        if "benchmarks.gpu.speed" not in command:
            return processes.run_child(command, limit, log, **environment)
        monkeypatch.setattr(sys, "argv", [str(part) for part in command[2:]])
        with log.open("a") as output, redirect_stdout(output), redirect_stderr(output):
            speed.main()
        return 0

    monkeypatch.setattr(checks, "run_child", child)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one part at a time
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_figures_from_end_to_end_without_a_gpu(tmp_path, one_process, capsys):
    status = command.main(arguments("figures", tmp_path))
    check_a_pass("figures", tmp_path, status, capsys.readouterr().out)


def test_correctness_from_end_to_end_without_a_gpu(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments("correctness", tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    check_a_pass("correctness", tmp_path, run.returncode, run.stdout + run.stderr)


def arguments(which, folder):
    trial = ["--device", "cpu", "--small", "--seconds", "1500"]
    return ["--pass", which, *trial, "--out", str(folder / "out")]


def check_a_pass(which, tmp_path, status, printed):
    assert status == 0, printed
    files = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"gpu.json", "gpu.md", "logs.tgz"} and max(files.values()) < 2**24
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    not_here = {"correctness": "memcheck", "figures": "racecheck"}[which]
    outcomes = {row["part"]: row["outcome"] for row in found["parts"]}
    assert outcomes.pop(not_here) == "could not run: it needs a GPU"
    expected = {"best_of_k": "done, except 2 of its parts"}  # launches are counted only on a GPU
    if importlib.util.find_spec("kornia") is None:  # four colours and affine are then without their peer
        expected["colours"] = "done, except 2 of its parts"
    assert outcomes == {name: expected.get(name, "done") for name in outcomes}
    assert not found["failures"] and not found["not_reached"] and found["targets"]
    for row in found["times"]:
        assert row["us"].keys() <= {"native", "reference"} and all(time > 0 for time in row["us"].values())
    with tarfile.open(tmp_path / "out" / "logs.tgz") as archive:
        logs = {name.partition(".")[0].partition("-")[0] for name in archive.getnames()}
    if which == "correctness":
        assert logs >= {"machine", "build_native", "operations_native", "operations_reference", "tests", *passes.SMOKE}
        checks = {row["check"]: row["passed"] for row in found["checks"]}
        assert checks["every operation once, native"] > 15
        assert checks["python_tests/ops/test_logit_gap.py, native"] > 15
    else:
        assert logs >= {"machine", "build_native", *passes.FIGURES}
        assert {row["part"] for row in found["limits"]} == set(passes.FIGURES)
        assert any(
            row["case"].startswith("rbf_decision") and "matmul + exp" in row["peers_us"] for row in found["times"]
        )
    assert "## Parts" in printed and "gpu.md: 0 failures" in printed


@pytest.mark.parametrize("device, which, most", [("cuda", "correctness", 300), ("cuda", "figures", 360)])
def test_the_limits_of_a_pass_add_up_to_its_time(tmp_path, device, which, most):
    stages = passes.PASSES[which](Place(device, False, tmp_path, 16))
    chosen = passes.choose(stages, None)
    assert passes.seconds(chosen) == most
    names = [part.name for stage in chosen for part in stage]
    assert names[0] == "build" and len(set(names)) == len(names)
    if which == "figures":  # the timings alone, and the sanitizer last
        assert all(len(stage) == 1 for stage in chosen)
        assert names[1:] == [*passes.FIGURES, "racecheck"]
    else:
        assert names[1:5] == ["operations cuda", "operations triton", "tests", "memcheck"]
        assert [len(stage) for stage in chosen] == [1, 4, 1, 1, 1]


def test_parts_can_be_chosen(tmp_path):
    stages = passes.correctness(Place("cuda", False, tmp_path, 16))
    assert [[part.name for part in stage] for stage in passes.choose(stages, ["operations", "draws"])] == [
        ["build"],
        ["operations cuda", "operations triton"],
        ["draws"],
    ]
    assert [[part.name for part in stage] for stage in passes.choose(stages, ["operations triton"])] == [
        ["build"],
        ["operations triton"],
    ]
    figures = passes.figures(Place("cuda", False, tmp_path, 16))
    assert [part.name for stage in passes.choose(figures, ["initcheck"]) for part in stage] == ["build", "initcheck"]
    with pytest.raises(ValueError, match="--parts: expected some of .*, got memory"):
        passes.choose(stages, ["memory"])


def test_what_raises_hangs_or_crashes_is_reported_and_the_rest_runs(tmp_path):
    (tmp_path / "logs").mkdir()

    def child(name, code):
        def run(limit):
            log = tmp_path / "logs" / f"{name}.log"
            if (status := processes.run_child([sys.executable, "-c", code], limit, log)) != 0:
                raise processes.CouldNotRun(processes.why(status, limit, log))
            return {"checks": [{"check": name, "passed": 3, "failed": 0, "skipped": 1, "not_reached": 0}]}

        return passes.Part(name, 5, run)

    def raising(limit):
        raise ZeroDivisionError("nothing | there")

    lines = "import os\nfor number in range(5000): print('line', number, flush=True)\n"
    stages = [
        (passes.Part("raises", 3, raising), child("crashes", lines + "os.abort()"), child("works", lines)),
        (child("hangs", "import time; print('asleep', flush=True); time.sleep(60)"),),
        (child("after", ""),),
    ]
    names = [(part.name, part.limit) for stage in stages for part in stage]
    results = Results(tmp_path / "out", "A trial", ("cuda", "triton"), {}, [*names, ("too late", 5)], tmp_path / "logs")
    passes.run(stages, results, time.monotonic() + 18)
    passes.run([(child("too late", ""),)], results, time.monotonic() + 1)
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    reasons = {row["what"]: row["reason"] for row in found["could_not_run"]}
    assert reasons.keys() == {"raises", "crashes", "hangs"} and reasons["raises"].startswith("ZeroDivisionError")
    assert reasons["crashes"].startswith("it ended with -6") and reasons["hangs"].startswith("out of its ")
    assert [row["check"] for row in found["checks"]] == ["works", "after"]
    assert {row["part"]: row["outcome"] for row in found["parts"]}["too late"] == "not reached: out of time"
    with tarfile.open(tmp_path / "out" / "logs.tgz") as archive:
        logs = {name: archive.extractfile(name).read().decode() for name in archive.getnames()}
    whole = "".join(f"line {number}\n" for number in range(5000))
    assert logs["crashes.log"].startswith(whole) and logs["works.log"] == whole
    assert logs["hangs.log"].startswith("asleep")


def test_later_parts_may_use_the_time_that_a_part_leaves(tmp_path):
    given = []
    stages = [
        (passes.Part(name, limit, lambda limit: given.append(limit) or {}),)
        for name, limit in (("build", 100.0), ("one", 10.0), ("two", 20.0))
    ]
    names = [(part.name, part.limit) for (part,) in stages]
    passes.run(stages, Results(tmp_path / "out", "A trial", ("cuda",), {}, names, tmp_path), time.monotonic() + 130)
    assert given == pytest.approx([100, 110, 130], abs=3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "torch finds no GPU"),
        (["--parts", "nothing"], "--parts: expected some of"),
        (["--modules", "nowhere"], "--modules nowhere: expected _native"),
    ],
)
def test_what_cannot_run_is_reported_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(command, "describe", lambda folder, limit: {"gpu": None})
    assert command.main(["--pass", "figures", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
