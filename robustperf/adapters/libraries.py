"""Imports of optional libraries."""

from __future__ import annotations

import importlib
from typing import Any


def library_of(module: str, extra: str | None = None) -> Any:
    """The module called `module`, of the extra `extra` (by default of the same name).

    Raises ModuleNotFoundError that names the extra where it is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = extra or module
        raise ModuleNotFoundError(
            f"{extra}: expected {error.name}, which is not installed: pip install 'robustperf[{extra}]'",
            name=error.name,
        ) from error
