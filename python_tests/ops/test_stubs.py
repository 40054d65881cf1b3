"""The stubs of the native modules declare every function with its arguments, and nothing else. Those of the GPU module
are also compared in the emulation, python_tests/emulated."""

import importlib
from pathlib import Path

import pytest

import robustperf
from python_tests.support.stubs import attributes_of_stub, functions_of, functions_of_stub

PACKAGE = Path(robustperf.__file__).parent


@pytest.mark.parametrize("name", ["_native", "_native_cuda"])
def test_a_stub_declares_what_its_module_has(name):
    module = pytest.importorskip(f"robustperf.{name}", reason=f"{name} was not built", exc_type=ImportError)
    functions = functions_of(module)
    assert len(functions) >= 10 and functions["logit_gap"][:2] == ["logits", "label"]
    assert functions == functions_of_stub(PACKAGE / f"{name}.pyi")
    assert attributes_of_stub(PACKAGE / f"{name}.pyi") == {"constants"}
    assert isinstance(importlib.import_module(f"robustperf.{name}").constants, dict)


def test_every_function_says_what_it_does():
    module = pytest.importorskip("robustperf._native", exc_type=ImportError)
    for name in functions_of(module):
        assert len(getattr(module, name).__doc__.splitlines()) > 2, f"{name}: expected a sentence after the signature"
