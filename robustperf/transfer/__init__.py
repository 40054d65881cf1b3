"""Any classifier in a shifted world (T section 4): paired auto-encoders, f∘T as a scikit-learn estimator, and support
vector machines as modules."""

from typing import TYPE_CHECKING

from robustperf.lazy import lazily

if TYPE_CHECKING:
    from robustperf.transfer.autoencoder import PairedAutoencoder, Reconstruction
    from robustperf.transfer.classifier import TransferClassifier
    from robustperf.transfer.module_classifier import ModuleClassifier
    from robustperf.transfer.svm import SVMModule

__all__ = ["ModuleClassifier", "PairedAutoencoder", "Reconstruction", "SVMModule", "TransferClassifier"]

__getattr__, __dir__ = lazily(__name__, __all__, {
    "ModuleClassifier": "module_classifier",
    "PairedAutoencoder": "autoencoder",
    "Reconstruction": "autoencoder",
    "SVMModule": "svm",
    "TransferClassifier": "classifier",
})  # fmt: skip
