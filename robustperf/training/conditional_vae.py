"""The loss of a conditional variational auto-encoder, which learns a model of natural variation from pairs of images
(Wong and Kolter 2020, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from robustperf import check, random
from robustperf.classifier import without_wrapper
from robustperf.training.learner import MODEL, Learner
from robustperf.training.objective import Objective

FIGURES = ("error", "divergence")
"""The root of the mean squared error of the pixels, and the Kullback-Leibler divergence."""


@dataclass(frozen=True)
class ConditionalVae(Objective):
    """The negative evidence lower bound of a `nets.paired_generator.PairedGenerator`, without its constant:

        mean_j [||x'^(j) - g(x^(j), z^(j))||_2^2 / (2 noise^2) + KL(q(z | x^(j), x'^(j)) || p(z | x^(j)))],
        z^(j) ~ q(z | x^(j), x'^(j)).

    Args:
        noise: the standard deviation of x' around g(x, z), in units of the pixels, above 0.

    The call takes pairs [B, 2, C, H, W] in [0, 1], x and x' each, and returns the loss and `FIGURES`. The normals of z
    depend on key and index only. Raises ValueError for another noise.
    """

    noise: float = 0.1

    classifies: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.number("noise", self.noise, above=0)

    def loss(  # type: ignore[override]  # the parts too, as a Learner's loss may
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        check.tensor("x", x, ("B", 2, "C", "H", "W"))
        (normals,) = random.normal(key, index, 1, without_wrapper(model).settings["style_dim"])
        reconstructed, divergence = model(x[:, 0], x[:, 1], normals.to(x.dtype))
        squares = (reconstructed - x[:, 1]).square().flatten(1)
        loss = (squares.sum(1) / (2 * self.noise**2) + divergence).mean()
        return loss, squares.detach().mean().sqrt(), divergence.detach().mean()

    def learners(self, model: nn.Module) -> Sequence[Learner]:
        """The generator alone, with its figures."""
        return (Learner(MODEL, model, self, figures=FIGURES),)
