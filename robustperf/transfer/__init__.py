"""Any classifier in a shifted world (T section 4): paired auto-encoders, f∘T as a scikit-learn estimator, and support
vector machines as modules."""

from robustperf.transfer.autoencoder import PairedAutoencoder, Reconstruction
from robustperf.transfer.svm import SVMModule

__all__ = ["ModuleClassifier", "PairedAutoencoder", "Reconstruction", "SVMModule", "TransferClassifier"]


def __getattr__(name):
    # scikit-learn takes a second to import, which most uses of the library have no need of
    if name == "TransferClassifier":
        from robustperf.transfer.classifier import TransferClassifier as found
    elif name == "ModuleClassifier":
        from robustperf.transfer.module_classifier import ModuleClassifier as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
