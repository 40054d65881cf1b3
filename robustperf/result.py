"""The base of results: printed on one line, shown as a table in a notebook, compared by value."""

from __future__ import annotations

from html import escape
from typing import Any

from robustperf.equality import same


class Result:
    """A subclass, such as a frozen dataclass with `eq=False`, returns the values to print from `_facts`."""

    def _facts(self) -> dict[str, Any]:
        """The summary values by name; "" for a value without a name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = ((name, _text(value)) for name, value in self._facts().items())
        return f"{type(self).__name__}({', '.join(f'{name}={text}' if name else text for name, text in facts)})"

    def _repr_html_(self) -> str:
        """An HTML table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(name or 'name')}</th><td>{escape(_text(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return same(vars(self), vars(other))

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))


def _text(value: Any) -> str:
    """`value` as text, floats with three significant digits."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_text, value)) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
