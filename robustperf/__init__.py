"""How robust is this classifier, and how does one make it so?

Two papers as one library: A. Tibo, M. Jaeger, K. G. Larsen, "A general framework for defining and optimizing
robustness" (2021), "T" in the docstrings, and A. Robey, H. Hassani, G. J. Pappas, "Model-based robust deep learning"
(2020), "R". Start at `margins`, `MarginCurve` and `attacks`, or at `Kernel` and `nuisance`; `ops` holds the accelerated
operations.

Names are imported when they are first used; `torch.ops.robustperf` is there once `robustperf.ops` has been.
"""

from typing import TYPE_CHECKING

# _native first: a wrong ROBUSTPERF_CPU, or a broken build, is an error here and not a silent change of backend.
from robustperf import _native  # noqa: F401
from robustperf.lazy import lazily

if TYPE_CHECKING:
    from robustperf import (
        adapters,
        attacks,
        data,
        nets,
        nuisance,
        ops,
        plot,
        random,
        reports,
        robustness,
        training,
        transfer,
    )
    from robustperf.adapters import load_model, wrap
    from robustperf.family import Family
    from robustperf.kernel import Kernel
    from robustperf.label_only import LabelOnly
    from robustperf.reports import Comparison, Report, compare, report
    from robustperf.robustness import (
        BasicRobustness,
        Boundary,
        LineSearch,
        MarginCurve,
        Margins,
        Score,
        basic_robustness,
        closest_boundary,
        line_search,
        margins,
    )
    from robustperf.version import __version__ as __version__

__all__ = [
    "BasicRobustness",
    "Boundary",
    "Comparison",
    "Family",
    "Kernel",
    "LabelOnly",
    "LineSearch",
    "MarginCurve",
    "Margins",
    "Report",
    "Score",
    "adapters",
    "attacks",
    "basic_robustness",
    "closest_boundary",
    "compare",
    "data",
    "line_search",
    "load_model",
    "margins",
    "nets",
    "nuisance",
    "ops",
    "plot",
    "random",
    "report",
    "reports",
    "robustness",
    "training",
    "transfer",
    "wrap",
]

__getattr__, __dir__ = lazily(__name__, __all__, {
    "Family": "family",
    "Kernel": "kernel",
    "LabelOnly": "label_only",
    "__version__": "version",
    **dict.fromkeys(["load_model", "wrap"], "adapters"),
    **dict.fromkeys(["Comparison", "Report", "compare", "report"], "reports"),
    **dict.fromkeys(["BasicRobustness", "Boundary", "LineSearch", "MarginCurve", "Margins", "Score", "basic_robustness",
                     "closest_boundary", "line_search", "margins"], "robustness"),
})  # fmt: skip
