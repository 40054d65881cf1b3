"""Figures, drawn without pyplot: they need no display and leave the caller's backend and figures unchanged."""

from robustperf.plot.curves import cut_at_floor, draw_margin_curve, margin_axes, margin_curves, training_curves
from robustperf.plot.examples import adversarial_examples
from robustperf.plot.figure import as_html, check_path, save
from robustperf.plot.images import domain_overview, image_grid

__all__ = [
    "adversarial_examples",
    "as_html",
    "check_path",
    "cut_at_floor",
    "domain_overview",
    "draw_margin_curve",
    "image_grid",
    "margin_axes",
    "margin_curves",
    "save",
    "training_curves",
]
