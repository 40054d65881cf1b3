"""Every CUDA source compiles for every supported GPU, without warnings. For the __global__ functions the compiler
reports no register spills and no more local memory than is listed here, and the stores that should take 16 bytes do.
Where the package was built here, its build has compiled them. Nothing runs: that needs a GPU."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}" / "robustperf._native_cuda"
BUILT /= "CMakeFiles/_native_cuda.dir/csrc/cuda"  # setup.py's
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
PROCESSORS = ("sm_80", "sm_90")
# By __global__ function: a pattern for the mangled names of its instantiations that work on 16 bytes at a time, and the
# least number of such stores in one. All other instantiations, and functions not listed here, have none.
STORES = {
    "draws_global": {"Lb[01]E": 1},
    "ball_box_projection_global": {"Li4E": 1},
    "halfspace_box_projection_global": {"Li4E": 2},  # of a feasible row and of an infeasible one
    "line_search_step_global": {"Li4Ef|Li2Ed": 2},  # the closest point and the next one
    "nuisance_backward_global": {"Li4ELb0E": 3, "Li4ELb1E": 4},  # one per channel, and the field of fog
    "nuisance_global": {"Li4E": 3},  # one per channel
    "rbf_values_global": {"Li4Ef|Li2Ed": 1},
}
# These also write four neighbours one by one where only the alignment of one is known.
UNALIGNED = {"draws_global", "nuisance_sample_global"}
# Bytes of local memory per thread. CUDA's sine, cosine and tangent of a double take 40 to reduce a large angle.
STACK = {"nuisance_global": 40, "nuisance_backward_global": 40}


def functions_of(source):
    """The names of the __global__ functions in a source."""
    return set(re.findall(r"__global__ void[^{;]*?(\w+_global)\(", source.read_text()))


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


def functions_in(report):
    """(processor, mangled name, bytes of stack, bytes of spills) of each __global__ function in the compiler's
    report. The stack includes that of the functions it calls, where the compiler says so."""
    entry = (
        r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads(?:\n[^\n]*Used \d+ registers[^\n]*?(\d+) bytes cumulative stack size)?"
    )
    return [
        (processor, name, int(cumulative or frame), int(stores) + int(loads))
        for name, processor, frame, stores, loads, cumulative in re.findall(entry, report, re.DOTALL)
    ]


def spills_in(report):
    """Bytes, of __global__ functions and of the functions that they call."""
    return sum(
        int(stores) + int(loads)
        for stores, loads in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    )


def stores_in(ptx):
    """(mangled name, stores of 16 bytes, stores of four bytes to four neighbouring places) of each function."""
    found = []
    for name, body in re.findall(r"\.entry (\w+)\((.*?)^\}", ptx, re.DOTALL | re.MULTILINE):
        places = {}
        for base, offset in re.findall(r"st\.global\.[bfu]32\s+\[(%\w+)(?:\+(-?\d+))?\]", body):
            places.setdefault(base, set()).add(int(offset or 0))
        neighbours = sum(
            {first + 4, first + 8, first + 12} <= offsets for offsets in places.values() for first in offsets
        )
        found.append((name, len(re.findall(r"st\.global(?:\.wb)?\.v(?:4\.[bfu]32|2\.[bfu]64)", body)), neighbours))
    return found


def test_stores_are_counted():
    ptx = """.visible .entry _Z1av(
	.param .u64 _Z1av_param_0
)
{
	st.global.v4.f32 	[%rd1], {%f1, %f2, %f3, %f4};
	st.global.wb.v4.u32 	[%rd1+16], {%r1, %r2, %r3, %r4};
	st.global.v2.f64 	[%rd1+32], {%fd1, %fd2};
	st.global.v2.f32 	[%rd1+48], {%f1, %f2};
}
.visible .entry _Z1bv()
{
	{
	st.global.f32 	[%rd2+-4], %f1;
	st.global.u32 	[%rd2], %r1;
	}
	st.global.b32 	[%rd2+4], %r2;
	st.global.f32 	[%rd2+8], %f2;
	st.global.f32 	[%rd3+12], %f2;
}
"""
    assert stores_in(ptx) == [("_Z1av", 3, 0), ("_Z1bv", 0, 1)]


def test_the_report_is_parsed():
    report = """ptxas info    : Compiling entry function '_Z1av' for 'sm_80'
