"""What the tests share: the backends they run on, the device of each, and counts of what ran and of what did not."""

import gc
import os
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from robustperf.ops import registry

try:
    from hypothesis import settings
except ModuleNotFoundError:  # the tests that need it skip, the others of their files run

    def _given(*_, **__):
        def skipped():
            pytest.skip("hypothesis is not installed")

        return lambda test: skipped

    stand_in = MagicMock(given=_given, settings=lambda *_, **__: lambda test: test)
    for name in ("hypothesis", "hypothesis.extra"):
        sys.modules[name] = stand_in
else:
    # The same examples each time: a run that fails fails again.
    settings.register_profile("repeatable", derandomize=True, deadline=None)
    settings.load_profile("repeatable")

_ran, _files_run, _files_skipped, _skipped = set(), set(), set(), Counter()


def pytest_addoption(parser):
    parser.addoption(
        "--require-backends",
        default="",
        metavar="NAMES",
        help="comma-separated backends; fail unless a test ran on each of them",
    )
    parser.addoption(
        "--only-backends",
        default="",
        metavar="NAMES",
        help="comma-separated backends; of the tests that run on each backend only those of these run",
    )
    parser.addoption(
        "--forbid-skips",
        default="",
        metavar="FILES",
        help="comma-separated names of files; fail unless all of their tests ran",
    )


def _is_worker(config):
    """Whether this is a process of `pytest -n`, which runs a part of the tests. The one that started it gets all
    reports."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under `pytest -n`, whole files go to the processes, so that each fixture of a module is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # in the order that pytest_collection_modifyitems makes
    return LoadFileScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Thousands of tests stay in memory to the end: no search for cycles visits them again and again."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


# Files that compile, or run processes of their own, for minutes.
LONG = ("test_triton.py", "test_emulated.py", "test_cuda_compile.py", "test_gpu_command.py")


def pytest_collection_modifyitems(config, items):
    """Where a backend is missing, one case of each test stays, to be skipped with the reason. Under `pytest -n`, the
    files that take long start first: none of them is left for one process at the end."""
    if addresses := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"ids that differ between processes, where `pytest -n` needs equal ones: {addresses}")
    stay, left, seen = [], [], set()
    for item in items:
        test = item.path, item.originalname, _missing_backend(item)
        (left if test[2] and test in seen else stay).append(item)
        seen.add(test)
    config.hook.pytest_deselected(items=left)
    if _is_worker(config):
        stay.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    items[:] = stay


def _missing_backend(item):
    """The backend that the item's `backend` fixture would skip."""
    name = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    of_fixture = name is not None and hasattr(item.module, "OP")
    return name if of_fixture and registry.missing_op(item.module.OP, name) is not None else None


def pytest_runtest_logreport(report):
    name = Path(report.location[0]).name
    _ran.update(value for key, value in report.user_properties if key == "backend")
    if report.skipped:
        _skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
        _files_skipped.add(name)
    elif report.when == "call":
        _files_run.add(name)


def pytest_terminal_summary(terminalreporter):
    for reason, count in sorted(_skipped.items()):
        terminalreporter.write_line(f"skipped: {count:5d}  {reason}")
    if _ran:
        terminalreporter.write_line(f"backends that ran: {', '.join(sorted(_ran))}")
    lacking = _lacking(terminalreporter.config)
    if lacking:
        terminalreporter.write_line(f"backends that were required and did not run: {', '.join(lacking)}", red=True)
    if files := _not_run(terminalreporter.config):
        terminalreporter.write_line(f"files whose tests were all to run and did not: {', '.join(files)}", red=True)


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == 0 and not _is_worker(session.config) and (_lacking(session.config) or _not_run(session.config)):
        session.exitstatus = 1


def _names(config, option):
    return set(filter(None, config.getoption(option).split(",")))


def _lacking(config):
    return sorted(_names(config, "--require-backends") - _ran)


def _not_run(config):
    wanted = _names(config, "--forbid-skips")
    return sorted(wanted - _files_run | wanted & _files_skipped)


# On a GPU float32 is compared with the CPU's; TensorFloat-32, torch's default for convolutions, is far from it.
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


# Small work is fastest on one thread, and on a busy machine two spend their time waiting for each other. The processes
# that tests start inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """A test that sets the number of threads sets it for itself alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ON_GPU = ("cuda", "triton")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        only = _names(metafunc.config, "--only-backends") or registry.BACKENDS
        others = metafunc.definition.get_closest_marker("against_reference")
        implemented = [
            name for name in registry.implemented(metafunc.module.OP) if not (others and name == "reference")
        ]
        names = [name for name in implemented if name in only]
        marks = [pytest.param(name, marks=pytest.mark.gpu if name in ON_GPU else ()) for name in names]
        metafunc.parametrize("backend", marks, indirect=True)


@pytest.fixture
def backend(request):
    """Each backend that has the operation which the test module names as OP, in turn; skips with the reason where one
    is missing here."""
    reason = registry.missing_op(request.module.OP, request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    request.node.user_properties.append(("backend", request.param))
    return request.param


@pytest.fixture
def note_backend(request):
    """Says that a backend ran, where its tests are in a process of their own."""
    return lambda name: request.node.user_properties.append(("backend", name))


@pytest.fixture
def device(backend):
    """Where tensors for this backend live."""
    return torch.device("cuda" if backend in ON_GPU else "cpu")


@pytest.fixture(scope="session")
def data_root():
    """The folder of real data; skips where ROBUSTPERF_DATA is not set."""
    root = os.environ.get("ROBUSTPERF_DATA")
    if not root:
        pytest.skip("real data: ROBUSTPERF_DATA is not set")
    return root
