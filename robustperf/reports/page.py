"""The page from its template: formats, escaping, saving."""

from __future__ import annotations

import math
import os
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from robustperf.files import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment


class Page:
    """A self-contained HTML page; shown in a notebook, saved as a file."""

    @property
    def html(self) -> str:
        """The page."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page atomically.

        Raises FileNotFoundError if the folder of `path` does not exist, OSError if it cannot be written.
        """
        content = self.html
        with atomic_write(path) as partial:
            partial.write_text(content, encoding="utf-8")

    def _repr_html_(self) -> str:
        """The page in a frame, so that its style leaves a notebook's own unchanged."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" title="{escape(type(self).__name__)}" '
            'style="width: 100%; height: 45rem; border: 0"></iframe>'
        )


def render(template: str, **values: Any) -> str:
    """The template with these values, escaped unless they are `Markup`."""
    return _environment().get_template(template).render(**values)


def number(value: float) -> str:
    """Four significant digits."""
    if math.isinf(value):
        return "∞"
    return "–" if math.isnan(value) else f"{value:.4g}"


def percent(value: float, digits: int = 2) -> str:
    """A fraction in per cent."""
    return "–" if math.isnan(value) else f"{value:.{digits}%}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("robustperf.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment
