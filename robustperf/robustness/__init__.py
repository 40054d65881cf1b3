"""How robust a classifier is: margins, and the curves and scores made of them (T sections 2 and 3.2)."""

from robustperf.robustness.basic import BasicRobustness, basic_robustness
from robustperf.robustness.boundary import Boundary, LineSearch, closest_boundary, line_search
from robustperf.robustness.curves import Band, MarginCurve
from robustperf.robustness.interval import clopper_pearson
from robustperf.robustness.margins import Margins, margins

__all__ = [
    "Band",
    "BasicRobustness",
    "Boundary",
    "LineSearch",
    "MarginCurve",
    "Margins",
    "basic_robustness",
    "clopper_pearson",
    "closest_boundary",
    "line_search",
    "margins",
]
