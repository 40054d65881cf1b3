"""Reports: everything that the library can say about a classifier on one page, and several compared on one."""

from robustperf.reports.comparison import Comparison, Difference, compare
from robustperf.reports.measure import Examples, Measured, UnderKernel
from robustperf.reports.plan import NORMS, Plan
from robustperf.reports.report import Report, report

__all__ = [
    "NORMS",
    "Comparison",
    "Difference",
    "Examples",
    "Measured",
    "Plan",
    "Report",
    "UnderKernel",
    "compare",
    "report",
]
