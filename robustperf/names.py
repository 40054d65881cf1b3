"""Names in text and options; the error for a misspelt one suggests the closest.

Nothing here imports torch, so that the command line can list the names in its help without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

ROOT_VARIABLE = "ROBUSTPERF_DATA"
"""The environment variable of the data root, a folder with one folder per data set."""

MEASURES = ("brightness", "contrast")
"""The measures that define the domains of a data set (R Table 10)."""

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

PRESETS = {
    "tibo": "the three attacks of T section 3.2",
    "fast": "at most 100 forward and 100 backward passes per point",
    "strong": "at most 300 forward and 300 backward passes per point",
}
"""The attacks that are chosen for the norm, without settings."""

DEFAULT_ATTACKS = "fast"
"""The attacks of the margins where none are given."""

LIBRARIES = ("timm", "hf", "torchvision", "onnx")
"""What `load_model` takes before the colon."""

OPTIMIZERS = {"adadelta": ("Adadelta", 1.0), "adam": ("Adam", 1e-3), "sgd": ("SGD", 0.05)}
"""A name -> (the class in torch.optim, the papers' learning rate: R A.2 for Adadelta and SGD, T A.1 for Adam)."""

SHARES = ("none", "content", "all")
"""Which weights the two domains share where a kernel is learned."""

NORMALISATIONS = ("none", "minmax", "standard")
"""How `data.normalise` scales an image by its own pixel values."""

PRECISIONS = ("no", "bf16", "fp16")
"""The mixed precisions of `training.fit`; "no" is float32."""


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """ "; did you mean 'fgsm'?" for the name in `known` closest to the text `value`, ignoring case, or ""."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(value.lower(), folded, n=1) if isinstance(value, str) else []
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def check_name(argument: str, value: str, known: Iterable[str], further: str = "") -> str:
    """`value` if it is in `known`.

    Otherwise raises ValueError with the argument, the known names (and `further`, other valid values), the value and a
    suggestion.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(
            f"{argument}: expected one of {', '.join(known)}{further}, got {value!r}{did_you_mean(value, known)}"
        )
    return value
