"""The parts of `benchmarks.gpu`: a contender, an operation or a backend that fails leaves the others' figures."""

import json
import sys
from sysconfig import get_config_var

import pytest
import torch

from benchmarks.common import timing
from benchmarks.gpu import bench as gpu_bench
from benchmarks.gpu import checks, device, operations, speed
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.processes import CONTEXT_LOST, CouldNotRun


def place(tmp_path, device="cuda", modules=None):
    return checks.Place(device, True, tmp_path, 2, modules)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "measure_limits", lambda *_: device.Limits(1e9, 1e9, 1e-6, None))
    return gpu_bench.Bench("cpu", True, Figures(tmp_path / "figures.json"), compiles=False)


def figures(tmp_path):
    return json.loads((tmp_path / "figures.json").read_text())


def test_turns_leave_out_what_raises():
    counts, failures = {"good": 0}, {}

    def good():
        counts["good"] += 1

    def bad():
        raise RuntimeError("an illegal address")

    def fails_later():
        counts["later"] = counts.get("later", 0) + 1
        if counts["later"] > 60:
            raise RuntimeError("in its turn")

    times = timing.device_times(
        {"bad": bad, "good": [good, good], "later": fails_later},
        "cpu",
        repeats=2,
        failed=lambda name, error: failures.setdefault(name, device.reason(error)),
    )
    assert set(times) == {"good"} and times["good"] > 0 and counts["good"] > 4
    assert failures == {"bad": "RuntimeError: an illegal address", "later": "RuntimeError: in its turn"}


@pytest.mark.parametrize(
    "moved, operations, expected, word",
    [(4e9, 0, 2.0, "MB / read 2 GB/s"), (4e9, 3e10, 3.0, "integer operations"), (1, 0, 1e-6, "a launch")],
)
def test_floor_is_the_longest_of_its_parts(moved, operations, expected, word):
    limits = device.Limits(copy=1e9, read=2e9, launch=1e-6, integers=1e10)
    seconds, model = limits.floor(moved, "read", operations)
    assert seconds == pytest.approx(expected) and word in model


def test_an_operation_that_differs_or_raises_is_found():
    name, make = next(each for each in operations.calls() if each[0] == "logit_gap float32")
    assert operations.check(name, make, "native", "cpu") == {"name": name, "wrong": None}

    def wrong(backend, device):
        (gap,) = make(backend, device)
        return (gap + (backend == "native"),)

    assert "37 of 37 values" in operations.check(name, wrong, "native", "cpu")["wrong"]
    assert "backend" in operations.check(name, make, "no such one", "cpu")["wrong"]
    called = {name.split()[0] for name, _ in operations.calls()}
    assert called >= {
        "ball_box_projection",
        "best_of_k",
        "draws",
        "halfspace_box_projection",
        "line_search_step",
        "logit_gap",
        "nuisance",
        "nuisance_draw",
        "nuisance_sample",
        "rbf_decision",
    }


def test_only_what_agrees_with_the_reference_is_timed(bench, tmp_path):
    def ours(backend):
        if backend == "reference":
            raise RuntimeError("no such kernel")
        return torch.tensor([1.0, 2.0, 4.0])

    assert bench.agreeing("right", ours, lambda: torch.tensor([1.0, 2.0, 4.0])) == ["native"]
    assert bench.agreeing("wrong", ours, lambda: torch.tensor([1.0, 2.0, 4.1])) == []
    assert bench.agreeing("nan", ours, lambda: torch.tensor([1.0, 2.0, torch.nan])) == []
    assert bench.agreeing("no reference", ours, lambda: 1 / 0) == []
    assert [row["what"] for row in figures(tmp_path)["could_not_run"]] == [
        "right, reference",
        "wrong, native",
        "wrong, reference",
        "nan, native",
        "nan, reference",
        "no reference, the reference on the CPU",
    ]


