"""Lazy packages: names are imported on first use, so that programs that do not need torch do not wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazily(
    package: str, names: Iterable[str], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package with the public `names`.

    Args:
        package: its `__name__`.
        names: its public names, `__all__`, which `dir` shows.
        modules: name, public or not -> the module of the package that defines it. A public name without an entry is a
            module itself, or defined in the package.
    """
    public = sorted(names)

    def load(name: str) -> Any:
        if name in modules:
            value = getattr(import_module(f"{package}.{modules[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in public:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: list(public)
