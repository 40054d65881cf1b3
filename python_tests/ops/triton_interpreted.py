"""A pytest plugin: under TRITON_INTERPRET=1 the tests of the operations take Triton for a backend of the CPU."""

import os

from robustperf.ops import registry

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("TRITON_INTERPRET: expected 1 before Triton is imported")

_missing = registry.missing
registry.missing = lambda backend: None if backend == "triton" else _missing(backend)
registry._PREFERRED["cpu"] += ("triton",)


def pytest_plugin_registered(plugin):
    if getattr(plugin, "ON_GPU", None):  # conftest.py
        plugin.ON_GPU = ("cuda",)
