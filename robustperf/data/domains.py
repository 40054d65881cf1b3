"""Domains: the images of a data set with low or high brightness or contrast (R Table 10), their unions and
intersections (R section 6.3)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from robustperf import check, names
from robustperf.data.dataset import Dataset

if TYPE_CHECKING:
    from robustperf.data.image_folder import ImageFolder

_CHUNK = 1 << 22  # pixels measured at a time, in float64
_BINS = 20


def brightness(x: torch.Tensor) -> torch.Tensor:
    """The mean pixel value of each image (R Appendix C.1.1).

    Args:
        x: images, float [N, C, H, W] in [0, 1], grey or RGB.

    Returns float64 [N] in 0..255. Raises TypeError or ValueError if `x` is anything else.

    >>> brightness(torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 1, 2, 2))
    tensor([191.2500], dtype=torch.float64)
    """
    return _measured(x, lambda pixels: pixels.mean(1))


def contrast(x: torch.Tensor) -> torch.Tensor:
    """The largest minus the smallest pixel value of each image, over all channels (R Appendix C.1.1).

    Args:
        x: images, float [N, C, H, W] in [0, 1], grey or RGB.

    Returns float64 [N] in 0..255. Raises TypeError or ValueError if `x` is anything else.

    >>> contrast(torch.tensor([0.2, 0.4, 0.4, 0.6]).view(1, 1, 2, 2))
    tensor([102.], dtype=torch.float64)
    """
    return _measured(x, lambda pixels: pixels.amax(1) - pixels.amin(1))


MEASURES = dict(zip(names.MEASURES, (brightness, contrast), strict=True))

# R Table 10: data set -> measure -> level -> (lower, upper), both excluded
THRESHOLDS = {
    "svhn": {
        "brightness": {"low": (-math.inf, 60.0), "medium": (160.0, 170.0), "high": (180.0, math.inf)},
        "contrast": {"low": (-math.inf, 80.0), "medium": (90.0, 100.0), "high": (190.0, math.inf)},
    },
    "gtsrb": {
        "brightness": {"low": (-math.inf, 40.0), "medium": (85.0, 125.0), "high": (170.0, math.inf)},
        "contrast": {"low": (-math.inf, 80.0), "medium": (140.0, 200.0), "high": (230.0, math.inf)},
    },
}
THRESHOLDS["svhn-mini"] = THRESHOLDS["svhn"]  # the same digits, cut from the full images by the same rule


def domain(dataset: Dataset | ImageFolder, name: str) -> Dataset:
    """The images of `dataset` in a domain, in their order and each once.

    Args:
        dataset: a data set in memory (see `ImageFolder.read`); levels need one with thresholds (R Table 10: svhn, and
            gtsrb with whole images). The domain of a domain is the intersection of both (R section 6.3).
        name: a measure (brightness or contrast), a colon, and a level (low, medium or high) or bounds on the scale
            0..255, which are excluded: "brightness:low", "contrast:90-100", "brightness:-40" (below 40) or
            "brightness:170-" (above 170). "A & B" is the intersection of two domains and "A | B" their union; & binds
            more tightly, as in Python, and spaces do not matter: "brightness:low | contrast:low & brightness:-100".

    Returns:
        A copy of these points, named after the data set and the domain, such as "gtsrb brightness:low".

    Raises:
        TypeError: `dataset` is an `ImageFolder`.
        ValueError: an unknown measure or level, malformed bounds, a level of a data set without thresholds,
            parentheses, nothing on one side of & or |, or an empty domain.

    >>> len(domain(rp.data.load("digits", "test"), "brightness:0-70"))  # "brightness:low" of svhn and gtsrb
    148
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset: expected a Dataset, such as ImageFolder.read() makes, got {type(dataset).__name__}")
    inside, spread = members(dataset, alternatives(name))
    if not inside.any():
        raise ValueError(f"domain: expected images of {dataset.name} with {name}, got none: {spread}")
    return replace(dataset.rows(inside), name=f"{dataset.name} {name}")


def alternatives(name: str) -> list[list[str]]:
    """The intersections, each a list of domains, whose union is the domain `name`: "a & b | c" is [[a, b], [c]].

    Raises ValueError for parentheses and for an empty part of several.
    """
    parts = [[term.strip() for term in part.split("&")] for part in name.split("|")]
    if "(" in name or ")" in name:
        raise ValueError(f"domain: expected no parentheses (write A & C | B & C for (A | B) & C), got {name!r}")
    if any(not term for part in parts for term in part) and (len(parts) > 1 or len(parts[0]) > 1):
        raise ValueError(f"domain: expected a domain on both sides of each & and |, got {name!r}")
    return parts


