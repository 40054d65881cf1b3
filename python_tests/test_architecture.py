"""The floors of the library: a module imports from lower floors or from its own folder.

The same table stands in CONTRIBUTING.md in words; this list is what the test enforces.
"""

import re
from pathlib import Path

import pytest

from python_tests.support.imports import Import, cycle_in, imports_of, modules_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "robustperf"

# From the lowest floor to the highest. The parts of the first floor are one folder; each other part is one of its own.
FLOORS = (
    ("_native", "_native_cuda", "check", "equality", "expression", "files", "lazy", "machine", "names", "processes",
     "progress", "result", "tangents", "version"),
    ("ops", "plot", "classifier", "label_only"),
    ("adapters",),
    ("random", "nets"),
    ("kernel", "attacks", "data"),
    ("family",),
    ("nuisance",),
    ("robustness", "training"),
    ("transfer",),
    ("reports", "benchmarks"),
    ("cli",),
)  # fmt: skip
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}

# Imports of a higher floor inside a function, and why.
UPWARD_IN_CALLS = {
    ("robustperf.kernel", "nuisance"): "kernel.normalised() and + build kernels that wrap this one",
    ("robustperf.nuisance.learned.learn", "training"): "learn has an objective",
    ("robustperf.nuisance.learned.paired", "training"): "learn_paired has an objective",
    ("robustperf.nuisance.learned.run", "training"): "both train the networks of a kernel by fit",
    ("robustperf.robustness.margins", "transfer"): "margins takes scikit-learn's estimators",
}

BACKENDS = ("reference", "native", "cuda", "triton")
SOURCES = (".py", ".pyi", ".cpp", ".hpp", ".cu", ".h")

# A C++ folder -> the folders whose headers it may include.
INCLUDES = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "bindings": {"core", "cpu", "cuda", "bindings"},
}


def part_of(module):
    """`robustperf.ops.native.draws` -> `ops`; the package itself -> its name."""
    return (module.split(".") + [module])[1]


def upward(imports):
    """The imports that do not go down, of the other kinds than those which UPWARD_IN_CALLS lists."""
    found = []
    for each in imports:
        importer, imported = part_of(each.importer), part_of(each.imported)
        if importer == imported or "robustperf" in (importer, imported):
            continue
        down = FLOOR[imported] < FLOOR[importer] or FLOOR[imported] == FLOOR[importer] == 0
        if not down and not (each.when == "call" and (each.importer, imported) in UPWARD_IN_CALLS):
            found.append(each)
    return found


def between_backends(imports):
    """Imports of one backend by another, or of a backend by an operation's public file."""
    found = []
    for each in imports:
        importer, imported = backend_of(each.importer), backend_of(each.imported)
        if imported and importer != imported:
            found.append(each)
    return found


def backend_of(module):
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "ops" and parts[2] in BACKENDS else None


def includes_upward(csrc):
    """`file: header` for each include of a folder that INCLUDES does not allow."""
    found = []
    for path in sorted(csrc.rglob("*")):
        if path.suffix not in SOURCES:
            continue
        folder = path.relative_to(csrc).parts[0]
        for header in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            target = path.parent / header if (path.parent / header).exists() else csrc / header
            assert target.exists(), f"{path}: cannot find {header}"
            if target.resolve().relative_to(csrc.resolve()).parts[0] not in INCLUDES[folder]:
                found.append(f"{path.relative_to(csrc)}: {header}")
    return found


def test_every_part_has_a_floor():
    parts = {part_of(module) for module in modules_of(PACKAGE)} - {"robustperf"}
    assert parts == set(FLOOR) - {"_native", "_native_cuda"}


def test_imports_go_down():
    assert upward(imports_of(PACKAGE)) == []


def test_listed_exceptions_are_needed():
    used = {(each.importer, part_of(each.imported)) for each in imports_of(PACKAGE) if each.when == "call"}
    assert set(UPWARD_IN_CALLS) <= used


def test_backends_do_not_import_each_other():
    assert between_backends(imports_of(PACKAGE)) == []


def test_imports_have_no_cycle():
    assert cycle_in(imports_of(PACKAGE)) == []


def test_cpp_includes_go_down():
    assert includes_upward(ROOT / "csrc") == []


def package(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / "robustperf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "robustperf"


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("from robustperf.training import fit", "load"),
        ("import robustperf.training", "load"),
        ("from robustperf import training", "load"),
        ("from . import training", "load"),
        ("def f():\n    from robustperf.training import fit", "call"),
        ("class C:\n    def f(self):\n        import robustperf.training.fit", "call"),
        ("if TYPE_CHECKING:\n    from robustperf.training import fit", "types"),
        ("if not TYPE_CHECKING:\n    from robustperf.training import fit", "load"),
        ("try:\n    from robustperf.training import fit\nexcept ImportError:\n    pass", "load"),
    ],
)
def test_upward_import_is_found(tmp_path, text, when):
    root = package(
        tmp_path,
        {
            "__init__.py": "",
            "kernel.py": text,
            "training/__init__.py": "",
            "training/fit.py": "import robustperf.kernel",
        },
    )
    (found,) = upward(imports_of(root))
    assert (found.importer, part_of(found.imported), found.when) == ("robustperf.kernel", "training", when)


def test_sibling_of_the_same_floor_is_found(tmp_path):
    root = package(
        tmp_path, {"kernel.py": "from robustperf import data, check", "data/__init__.py": "", "check.py": ""}
    )
    assert upward(imports_of(root)) == [Import("robustperf.kernel", "robustperf.data", "load", 1)]


@pytest.mark.parametrize("importer", ["ops/cuda/draws.py", "ops/draws.py"])
def test_import_of_another_backend_is_found(tmp_path, importer):
    files = {importer: "from robustperf.ops.native import draws", "ops/native/draws.py": "from robustperf import check"}
    (found,) = between_backends(imports_of(package(tmp_path, {**files, "check.py": ""})))
    assert found.imported == "robustperf.ops.native.draws" or found.imported == "robustperf.ops.native"


def test_cycle_is_found(tmp_path):
    root = package(
        tmp_path,
        {
            "data/__init__.py": "from robustperf.data.a import x",
            "data/a.py": "from robustperf.data import b",
            "data/b.py": "from robustperf.data.c import y",
            "data/c.py": "import robustperf.data.a",
        },
    )
    names = ["robustperf.data.a", "robustperf.data.b", "robustperf.data.c", "robustperf.data.a"]
    assert cycle_in(imports_of(root)) == names
    (root / "data" / "c.py").write_text("def f():\n    import robustperf.data.a")
    assert cycle_in(imports_of(root)) == []


def test_cpp_include_of_a_higher_folder_is_found(tmp_path):
    for name, text in {
        "core/a.hpp": '#include "../cpu/b.hpp"\n',
        "cpu/b.hpp": "",
        "cuda/c.cu": '#include "core/a.hpp"',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert includes_upward(tmp_path) == ["core/a.hpp: ../cpu/b.hpp"]


@pytest.mark.parametrize("folder", ["robustperf", "csrc", "python_tests", "benchmarks"])
def test_no_file_exceeds_400_lines(folder):
    sources = [path for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert sources
    assert {path: count for path, count in lines.items() if count > 400} == {}
