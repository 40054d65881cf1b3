"""Reports: everything that the library can say about a classifier, on one page."""

from robustperf.reports.measure import Examples, UnderKernel
from robustperf.reports.plan import NORMS
from robustperf.reports.report import Report, report

__all__ = ["NORMS", "Examples", "Report", "UnderKernel", "report"]
