"""Bounds of the accuracy from robustness: label preserving kernels (T Definition 5, Proposition 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Labeller, labels_of
from robustperf.kernel import Kernel
from robustperf.robustness.basic_robustness import BasicRobustness, Sampling, agreement
from robustperf.robustness.confidence import hoeffding


@dataclass(frozen=True)
class LabelPreservation:
    """How often a kernel changes the label of points drawn from P.

    Attributes:
        eps: the estimate of the least eps for which Q is (P, eps)-label preserving, the mean fraction of draws with
            another label; NaN where Q(. | x) does not exist for some point.
        lower, upper: the confidence interval of eps over P, Hoeffding's, for points drawn independently.
        confidence: of that interval, and of those of `points`.
        points: the fraction of draws that keep the label, for each point.

    >>> labeller = lambda images: (images.mean((1, 2, 3)) > 0.5).long()
    >>> found = rp.robustness.label_preservation(rp.nuisance.LinfBall(0.1), labeller, torch.full((9, 1, 1, 1), 0.45))
    >>> found.lower <= found.eps <= found.upper
    True
    """

    eps: float
    lower: float
    upper: float
    confidence: float
    points: BasicRobustness


def label_preservation(
    kernel: Kernel,
    labeller: Labeller,
    x: torch.Tensor,
    *,
    samples: int = 100,
    confidence: float = 0.95,
    key: int = 0,
    batch_size: int = 64,
    index: torch.Tensor | None = None,
) -> LabelPreservation:
    """The eps for which Q is (P, eps)-label preserving (T Definition 5), from draws: the integral of
    Q({x' : Y(x') = Y(x)} | x) p(x) is 1 - eps.

    Args:
        kernel: Q.
        labeller: Y, from images [B, C, H, W] to labels [B] int64.
        x: [N, C, H, W], N >= 1 points drawn from P.
        samples: draws of each point, >= 1.
        confidence: of the interval.
        key: 64 bits, of the draws.
        batch_size: images in one call of the labeller; it does not change a draw.
        index: [N] int64, the points' sample ids in their data set, which the draws depend on; 0..N-1 by default.

    Raises TypeError or ValueError for a wrong argument.

    >>> from robustperf.nuisance import LinfBall
    >>> found = label_preservation(
    ...     LinfBall(0.1), lambda images: (images.mean((1, 2, 3)) > 0.5).long(), torch.full((9, 1, 1, 1), 0.45)
    ... )
    >>> abs(found.eps - 0.25) < 0.05  # a draw is above 0.5 with probability 1/4
    True
    """
    check.tensor("x", x, ("N", "C", "H", "W"))
    if not len(x):
        raise ValueError(f"x: expected at least one image, got shape {list(x.shape)}")
    sampling = Sampling(samples, confidence, None, False, key, batch_size)
    found = agreement(lambda images, _: labels_of(labeller, images), x, kernel, sampling, index)
    lost = 1 - found.rho
    lower, upper = (math.nan, math.nan) if lost.isnan().any() else hoeffding(lost, confidence)
    return LabelPreservation(lost.mean().item(), lower, upper, confidence, found)


def accuracy_bound(accuracy: float, eps: float, delta: float) -> float:
    """A lower bound of the accuracy on data of Q∘P: accuracy - eps - delta, at least 0 (T Proposition 6).

    Args:
        accuracy: on data of P.
        eps: such that Q is (P, eps)-label preserving, see `label_preservation`; its `upper` for a bound that holds
            with that confidence.
        delta: 1 - R with R the score of H = identity and G = empirical, see `Score`.

    Raises ValueError for a value that is not a number in [0, 1].

    >>> accuracy_bound(0.9, 0.1, 0.3)
    0.5
    """
    for name, value in (("accuracy", accuracy), ("eps", eps), ("delta", delta)):
        check.number(name, value, least=0, most=1)
    return max(0.0, float(accuracy - eps - delta))