@pytest.mark.parametrize("side", ["published, our kernel", "float32"])
def test_a_step_of_training_that_fails_leaves_the_others(bench, tmp_path, monkeypatch, side):
    from benchmarks.gpu import jobs

    real = jobs.training.contenders

    def broken(*arguments, **settings):
        def fails(model, x, y):
            raise RuntimeError("CUDA error: no kernel image is available")

        return {**real(*arguments, **settings), side: fails}

    monkeypatch.setattr(jobs.training, "contenders", broken)
    monkeypatch.setattr(jobs.training, "BATCH", jobs.training.BATCH)  # a trial sets it
    monkeypatch.setattr(jobs, "_equal_selections", lambda bench, k, batches: batches)
    jobs.mrt(bench)
    found = figures(tmp_path)
    (row,) = found["times"]
    assert {"published", "bfloat16 selection, native"} <= set(row["peers_us"])
    failed = {"published, our kernel": {"published, kernel of native"}, "float32": {"native", "reference"}}[side]
    assert not failed & {*row["us"], *row["peers_us"]}
    assert {row["what"].rpartition("batch 8, ")[2] for row in found["could_not_run"]} == failed
    assert set(found["targets"][0]["values"]) == ({"native", "reference"} - failed)


def test_a_lost_device_ends_the_process_and_names_the_backend(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "context_works", lambda device: False)

    def breaks():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(SystemExit) as ended:
        bench.race("case", (1.0, "a floor"), {"native": breaks, "reference": breaks}, {})
    assert ended.value.code == CONTEXT_LOST and figures(tmp_path)["lost"] == "native"


def test_a_part_runs_again_without_the_backend_that_lost_the_device(tmp_path, monkeypatch):
    def child(command, limit, log, **environment):
        without = command[command.index("--without") + 1] if "--without" in command else None
        made = Figures(command[command.index("--out") + 1])
        made.limits({"copy": 1.0, "read": 1.0, "launch": 1.0})
        if without is None:
            made.time("first", (1.0, "a floor"), {"cuda": 2.0, "triton": 3.0})
            made.could_not_run("second, cuda", "an illegal address")
            made.lost("cuda")
            return CONTEXT_LOST
        assert without == "cuda"
        made.time("first", (1.0, "a floor"), {"triton": 4.0})
        made.time("second", (1.0, "a floor"), {"triton": 5.0})
        return 0

    monkeypatch.setattr(checks, "run_child", child)
    rows = checks.speed(place(tmp_path), "colours", True, 60)
    assert {row["case"]: row["us"] for row in rows["times"]} == {
        "first": {"cuda": 2e6, "triton": 4e6},
        "second": {"triton": 5e6},
    }
    assert rows["could_not_run"] == [{"what": "second, cuda", "reason": "an illegal address"}]


def test_a_part_that_crashes_keeps_what_it_found(tmp_path, monkeypatch):
    def child(command, limit, log, **environment):
        Figures(command[command.index("--out") + 1]).time("first", (1.0, "a floor"), {"cuda": 2.0})
        log.write_text("it begins\nSegmentation fault\n")
        return -11

    monkeypatch.setattr(checks, "run_child", child)
    rows = checks.speed(place(tmp_path), "colours", True, 60)
    assert rows["times"][0]["us"] == {"cuda": 2e6}
    assert rows["could_not_run"] == [{"what": "the rest of colours", "reason": "it ended with -11: Segmentation fault"}]


SANITIZER = """#!{python}
import os, sys
if "--help" in sys.argv:
    sys.exit(print({option!r}))
given = sys.argv[1:]
assert given[given.index({option!r}) + 1] == "kns=robustperf", given
from pathlib import Path
from benchmarks.gpu.shared_work import SharedWork
work = SharedWork(Path(given[given.index("--share") + 1]), int(given[given.index("--process") + 1]), 1)
for name in work.take({names!r}):
    work.record(name, wrong=None)
print({lines!r})
sys.exit({status})
"""


