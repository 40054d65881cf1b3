"""Marks the tests of this folder `nightly`: pytest deselects them unless `-m nightly` asks for them."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.nightly)
