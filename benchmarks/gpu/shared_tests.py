"""A plugin of pytest, `-p gpu.shared_tests`: several processes share the tests, and each outcome is kept as it comes.

A test after which the device no longer works ends its process; a new one takes the tests that are left.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu.processes import CONTEXT_LOST
from gpu.shared_work import SharedWork
from gpu.timing import context_lives

_LAST_LINES = 8


def pytest_addoption(parser):
    group = parser.getgroup("shared")
    group.addoption("--share", type=Path, required=True, help="a folder, where several processes share the tests")
    group.addoption("--process", type=int, default=0, help="this one's number")
    group.addoption("--processes", type=int, default=1)
    group.addoption("--device", default="cuda", help="what is looked after: cuda or cpu")


def pytest_configure(config):
    config.pluginmanager.register(_Sharing(config), "sharing")


class _Sharing:
    def __init__(self, config):
        self.config, self.reports = config, []
        self.work = SharedWork(*map(config.getoption, ("share", "process", "processes")))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:  # at their collection
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        known = {item.nodeid: item for item in session.items}
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        for name in self.work.take(list(known)):
            self.reports = []
            # no next one: it is not known which, so that all fixtures are ended
            self.config.hook.pytest_runtest_protocol(item=known[name], nextitem=None)
            failed = [report for report in self.reports if report.failed]
            skipped = [report for report in self.reports if report.skipped]
            text = "\n".join(report.longreprtext for report in failed)
            self.work.note(
                name,
                outcome="failed" if failed else "skipped" if skipped else "passed",
                last_lines=[line for line in text.splitlines() if line.strip()][-_LAST_LINES:],
            )
            if failed:
                terminal.write_line(f"\n{name}\n{text}")
                if not context_lives(self.config.getoption("device")):
                    pytest.exit(f"the device no longer works in this process since {name}", CONTEXT_LOST)
        return True

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)