ptxas info    : Function properties for _Z1av
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function '_Z1bv' for 'sm_90'
ptxas info    : Function properties for _Z1bv
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 48 bytes cumulative stack size, 736 bytes cmem[0]
"""
    assert functions_in(report) == [("sm_80", "_Z1av", 0, 0), ("sm_90", "_Z1bv", 48, 16)] and spills_in(report) == 16
    called = "ptxas info    : Function properties for _Z4slowf\n    0 bytes stack frame, 8 bytes spill stores, "
    assert spills_in(report + called + "8 bytes spill loads\n") == 32


def test_the_functions_listed_exist():
    found = set().union(*map(functions_of, SOURCES))
    assert len(found) >= 9 and set(STORES) | UNALIGNED | set(STACK) <= found
    assert sum(source.read_text().count("__global__ void") for source in SOURCES) == len(found)


def kept_by_the_build(source):
    """(report, PTX for each GPU) that csrc/cuda/compile.sh kept when the package was built here; None if the sources
    have changed since."""
    kept = BUILT / f"{source.name}.o.kept"
    headers = [path for folder in ("core", "cuda") for path in (ROOT / "csrc" / folder).glob("*.hpp")]
    inputs = [ROOT / "CMakeLists.txt", source, *headers]
    try:
        if (kept / "report.txt").stat().st_mtime < max(path.stat().st_mtime for path in inputs):
            return None
        return (kept / "report.txt").read_text(), [path.read_text() for path in sorted(kept.glob("*.ptx"))]
    except FileNotFoundError:
        return None


def compiled(source, folder):
    """(report, PTX for each GPU) of a compilation in `folder`."""
    targets = [
        part for processor in PROCESSORS for part in ("-gencode", f"arch=compute_{processor[3:]},code={processor}")
    ]
    keep = ["-Xptxas", "-v", "-fatbin", "--keep", "--keep-dir", folder, "-o", folder / "out"]
    command = [compiler(), *flags(), *targets, *keep, source]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr, [path.read_text() for path in sorted(folder.glob("*.ptx"))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_sources_compile_without_warnings_or_spills(source, tmp_path):
    compiler()
    report, ptx = kept_by_the_build(source) or compiled(source, tmp_path)
    assert "warning" not in report, report
    functions = functions_of(source)

    def function_of(name):
        (function,) = (function for function in functions if f"{len(function)}{function}" in name)
        return function

    found = functions_in(report)
    for processor in PROCESSORS:
        assert {function_of(name) for target, name, *_ in found if target == processor} == functions
    assert [each for each in found if each[3]] == [] and spills_in(report) == 0, report
    assert [each for each in found if each[2] > STACK.get(function_of(each[1]), 0)] == [], report

    code = [stores_in(text) for text in ptx]
    assert len(code) == len(PROCESSORS)
    for name, vectors, neighbours in sum(code, []):
        function = function_of(name)
        expected = STORES.get(function, {})
        least = [count for marks, count in expected.items() if re.search(f"{function}I\\w*?(?:{marks})", name)]
        assert (vectors >= least[0]) if least else vectors == 0, f"{name}: {vectors} stores of 16 bytes, not {least}"
        assert neighbours == 0 or function in UNALIGNED, f"{name}: {neighbours} stores of 16 bytes were taken apart"
    assert sorted({name for name, *_ in sum(code, [])}) == sorted({name for _, name, *_ in found})
    for function in functions:
        for marks in STORES.get(function, {}):
            found_marks = [name for name, *_ in code[0] if re.search(f"{function}I\\w*?(?:{marks})", name)]
            assert found_marks, f"{function}: no {marks}"
