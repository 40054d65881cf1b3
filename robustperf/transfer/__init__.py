"""Any classifier in a shifted world (T section 4): scikit-learn's support vector machines as modules."""

from robustperf.transfer.svm import SVMModule

__all__ = ["SVMModule"]
