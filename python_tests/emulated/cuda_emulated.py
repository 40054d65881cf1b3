"""A pytest plugin: the tests of the operations take the GPU module that build.py has made, EMULATED_MODULE, for a backend
of the CPU."""

import contextlib
import importlib.util
import os
import sys
from types import SimpleNamespace

import torch

import robustperf
from robustperf.ops import registry

_spec = importlib.util.spec_from_file_location("robustperf._native_cuda", os.environ["EMULATED_MODULE"])
robustperf._native_cuda = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(robustperf._native_cuda)
_missing = registry.missing
registry.missing = lambda backend: None if backend == "cuda" else _missing(backend)
registry._PREFERRED["cpu"] += ("cuda",)
torch.cuda.device = contextlib.nullcontext
torch.cuda.current_stream = lambda device: SimpleNamespace(cuda_stream=0)


def pytest_plugin_registered(plugin):
    if getattr(plugin, "ON_GPU", None):  # conftest.py
        plugin.ON_GPU = ("triton",)