@pytest.mark.parametrize(
    "lines, status, names, found",
    [
        ("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors", 0, ["draws"], (1, 0)),
        (
            "========= COMPUTE-SANITIZER\n========= Invalid read\n========= ERROR SUMMARY: 1 error",
            99,
            ["draws"],
            (0, 1),
        ),
        ("out of memory\n========= ERROR SUMMARY: 0 errors", 1, [], None),
        ("========= Device not supported", 1, [], None),
    ],
)
@pytest.mark.parametrize("option", ["--kernel-name", "--kernel-regex"])
def test_a_sanitizer_is_clean_only_where_operations_ran(tmp_path, monkeypatch, lines, status, names, found, option):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        SANITIZER.format(
            python=sys.executable,
            lines=lines,
            status=status,
            names=names,
            option=option,
        )
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if found is None:
        with pytest.raises(CouldNotRun):
            checks.sanitizer(place(tmp_path), "memcheck", 0.5, 60)
        return
    rows = checks.sanitizer(place(tmp_path), "memcheck", 0.5, 60)
    assert (rows["checks"][0]["passed"], rows["checks"][0]["failed"]) == found
    assert any("Invalid read" in line for row in rows["failures"] for line in row["last_lines"]) == bool(found[1])


def test_prebuilt_modules_are_those_of_this_python(tmp_path, monkeypatch):
    here, package, suffix = tmp_path / "built", tmp_path / "package", get_config_var("EXT_SUFFIX")
    here.mkdir(), package.mkdir()
    (here / "_native.cpython-32-other.so").touch()
    with pytest.raises(CouldNotRun, match=f"--modules .*: expected _native{suffix} in it, found _native.cpython-32"):
        checks.build(place(tmp_path, "cpu", here), 60)
    built = next(checks.PACKAGE.glob(f"_native{suffix}"))
    (here / built.name).write_bytes(built.read_bytes())
    monkeypatch.setattr(checks, "PACKAGE", package)
    monkeypatch.setattr(checks, "_build_commands", lambda name, folder: pytest.fail("there is nothing to build"))
    assert checks.build(place(tmp_path, "cpu", here), 60) == {"could_not_run": []}
    assert [path.name for path in package.iterdir()] == [built.name]


def test_only_the_module_that_does_not_load_is_built(tmp_path, monkeypatch):
    package, suffix = tmp_path / "package", get_config_var("EXT_SUFFIX")
    package.mkdir()
    built = next(checks.PACKAGE.glob(f"_native{suffix}"))
    (package / built.name).write_bytes(built.read_bytes())
    (package / f"_native_cuda{suffix}").write_text("of an interrupted copy")
    tried = []
    monkeypatch.setattr(checks, "PACKAGE", package)
    monkeypatch.setattr(
        checks,
        "_build_commands",
        lambda name, folder: tried.append(name) or [[sys.executable, "-c", "import sys; sys.exit('no nvcc')"]],
    )
    rows = checks.build(place(tmp_path), 60)
    assert tried == ["_native_cuda"]
    assert rows["could_not_run"] == [
        {"what": "the build of _native_cuda", "reason": "it ended with 1: no nvcc (all in build_native_cuda.log)"}
    ]


def test_every_file_with_backends_is_tested_and_every_part_known():
    files = {path.name for path in checks.test_files("cuda", False)}
    assert {
        "test_best_of_k.py",
        "test_nuisance.py",
        "test_boundary_evaluations.py",
    } <= files and "test_files.py" not in files
    from benchmarks.gpu.passes import FIGURES, SMOKE

    assert tuple(FIGURES) == tuple(speed.PARTS) and set(SMOKE) < set(FIGURES)


def test_the_machine_is_described_twice_in_one_folder(tmp_path):
    """Before and after the build: the log has both descriptions."""
    assert checks.describe(tmp_path, 300) == checks.describe(tmp_path, 300)
