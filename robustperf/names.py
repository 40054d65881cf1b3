"""Names that texts and options use; the error for a misspelt one suggests the closest.

Nothing here needs torch, so that the command line can list the names in its help without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

ROOT_VARIABLE = "ROBUSTPERF_DATA"
"""The environment variable of the folder that holds a folder for each data set."""

MEASURES = ("brightness", "contrast")
"""What the domains of a data set are measured by (R Table 10)."""

CORRUPTIONS = (
    "identity",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "shear",
    "scale",
    "rotate",
    "brightness",
    "translate",
    "stripe",
    "fog",
    "spatter",
    "dotted_line",
    "zigzag",
    "canny_edges",
)
"""MNIST-C's sets (Mu and Gilmer 2019), `identity` first, in the published order."""

PUBLISHED = "fgsm,pgd,bg"
"""The ensemble of attacks of T section 3.2, each at its defaults for the norm."""

OPTIMIZERS = {"adadelta": ("Adadelta", 1.0), "adam": ("Adam", 1e-3), "sgd": ("SGD", 0.05)}
"""A name -> (the class in torch.optim, the papers' learning rate: R A.2 for Adadelta and SGD, T A.1 for Adam)."""

PRECISIONS = ("no", "bf16", "fp16")
"""What `training.fit` computes in, beside float32."""


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """ "; did you mean 'fgsm'?" for the name in `known` closest to the text `value`, case aside, or nothing."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(value.lower(), folded, n=1) if isinstance(value, str) else []
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def check_name(argument: str, value: str, known: Iterable[str], further: str = "") -> str:
    """`value` if it is in `known`; otherwise ValueError that names the argument, the names (and what `further` says
    may be given as well), what came and what it may have been meant to be."""
    known = tuple(known)
    if value not in known:
        raise ValueError(
            f"{argument}: expected one of {', '.join(known)}{further}, got {value!r}{did_you_mean(value, known)}"
        )
    return value
