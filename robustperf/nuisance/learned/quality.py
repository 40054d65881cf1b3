"""How well a learned kernel maps domain A to domain B."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from robustperf import check
from robustperf.classifier import Classifier, device_of, evaluating, laid_out, logits_of
from robustperf.kernel import Kernel
from robustperf.nuisance.learned.domain import Domain
from robustperf.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class KernelQuality(Result):
    """The figures of `quality`.

    Distances are energy distances, 2 E|X - Y| - E|X - X'| - E|Y - Y'| with Euclidean norms (Szekely and Rizzo 2013), in
    the unit of the values: 0 if and only if the distributions are equal, as R equation 4.3 asks. Each has its value
    before, between A and B themselves, beside it.

    Attributes:
        brightness: the mean pixel, 0 to 255, of G(A, delta).
        brightness_a, brightness_b: those of A and of B.
        brightness_distance: between the brightness of the images of G(A, delta) and of B.
        brightness_distance_before: between that of A and of B.
        feature_distance, feature_distance_before: the same of the classifier's logits; NaN without a classifier.
        label_kept: the fraction of G(x, delta) with x's label, according to the classifier: the true label where A has
            labels, and the classifier's own label of x where it has none. NaN without a classifier.
        label_before: the same of x itself; 1 where A has no labels.
        spread: the mean absolute pixel difference of two draws of one image, in [0, 1]: 0 where G ignores delta.
        images: the numbers of images of A and of B.

    >>> digits = rp.data.load("digits", "test").x[:64]
    >>> shade = rp.nuisance.ModuleKernel(lambda x, delta: x * (0.75 + 0.25 * delta[:, :1, None, None]), dim=1)
    >>> quality = shade.quality(digits, 0.75 * digits)
    >>> quality.brightness < quality.brightness_a, quality.spread > 0
    (True, True)
    """

    brightness: float
    brightness_a: float
    brightness_b: float
    brightness_distance: float
    brightness_distance_before: float
    feature_distance: float
    feature_distance_before: float
    label_kept: float
    label_before: float
    spread: float
    images: tuple[int, int]

    def _facts(self) -> dict[str, Any]:
        facts = {name: value for name, value in vars(self).items() if name != "images"}
        shown = {name.replace("_", " "): value for name, value in facts.items() if not math.isnan(value)}
        return {**shown, "images": self.images}


@torch.no_grad()
def measure(
    kernel: Kernel, a: Any, b: Any, *, classifier: Classifier | None, limit: int, key: int, batch_size: int
) -> KernelQuality:
    """The figures of any kernel on A and B, which are data or `Domain`s; arguments as in `GeneratorKernel.quality`."""
    check.integer("limit", limit, 1)
    check.integer("batch_size", batch_size, 1)
    a, b = (each if isinstance(each, Domain) else Domain.of(name, each) for name, each in (("a", a), ("b", b)))
    x, labels = a.some(limit)
    target, _ = b.some(limit)
    drawn = []
    for rows in torch.arange(len(x)).split(batch_size):
        drawn.append(kernel.draw(x[rows], key=key, index=rows, draws=2))
    drawn = torch.cat(drawn, 1)
    if drawn.shape[2:] != target.shape[1:]:
        raise ValueError(f"b: expected images of the kernel's shape {list(drawn.shape[2:])}, got {list(b.shape)}")
    brightness = [_brightness(each) for each in (drawn[0], x, target)]
    features, kept, before = (math.nan, math.nan), math.nan, math.nan
    if classifier is not None:
        logits = [_logits(classifier, each, batch_size) for each in (drawn.flatten(0, 1), x, target)]
        labels = logits[1].argmax(1) if labels is None else labels
        check.labels("a", labels, logits[1].shape[1])
        kept = (logits[0].argmax(1).view(2, -1) == labels).double().mean().item()
        before = (logits[1].argmax(1) == labels).double().mean().item()
        features = energy_distance(logits[0][: len(x)], logits[2]), energy_distance(logits[1], logits[2])
    return KernelQuality(
        *(each.mean().item() for each in brightness),
        energy_distance(brightness[0], brightness[2]),
        energy_distance(brightness[1], brightness[2]),
        *features,
        kept,
        before,
        (drawn[0] - drawn[1]).abs().double().mean().item(),
        (len(x), len(target)),
    )


def energy_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The energy distance of two samples [N, D] and [M, D], in the unit of their values."""
    one, other = one.double(), other.double()
    between, within = torch.cdist(one, other).mean(), [torch.cdist(each, each).mean() for each in (one, other)]
    return (2 * between - within[0] - within[1]).clamp_min(0).item()


def _brightness(x: torch.Tensor) -> torch.Tensor:
    """[N, 1] float64, the mean pixel of each image, 0 to 255."""
    return 255 * x.double().flatten(1).mean(1, keepdim=True)


def _logits(classifier: Classifier, x: torch.Tensor, batch_size: int) -> torch.Tensor:
    device = device_of(classifier)
    with evaluating(classifier):
        parts = [logits_of(classifier, laid_out(classifier, part.to(device))).cpu() for part in x.split(batch_size)]
    return torch.cat(parts)
