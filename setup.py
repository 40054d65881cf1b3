"""Builds the native modules with CMake and Ninja, and lists the packages; all else is in pyproject.toml.

ROBUSTPERF_CUDA=AUTO|ON|OFF is the only option. AUTO builds the GPU module if there is a CUDA compiler and records the
reason if it is not built; ON makes a missing compiler or a failed build an error; OFF does not build it.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
BUILD = ROOT / "build" / f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
CPU, CUDA = "robustperf._native", "robustperf._native_cuda"


def find_nvcc():
    """The path of the CUDA compiler, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(home, "bin"))


def pybind11_folder():
    """pybind11's CMake files, in a copy: a header in a new build environment would be newer than every object file."""
    import pybind11

    copy = BUILD / f"pybind11-{pybind11.__version__}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(Path(pybind11.__file__).parent, unfinished)
        unfinished.rename(copy)
    return copy / Path(pybind11.get_cmake_dir()).relative_to(Path(pybind11.__file__).parent)


class CMakeBuild(build_ext):
    def run(self):
        """Builds the CPU module, then the GPU module, whose failure is an error only if it was requested."""
        wanted = os.environ.get("ROBUSTPERF_CUDA", "AUTO").upper()
        if wanted not in ("AUTO", "ON", "OFF"):
            raise SystemExit(f"ROBUSTPERF_CUDA: expected AUTO, ON or OFF, got {wanted!r}")
        nvcc, missing = None, "robustperf was built with ROBUSTPERF_CUDA=OFF"
        if wanted != "OFF":
            nvcc, missing = find_nvcc(), "no CUDA compiler (nvcc) was found when robustperf was built"
        if wanted == "ON" and nvcc is None:
            raise SystemExit(f"ROBUSTPERF_CUDA=ON, but {missing}")
        self.build_module(CPU)
        Path(self.get_ext_fullpath(CUDA)).unlink(missing_ok=True)  # that of an earlier build
        if nvcc:
            missing = None
            try:
                self.build_module(CUDA, f"-DCMAKE_CUDA_COMPILER={nvcc}")
            except subprocess.CalledProcessError:
                if wanted == "ON":
                    raise
                missing = "the GPU module failed to build; `pip install -v` shows why"
        print(f"robustperf: GPU module {'not built: ' + missing if missing else 'built'}", file=sys.stderr)
        self.build_info_path().write_text(json.dumps({"cuda_missing": missing}, indent=1) + "\n")

    def build_module(self, name, *options):
        """Builds one module in a build folder of its own and installs it into the package. The folder stays, so that
        the next installation from this checkout compiles only what has changed."""
        folder = BUILD / name
        # These refer to tools of the last pip's build environment, which no longer exists. `cmake --fresh` would remove
        # the object files too.
        for stale in (folder / "CMakeCache.txt", *folder.glob("CMakeFiles/[0-9]*/*.cmake")):
            stale.unlink(missing_ok=True)
        target = Path(self.get_ext_fullpath(name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}",
             f"-Dpybind11_DIR={pybind11_folder()}", f"-DROBUSTPERF_MODULE={name.rpartition('.')[2]}", *options],
            check=True)  # fmt: skip
        subprocess.run(["cmake", "--build", folder], check=True)
        subprocess.run(["cmake", "--install", folder, "--prefix", target.parent], check=True)

    def build_info_path(self):
        return Path(self.get_ext_fullpath(CPU)).resolve().parent / "_build_info.json"

    def get_outputs(self):
        """The files that a wheel or an uninstall must include: the GPU module only if it was built."""
        outputs = [self.get_ext_fullpath(CPU), self.get_ext_fullpath(CUDA), str(self.build_info_path())]
        return [path for path in outputs if os.path.exists(path)]


# What `robustperf bench` needs of the folder benchmarks, which stays where it is.
BENCHMARKS = {f"robustperf.benchmarks.{name}": f"benchmarks/{name}" for name in ("common", "speed")}

setup(
    # For setuptools' bookkeeping; CMakeLists.txt finds the sources.
    ext_modules=[Extension(CPU, []), Extension(CUDA, [], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
    packages=[*find_packages(include=["robustperf*"]), *BENCHMARKS],
    package_dir=BENCHMARKS,
)
