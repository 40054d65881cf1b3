"""Pictures inside the page: curves as inline SVG that follows the page's colours, images as data URIs."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from robustperf.plot import cut_at_floor, draw_margin_curve, margin_axes
from robustperf.plot.figure import COLOURS
from robustperf.reports.plan import norm_name
from robustperf.robustness import MarginCurve

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_STEPS = 1000  # of a drawn curve: finer than a pixel
_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_STYLES = ("-", "--", ":", "-.")


def curves_svg(
    curves: Mapping[str, MarginCurve], norm: float, *, confidence: float, ids: str, label: str
) -> tuple[Markup, float]:
    """(an SVG element with the curves and their bands, the distance at which its x-axis ends).

    Colours are CSS variables --c0, --c1, ... in the order of `curves`, and the text's colour.

    Args:
        curves: name -> the curve; names are not in the picture.
        norm, confidence: as in `plot.margin_curves`.
        ids: a prefix that makes the element's ids unique in the page; letters and digits.
        label: the text alternative.
    """
    axes = margin_axes(height=3.3, norm=None)
    axes.figure.set_figwidth(4.9)
    axes.set_xlabel(f"distance ε in {norm_name(norm)}")
    axes.set_ylabel("fraction without an\nadversarial example within ε")
    for place, curve in enumerate(curves.values()):
        style = _STYLES[place // len(COLOURS) % len(_STYLES)]
        colour = COLOURS[place % len(COLOURS)]
        draw_margin_curve(axes, _thinned(curve), confidence=confidence, color=colour, linestyle=style, linewidth=2)
    cut_at_floor(axes, curves.values())
    return _element(axes.figure, ids, label), axes.get_xlim()[1]


def ticks(right: float) -> list[float]:
    """Round numbers above 0, at equal steps, up to `right`."""
    from matplotlib.ticker import MaxNLocator

    return [
        float(value) for value in MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(0, right) if 0 < value <= right
    ]


def png_uri(image: torch.Tensor) -> str:
    """[C, H, W] in [0, 1], grey, RGB or RGBA, as the data URI of a PNG; rounded to 8 bits."""
    from PIL import Image

    pixels = (image.detach().cpu().float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels[0] if len(pixels) == 1 else pixels.movedim(0, -1)
    content = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(content, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _thinned(curve: MarginCurve) -> MarginCurve:
    """The curve with distances moved by less than a pixel, so that thousands of points draw few steps."""
    finite = curve.distances[curve.distances < curve.upper]
    if len(finite) <= _STEPS or not finite.max() > 0:
        return curve
    step = finite.max().item() / _STEPS
    moved = (curve.distances / step).round() * step
    return MarginCurve(moved.where(curve.distances < math.inf, math.inf), curve.upper)


def _element(figure: Figure, ids: str, label: str) -> Markup:
    """The figure as an SVG element."""
    import matplotlib
    from markupsafe import Markup, escape

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ids}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = _IDS.sub(lambda match: f"{match[1]}{ids}-", text)
    text = text.replace("#000000", "currentColor")
    for place, colour in enumerate(COLOURS):
        text = text.replace(colour.lower(), f"var(--c{place})")
    opening, rest = text.split(">", 1)
    size = re.search(r'viewBox="[^"]*"', opening)
    assert size is not None
    return Markup(
        f'<svg {size[0]} role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    )
