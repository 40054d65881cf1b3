"""How robust a classifier is: margins and their curves (T section 3.2), scores from draws and what follows for the
accuracy (T section 2)."""

from robustperf.robustness.basic_robustness import BasicRobustness, basic_robustness
from robustperf.robustness.boundary import Boundary, LineSearch, closest_boundary, line_search
from robustperf.robustness.confidence import clopper_pearson
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.label_preservation import LabelPreservation, accuracy_bound, label_preservation
from robustperf.robustness.margin_curve import Band, MarginCurve
from robustperf.robustness.margin_result import Margins, RobustAccuracy
from robustperf.robustness.margins import margins
from robustperf.robustness.scores import Score, ScoreValue

__all__ = [
    "Band",
    "BasicRobustness",
    "Boundary",
    "Diagnostics",
    "LabelPreservation",
    "LineSearch",
    "MarginCurve",
    "Margins",
    "RobustAccuracy",
    "Score",
    "ScoreValue",
    "accuracy_bound",
    "basic_robustness",
    "clopper_pearson",
    "closest_boundary",
    "label_preservation",
    "line_search",
    "margins",
]
