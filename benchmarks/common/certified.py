"""Training by interval bounds, for a network that is robust in truth and not only against an attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from robustperf import nets
from robustperf.training import Objective
from robustperf.training.objective import cross_entropies


def bounds(model: nets.SmallCNN, x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper bounds [B, classes] of the logits for images [B, C, H, W] within [0, 1] and the L∞ distance
    `eps`.

    Interval arithmetic, layer by layer (Gowal et al. 2018).
    """
    lower, upper = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    for layer in (*model.features, *model.head):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            centre, radius = (lower + upper) / 2, (upper - lower) / 2
            if isinstance(layer, nn.Linear):
                radius = functional.linear(radius, layer.weight.abs())
            else:
                radius = functional.conv2d(radius, layer.weight.abs(), padding=layer.padding)
            lower, upper = layer(centre) - radius, layer(centre) + radius
        else:  # ReLU, max-pooling and flattening are monotone
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def worst_logits(model: nets.SmallCNN, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """Logits [B, classes] at least as bad for the labels y [B] as any within `eps`: lower at y, upper elsewhere."""
    lower, upper = bounds(model, x, eps)
    return torch.where(functional.one_hot(y, upper.shape[1]).bool(), lower, upper)


@dataclass(frozen=True)
class IntervalBounds(Objective):
    """The mean of the cross-entropies of the images and of their worst logits within `eps` in L∞ (Gowal et al. 2018,
    "On the effectiveness of interval bound propagation for training verifiably robust models").

    `eps` has to grow over several trainings: with its last value from the start a network learns nothing.
    """

    eps: float

    def loss(
        self, model: nets.SmallCNN, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropies(torch.cat([model(x), worst_logits(model, x, y, self.eps)]), y).mean()
