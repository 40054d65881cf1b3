"""Reports: everything that the library can say about a classifier on one page, and several compared on one."""

from robustperf.reports.comparison import Comparison, Difference, compare
from robustperf.reports.measure import UnderKernel
from robustperf.reports.report import Report, report

__all__ = ["Comparison", "Difference", "Report", "UnderKernel", "compare", "report"]