def members(dataset: Dataset, parts: list[list[str]]) -> tuple[torch.Tensor, str]:
    """(which points are in any of these intersections, bool [N]; the spread of the measures, for an error). An
    intersection of no domains is the whole data set.

    Raises ValueError as `domain` does, except for an empty domain.
    """
    bounds = [[_parse(term, dataset.name) for term in part] for part in parts]
    values = {by: MEASURES[by](dataset.x) for by in dict.fromkeys(by for part in bounds for by, _, _ in part)}
    inside = torch.zeros(len(dataset), dtype=torch.bool, device=dataset.x.device)
    for part in bounds:
        within = torch.ones_like(inside)
        for by, low, high in part:
            within &= (values[by] > low) & (values[by] < high)
        inside |= within
    return inside, _spread(values)


def thresholds(dataset: str, measure: str) -> dict[str, tuple[float, float]]:
    """level -> (lower, upper) of the data set named `dataset`, or of its domains; empty if R Table 10 has none."""
    data_sets = {part.partition(" ")[0] for part in dataset.split(" + ")}  # "gtsrb A + gtsrb B" is a concatenation
    return THRESHOLDS.get(data_sets.pop(), {}).get(measure, {}) if len(data_sets) == 1 else {}


def histogram(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(edges int64 [21], counts int64 [20]) of `values` [N]: bins of one integer width that cover all values; a bin
    includes its left edge."""
    low, high = math.floor(values.min()), math.floor(values.max()) + 1
    width = math.ceil((high - low) / _BINS)
    first = max(0, min(low, 256 - _BINS * width))  # shifted left if needed, so that no edge exceeds 256
    edges = first + width * torch.arange(_BINS + 1)
    bins = torch.bucketize(values, edges.to(values.dtype), right=True) - 1
    return edges, bins.bincount(minlength=_BINS)


def _measured(x: torch.Tensor, measure) -> torch.Tensor:
    """`measure` of the pixels [n, D] on the scale 0..255, chunk by chunk."""
    check.tensor("x", x, ("N", "C", "H", "W"))
    if x.shape[1] not in (1, 3) or 0 in x.shape[1:]:
        raise ValueError(f"x: expected grey or RGB images with pixels, got shape {list(x.shape)}")
    check.images("x", x, (0, 1))
    chunks = x.split(max(1, _CHUNK // math.prod(x.shape[1:])))
    # rounding restores exact 8-bit values, so that an image on a threshold is outside the domain
    return torch.cat([measure((chunk.double() * 255).round(decimals=4).flatten(1)) for chunk in chunks])


def _parse(name: str, dataset: str) -> tuple[str, float, float]:
    """(measure, low, high) of the domain `name` of `dataset`."""
    measure, _, level = name.partition(":")
    if measure not in MEASURES:
        raise ValueError(
            f"domain: expected one of {', '.join(MEASURES)}, then a colon and a level, got {name!r}"
            f"{names.did_you_mean(measure, MEASURES)}"
        )
    levels = thresholds(dataset, measure)
    if level in levels:
        return measure, *levels[level]
    number = r"(\d+(?:\.\d+)?)?"
    match = re.fullmatch(f"{number}-{number}", level, re.ASCII)
    if not match or not any(match.groups()):
        known = (
            "one of " + ", ".join(levels)
            if levels
            else f"bounds ({dataset} has no thresholds of its own in {', '.join(THRESHOLDS)})"
        )
        raise ValueError(
            f"domain: expected {measure}: and {known}, or bounds such as {measure}:0-40, got {name!r}"
            f"{names.did_you_mean(level, levels)}"
        )
    low, high = float(match[1] or -math.inf), float(match[2] or math.inf)
    if not low < high:
        raise ValueError(f"domain: expected a lower bound below the upper one, got {name!r}")
    return measure, low, high


def _spread(values: dict[str, torch.Tensor]) -> str:
    """The spread of each measure, from its values [N] on the images."""
    spreads = []
    for measure, of_images in values.items():
        if not len(of_images):
            return "there are no images"
        quantiles = of_images.quantile(of_images.new_tensor([0, 0.25, 0.5, 0.75, 1]))
        numbers = ", ".join(f"{value:.4g}" for value in quantiles)
        spreads.append(f"its minimum, quartiles and maximum of {measure} are {numbers}")
    return "; ".join(spreads)
