"""How robust a classifier is: margins, and the curves and scores made of them (T sections 2 and 3.2)."""

from robustperf.robustness.boundary import Boundary, LineSearch, closest_boundary, line_search
from robustperf.robustness.curves import Band, MarginCurve
from robustperf.robustness.margins import Margins, margins

__all__ = ["Band", "Boundary", "LineSearch", "MarginCurve", "Margins", "closest_boundary", "line_search", "margins"]
