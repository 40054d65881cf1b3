"""Data and a quick auto-encoder for f∘T."""

import torch
from sklearn.svm import SVC

from robustperf.transfer import PairedAutoencoder, TransferClassifier


def small(shape=(1, 8, 8), seed=0):
    torch.manual_seed(seed)
    return PairedAutoencoder(shape, code=8, width=4, hidden=16)


def quick(estimator=None, **options):
    """f∘T with a map that is trained in a moment."""
    return TransferClassifier(
        estimator or SVC(), options.pop("autoencoder", small()), **{"epochs": 1, "random_state": 0, **options}
    )
