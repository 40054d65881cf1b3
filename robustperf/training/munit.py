"""MUNIT's losses, which learn a model of natural variation from two unpaired domains (R section 4.3, A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from robustperf import check, random
from robustperf.classifier import frozen, without_wrapper
from robustperf.nets.munit import MunitDiscriminator, Translations
from robustperf.training.learner import MODEL, Learner
from robustperf.training.objective import Objective

FIGURES = ("image", "content", "style", "adversarial", "cycle")
"""The parts of the translator's loss, before they are weighted."""

Scores = Sequence[torch.Tensor]


@dataclass(frozen=True, eq=False)
class Munit(Objective):
    """The loss of a `nets.munit.Translator` (R A.3; Huang, Liu, Belongie and Kautz 2018):

        image l_recon + content l_recon^c + style l_recon^s + adversarial l_GAN + cycle l_cycle.

    l_recon, l_recon^c and l_recon^s are R's: L1 distances, the mean over the values of images in [-1, 1], contents and
    styles, summed over both domains. l_GAN is that of least squares (Mao et al. 2017), as in MUNIT: the sum over
    domains and scales of the mean of (D(x') - 1)^2. l_cycle is the L1 distance of an image from its translation there
    and back with its own style, summed over both domains (Huang et al., B.1). R's Table 8 has 10, 1, 1, 1 and 0.

    Then `fit` updates the discriminators on the translations of the same step: the sum over domains and scales of the
    means of (D(x) - 1)^2 and D(x')^2.

    Args:
        discriminator: trained in place.
        image, content, style, adversarial, cycle: the weights.

    The call takes pairs x [B, 2, C, H, W] in [0, 1], an image of domain A and one of domain B each, and returns the
    loss and its parts. The styles of the prior N(0, I) depend on key and index only. Raises ValueError for a negative
    weight.
    """

    discriminator: MunitDiscriminator = field(repr=False)
    image: float = 10.0
    content: float = 1.0
    style: float = 1.0
    adversarial: float = 1.0
    cycle: float = 10.0

    classifies: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.discriminator, nn.Module):
            raise TypeError(f"discriminator: expected a torch.nn.Module, got {type(self.discriminator).__name__}")
        for name in FIGURES:
            check.number(name, getattr(self, name), least=0)

    def loss(  # type: ignore[override]  # the parts too, as a Learner's loss may
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        check.tensor("x", x, ("B", 2, "C", "H", "W"))
        q = without_wrapper(model).settings["style_dim"]
        style_a, style_b = random.normal(key, index, 2, q)
        found: Translations = model(x[:, 0], x[:, 1], style_a, style_b, self.cycle > 0)
        with frozen(self.discriminator):
            scores = self.discriminator(found.translated_a, found.translated_b)
        parts = {
            "image": _distance(found.reconstructed_a, found.a) + _distance(found.reconstructed_b, found.b),
            "content": _distance(found.content_of_translated_b, found.content_a)
            + _distance(found.content_of_translated_a, found.content_b),
            "style": _distance(found.style_of_translated_a, style_a) + _distance(found.style_of_translated_b, style_b),
            "adversarial": squares([*scores[0], *scores[1]], 1),
            "cycle": x.new_zeros(()),
        }
        if found.cycled_a is not None and found.cycled_b is not None:
            parts["cycle"] = _distance(found.cycled_a, found.a) + _distance(found.cycled_b, found.b)
        # for the discriminators' update of this step
        images = found.a, found.b, found.translated_a, found.translated_b
        vars(self)["_images"] = tuple(each.detach() for each in images)
        total = torch.stack([getattr(self, name) * parts[name] for name in FIGURES]).sum()
        return (total, *(parts[name].detach() for name in FIGURES))

    def discriminator_loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        """The discriminators' loss on the images and translations of the last call of the objective."""
        a, b, translated_a, translated_b = vars(self).pop("_images")
        of_a, of_b = model(torch.cat([a, translated_a]), torch.cat([b, translated_b]))
        real, translated = zip(*(score.chunk(2) for score in (*of_a, *of_b)), strict=True)
        return squares(real, 1) + squares(translated, 0)

    def learners(self, model: nn.Module) -> Sequence[Learner]:
        """The translator, and then the discriminators."""
        return (
            Learner(MODEL, model, self, figures=FIGURES),
            Learner("discriminator", self.discriminator, self.discriminator_loss),
        )


def squares(scores: Scores, target: float) -> torch.Tensor:
    """sum_s mean (scores_s - target)^2 over the scales s: the least-squares loss of one side of a GAN."""
    return torch.stack([(score - target).square().mean() for score in scores]).sum()


def _distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference."""
    return (one - other).abs().mean()
