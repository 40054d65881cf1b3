"""The examples in the docstrings of margins, attacks, scores and families run and print what they show."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "attacks.attack", "family", "robustness.basic_robustness", "robustness.boundary", "robustness.confidence",
    "robustness.label_preservation", "robustness.margin_curve", "robustness.margins", "robustness.scores",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:margins")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(import_module(f"robustperf.{name}"))
    assert results.attempted > 0 and results.failed == 0
