"""A plugin of pytest, `-p benchmarks.gpu.shared_tests`, by which several processes share the tests.

Each outcome is recorded at once. A test after which the device no longer works ends its process; a new one takes the
remaining tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.device import context_works
from benchmarks.gpu.processes import CONTEXT_LOST
from benchmarks.gpu.shared_work import SharedWork

_LAST_LINES = 8


def pytest_addoption(parser):
    group = parser.getgroup("shared")
    group.addoption("--share", type=Path, required=True, help="the folder of the shared list")
    group.addoption("--process", type=int, default=0, help="this one's number")
    group.addoption("--processes", type=int, default=1)
    group.addoption("--device", default="cuda", help="the device that is checked after a failure: cuda or cpu")


def pytest_configure(config):
    config.pluginmanager.register(_Sharing(config), "sharing")


class _Sharing:
    def __init__(self, config):
        self.config, self.reports = config, []
        self.work = SharedWork(*map(config.getoption, ("share", "process", "processes")))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:  # during collection
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        known = {item.nodeid: item for item in session.items}
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        for name in self.work.take(list(known)):
            self.reports = []
            # the next one is not known, so all fixtures are torn down
            self.config.hook.pytest_runtest_protocol(item=known[name], nextitem=None)
            failed = [report for report in self.reports if report.failed]
            skipped = [report for report in self.reports if report.skipped]
            text = "\n".join(report.longreprtext for report in failed)
            self.work.record(
                name,
                outcome="failed" if failed else "skipped" if skipped else "passed",
                last_lines=[line for line in text.splitlines() if line.strip()][-_LAST_LINES:],
            )
            if failed:
                terminal.write_line(f"\n{name}\n{text}")
                if not context_works(self.config.getoption("device")):
                    pytest.exit(f"the device no longer works in this process since {name}", CONTEXT_LOST)
        return True

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)
