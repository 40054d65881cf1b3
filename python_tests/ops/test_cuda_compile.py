"""Every CUDA source compiles for the processors that it is meant for, without warnings, and the compiler reports no
register spills in the kernels of the operations. Nothing runs here: that needs a GPU."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
PROCESSORS = ("sm_80", "sm_90")
KERNELS = {
    "best_of_k": {"best_of_k_kernel"},
    "line_search": {"gap_kernel", "step_kernel"},
    "nuisance": {"nuisance_kernel", "sample_kernel"},
    "nuisance_backward": {"backward_kernel"},
    "philox": {"draws_kernel"},
    "projection": {"projection_kernel"},
    "rbf_decision": {"rbf_kernel_values"},
}


def compiler():
    found = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("CUDA: there is no compiler (nvcc) here")
    return found


def flags():
    """Those of the build, as CMakeLists.txt has them."""
    text = (ROOT / "CMakeLists.txt").read_text()
    definition, options = re.findall(r"\$<\$<COMPILE_LANGUAGE:CUDA>:([^>]+)>", text)
    return ["-std=c++17", f"-D{definition}", *options.split(";")]


def kernels_in(report):
    """(processor, mangled name, bytes of spills) of each kernel in the compiler's report."""
    entry = r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    return [(processor, name, int(stores) + int(loads))
            for name, processor, stores, loads in re.findall(entry, report, re.DOTALL)]


def spills_in(report):
    """Bytes, of kernels and of the functions that they call."""
    return sum(int(stores) + int(loads)
               for stores, loads in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report))


def test_the_report_is_understood():
    report = """ptxas info    : Compiling entry function '_Z1av' for 'sm_80'
ptxas info    : Function properties for _Z1av
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function '_Z1bv' for 'sm_90'
ptxas info    : Function properties for _Z1bv
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
"""
    assert kernels_in(report) == [("sm_80", "_Z1av", 0), ("sm_90", "_Z1bv", 16)] and spills_in(report) == 16
    called = "ptxas info    : Function properties for _Z4slowf\n    0 bytes stack frame, 8 bytes spill stores, "
    assert spills_in(report + called + "8 bytes spill loads\n") == 32


def test_every_source_with_kernels_is_listed():
    with_kernels = {source.stem for source in SOURCES if "__global__" in source.read_text()}
    assert with_kernels == set(KERNELS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_sources_compile_without_warnings_and_spills(source, tmp_path):
    targets = [part for processor in PROCESSORS
               for part in ("-gencode", f"arch=compute_{processor[3:]},code={processor}")]
    command = [compiler(), *flags(), *targets, "--threads", "2", "-Werror", "all-warnings", "-Xptxas", "-v", "-fatbin",
               "-o", tmp_path / "out", source]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    report = run.stdout + run.stderr
    assert run.returncode == 0, report
    found = kernels_in(report)
    for processor in PROCESSORS:
        names = [name for target, name, _ in found if target == processor]
        for kernel in KERNELS.get(source.stem, ()):
            assert any(kernel in name for name in names), f"{kernel} was not compiled for {processor}"
    assert [each for each in found if each[2]] == [] and spills_in(report) == 0, report
