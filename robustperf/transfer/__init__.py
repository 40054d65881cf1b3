"""Adaptation of any classifier to a shifted world (T section 4): paired auto-encoders, f∘T as a scikit-learn estimator,
and scikit-learn's classifiers as modules."""

from typing import TYPE_CHECKING

from robustperf.lazy import lazily

if TYPE_CHECKING:
    from robustperf.transfer.autoencoder import PairedAutoencoder, Reconstruction
    from robustperf.transfer.classifier import TransferClassifier
    from robustperf.transfer.estimators import (
        EstimatorModule,
        NoExactModule,
        classifier_from_sklearn,
        module_from_sklearn,
    )
    from robustperf.transfer.module_classifier import ModuleClassifier
    from robustperf.transfer.shifts import OriginalsSplit, fit_autoencoders, split_originals
    from robustperf.transfer.svm import SVMModule

__all__ = [
    "EstimatorModule",
    "ModuleClassifier",
    "NoExactModule",
    "OriginalsSplit",
    "PairedAutoencoder",
    "Reconstruction",
    "SVMModule",
    "TransferClassifier",
    "classifier_from_sklearn",
    "fit_autoencoders",
    "module_from_sklearn",
    "split_originals",
]

__getattr__, __dir__ = lazily(__name__, __all__, {
    "EstimatorModule": "estimators",
    "ModuleClassifier": "module_classifier",
    "NoExactModule": "estimators",
    "classifier_from_sklearn": "estimators",
    "OriginalsSplit": "shifts",
    "PairedAutoencoder": "autoencoder",
    "Reconstruction": "autoencoder",
    "SVMModule": "svm",
    "TransferClassifier": "classifier",
    "fit_autoencoders": "shifts",
    "module_from_sklearn": "estimators",
    "split_originals": "shifts",
})  # fmt: skip
