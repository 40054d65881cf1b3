"""Builds CUDA sources for the host, against the stand-in for CUDA's header in this folder and with
UndefinedBehaviorSanitizer. `python build_emulated.py FOLDER` builds csrc/cuda and its bindings as
FOLDER/_native_cuda.so."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CUDA = HERE.parents[1] / "csrc" / "cuda"
COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", f"-I{HERE}",
          "-U_FORTIFY_SOURCE")  # fmt: skip  # which does not allow longjmp to another stack
# As on the GPU, products and sums are not contracted, and 16 bytes may be read as another type than was written.
DEVICE_CODE = ("-O1", "-g1", "-DROBUSTPERF_TARGET=device", "-ffp-contract=off", "-fno-strict-aliasing",
           "-fsanitize=undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all")  # fmt: skip


def compiler():
    """The host's compiler; None if there is none that this supports."""
    return None if sys.platform != "linux" else shutil.which(os.environ.get("CXX", "g++"))


def _run(*command):
    done = subprocess.run([compiler(), *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(" ".join(map(str, done.args)) + "\n" + done.stdout + done.stderr)


def build(out, sources, bindings=(), flags=()):
    """Compiles `sources`, which are CUDA, and `bindings` and links them as `out` with `flags`."""

    def compiled(source, *options):
        made = out.parent / f"{source.stem}.o"
        _run("-x", "c++", *COMMON, *options, "-c", source, "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(compiled, source, "-O0", *map("-I{}".format, includes)) for source, *includes in bindings]
        jobs += [pool.submit(compiled, source, *DEVICE_CODE) for source in sources]
        jobs.append(pool.submit(compiled, HERE / "block.cpp", "-O2"))
        _run("-fsanitize=undefined", "-pthread", *flags, *(job.result() for job in jobs), "-o", out)


def build_module(folder):
    """FOLDER/_native_cuda.so."""
    torch = Path(importlib.util.find_spec("torch").origin).parent  # its headers have pybind11's among them
    sources = sorted(CUDA.glob("*.cu"), key=lambda source: -source.stat().st_size)  # the longest first
    bindings = (HERE / "bindings.cpp", torch / "include", sysconfig.get_paths()["include"])
    build(folder / "_native_cuda.so", sources, [bindings], ["-shared"])
    return folder / "_native_cuda.so"


if __name__ == "__main__":
    build_module(Path(sys.argv[1]))
