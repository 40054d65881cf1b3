"""The CUDA code without a GPU: the host's compiler builds it against a stand-in for CUDA's header (cuda_runtime.h,
which says what this cannot test). The ops' own tests run on it, and tests of what the stand-in itself detects."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest

from python_tests.emulated.build_emulated import CUDA, HERE, build, build_module, compiler
from python_tests.support.op_files import files_of
from python_tests.support.stubs import functions_of, functions_of_stub

pytestmark = pytest.mark.skipif(compiler() is None, reason="emulation: there is no g++ (or CXX) here, or no Linux")

OPS = HERE.parent / "ops"
OPERATIONS = {"nuisance_draw", *(source.stem for source in CUDA.glob("*.cu") if files_of(source.stem))}
NAMES = [*sorted(OPERATIONS), "cuda_clusters"]


def paths_of(name):
    """The files of an operation's tests, or the file of this name here."""
    return [OPS / f"{stem}.py" for stem in files_of(name)] or [HERE / f"{name}.py"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The program of cases.cu."""
    out = tmp_path_factory.mktemp("cases") / "cases"
    build(out, [HERE / "cases.cu", CUDA / "launch.cu"])
    return out


def run(program, name, **environment):
    return subprocess.run([program, name], capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_sums_over_lanes_blocks_and_clusters(cases, order):
    done = run(cases, "right", EMULATED_ORDER=order)
    assert done.returncode == 0, done.stderr
    *out, total = map(int, done.stdout.split())
    for block in range(2):
        for thread in range(64):
            first = thread // 32 * 32
            before, last = sum(range(first, thread + 1)), sum(range(first, first + 32))
            assert out[64 * block + thread] == before + 1000 * 2 + 10000 * last
    assert out[128:] == [number % 1000 for number in reversed(out[:128])]
    assert total == 128 * sum(range(64))


WRONG = {
    "half_of_a_block": ["half_of_a_block.*, block 0: not all threads came. Of 64", "  32 have ended",
                        r"  32 wait at __syncthreads in .*half_of_a_block.*cases\.cu:\d+"],
    "a_block_of_a_cluster": ["a_block_of_a_cluster.*: not all blocks of a cluster came. Of 2",
                             "  1 wait at barrier.cluster", "  1 have ended"],
    "half_of_a_warp": ["  32 wait at __syncwarp", "  32 wait at a shuffle"],
    "all_lanes_but_one": ["all_lanes_but_one.*Of 64", "  33 have ended", "  31 wait at a shuffle"],
    "a_lane_outside_of_the_mask": ["block 0, thread 1: a shuffle reads a lane that its mask lacks"],
    "a_misaligned_access": [r"vector_access\.hpp:\d+:\d+: runtime error: .*misaligned address \S+ for type "
                            r"'const .*uint4'"],
    "a_trap": ["a_trap.*, block 0, thread 0: __trap"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_ends_the_process_with_a_message(cases, name):
    done = run(cases, name)
    assert done.returncode != 0 and not done.stdout
    for message in WRONG[name]:
        assert re.search(message, done.stderr), f"{message} is not in\n{done.stderr}"


@pytest.mark.parametrize("name", ["three_blocks_in_clusters_of_two", "too_many_threads"])
def test_an_invalid_launch_is_refused_and_the_next_one_runs(cases, name):
    assert run(cases, name).stdout.splitlines() == ["case: invalid argument"]


def test_clusters_need_capability_9(cases):
    assert run(cases, "clusters").stdout.startswith("1\n")
    assert run(cases, "clusters", EMULATED_CAPABILITY="8").stdout.startswith("0\n")
    assert run(cases, "right", EMULATED_CAPABILITY="8").stdout.splitlines() == ["case: invalid argument"]


def test_after_a_trap_every_call_fails(cases):
    done = run(cases, "right", EMULATED_TRAP="device::right")
    assert done.stdout.splitlines() == ["case: an illegal instruction was encountered"] * 2


# ---- the operations


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return build_module(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module")
def log(module):
    """The addresses in the module of the functions that were launched."""
    return module.with_name("launched")


@pytest.fixture(scope="module")
def done(module, log):
    """The finished process that has run the operations' own tests."""
    paths = os.pathsep.join(map(str, [HERE.parents[1], *sys.path]))
    # without the options of the whole run, such as those that require backends
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": "",
                                "EMULATED_MODULE": str(module), "EMULATED_LOG": str(log)}  # fmt: skip
    files = [file for name in NAMES for file in paths_of(name)]
    plugins = ["-p", "python_tests.emulated.cuda_emulated", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-v", *plugins, "--only-backends=cuda", *files]
    return subprocess.run(command, cwd=OPS, capture_output=True, text=True, env=environment)


def test_the_ops_own_tests(done, note_backend):
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for name in NAMES:
        files = "|".join(file.stem for file in paths_of(name))
        assert re.search(rf"({files})\.py::.+ PASSED", output), f"no test of {name} passed:\n{output}"
    assert "SKIPPED" not in output, output
    note_backend("cuda-emulated")


def test_the_stub_declares_what_the_module_has(module):
    spec = importlib.util.spec_from_file_location("robustperf._native_cuda", module)
    emulated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulated)
    assert functions_of(emulated) == functions_of_stub(HERE.parents[1] / "robustperf" / "_native_cuda.pyi")


def test_every_global_function_was_launched(module, log, done):
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not here")
    functions = {
        name
        for source in CUDA.glob("*.cu")
        for name in re.findall(r"__global__ void[^{;]*?(\w+_global)\(", source.read_text())
    }
    assert len(functions) >= 8
    listing = subprocess.run(["nm", "-C", module], capture_output=True, text=True, check=True).stdout
    function = (
        rf"^0*([0-9a-f]+) [tT] (?!.*lambda).*\(anonymous namespace\)::((?:{'|'.join(functions)})(?:<.*>)?\(.*\))$"
    )
    found = re.findall(function, listing, re.M)
    assert {re.match(r"\w+", name)[0] for _, name in found} == functions
    launched = set(log.read_text().split())
    assert [name for place, name in found if place not in launched] == []
