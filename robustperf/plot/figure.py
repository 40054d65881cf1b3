"""What all figures share: creating them without pyplot, colours, saving."""

from __future__ import annotations

import base64
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustperf.files import atomic_write, user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: list[str] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
"""Okabe and Ito's colours, which colour-blind readers can distinguish."""

LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}
"""Text properties of names and titles, which are neither mathematics nor TeX."""


def new_figure(width: float, height: float, **kwargs: Any) -> Figure:
    """A figure of `width` by `height` inches that pyplot does not manage; `kwargs` go to `matplotlib.figure.Figure`."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, **kwargs)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes `figure` to `path` in the format of its suffix (PNG without one), atomically.

    >>> curve = rp.MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> save(rp.plot.margin_curves({"model": curve}), "margins.pdf")
    """
    with atomic_write(path) as partial:
        figure.savefig(partial, format=_format(path))


def check_path(path: str | os.PathLike[str]) -> Path:
    """`user_path(path)`, if a figure can be written there.

    Raises FileNotFoundError if its folder does not exist, ValueError if its suffix is not an image format.

    >>> check_path("margins.png").name
    'margins.png'
    """
    _import_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in formats:
        raise ValueError(
            "path: expected the suffix of an image format, such as .png, .pdf or .svg of "
            f"{', '.join(formats)}, got {path}"
        )
    path = user_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected one in a folder that exists, got {path}")
    return path


def _format(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix[1:].lower() or "png"


def _import_matplotlib() -> None:
    """Imports matplotlib even if MPLBACKEND, inherited from a notebook, names a backend that is not installed: these
    figures need none."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        if backend:
            matplotlib.rcParams["backend"] = backend  # as its own import does, which fails for an unknown one


def as_html(figure: Figure) -> str:
    """The figure as an HTML element with the image embedded.

    >>> curve = rp.MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> as_html(rp.plot.margin_curves({"model": curve}))[:20]
    "<img src='data:image"
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return f"<img src='data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}'>"
