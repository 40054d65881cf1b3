"""A conditional variational auto-encoder of pairs of images: Wong and Kolter (2020), "Learning perturbation sets for
robust machine learning", with the networks of MUNIT."""

from __future__ import annotations

import torch
from torch import nn

from robustperf.nets.dtype import made_in_float32
from robustperf.nets.munit import StyleEncoder, initialise
from robustperf.nets.munit_generator import Encoded, MunitGenerator, repeated

_MOST = 4.0  # of the logarithm of a standard deviation


@made_in_float32
class PairedGenerator(MunitGenerator):
    """G(x, delta) = g(x, mean(x) + scale(x) radius delta), where g is the decoder of images x' given x, and N(mean(x),
    scale(x)^2) is the prior of its latent values given x (Wong and Kolter 2020, sections 3 and 4).

    The posterior of the latent values, given x and x', is another Gaussian with a diagonal covariance. g is MUNIT's
    content encoder and decoder with AdaIN; MUNIT's style encoder, with two last layers, gives the mean and, with
    tanh as a bound, the logarithm of the variance of the prior and of the posterior.

    Args:
        in_channels, style_dim, width, downsamplings, residual_blocks: as in `MunitGenerator`; `style_dim` is q, the
            number of latent values.

    Attributes:
        radius: of the ball of latent values, in units of the prior's scale: a buffer, 1 until `learn_paired` sets it.

    Forward: images x and x' [N, in_channels, H, W] in [0, 1] and standard normals [N, style_dim] -> (the reconstruction
    of x' [N, in_channels, H, W] in [0, 1] from x and a latent value of the posterior, the Kullback-Leibler divergence
    [N] of the posterior from the prior).
    """

    radius: torch.Tensor

    def __init__(
        self,
        in_channels: int = 3,
        style_dim: int = 2,
        width: int = 64,
        downsamplings: int = 1,
        residual_blocks: int = 1,
    ) -> None:
        super().__init__(in_channels, style_dim, width, downsamplings, residual_blocks)
        self.prior = StyleEncoder(in_channels, width, style_dim, downsamplings, heads=2)
        self.posterior = StyleEncoder(2 * in_channels, width, style_dim, downsamplings, heads=2)
        self.register_buffer("radius", torch.ones(()))
        initialise(self)
        for encoder in (self.prior, self.posterior):  # both scales begin at 1
            nn.init.zeros_(encoder.heads[1].weight)

    def encode(self, x: torch.Tensor) -> Encoded:
        """What `decode` needs of the images, the prior's mean and scale too."""
        return (*super().encode(x), *_gaussian(self.prior, 2 * x - 1))

    def decode(self, encoded: Encoded, style: torch.Tensor) -> torch.Tensor:
        """G(x, delta) [k N, in_channels, H, W] for delta [k N, style_dim], draw-major."""
        content, first, mean, scale = encoded
        latent = repeated(mean, len(style)) + repeated(scale, len(style)) * self.radius * style
        return super().decode((content, first), latent)

    def delta_of(self, x: torch.Tensor, shifted: torch.Tensor) -> torch.Tensor:
        """The delta [N, style_dim] of pairs of images: the mean of the posterior."""
        mean, scale, found, _ = self._gaussians(x, shifted)
        return (found - mean) / (scale * self.radius)

    def forward(  # type: ignore[override]  # what is trained is not G alone
        self, x: torch.Tensor, shifted: torch.Tensor, normals: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean, scale, found, deviation = self._gaussians(x, shifted)
        reconstructed = super().decode(super().encode(x), found + deviation * normals)
        ratio = (deviation / scale).square()
        divergence = 0.5 * (ratio + ((found - mean) / scale).square() - 1 - ratio.log()).sum(1)
        return reconstructed, divergence

    def _gaussians(self, x: torch.Tensor, shifted: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The mean and the scale of the prior, and those of the posterior, [N, style_dim] each."""
        pairs = torch.cat([2 * x - 1, 2 * shifted - 1], 1)
        return *_gaussian(self.prior, 2 * x - 1), *_gaussian(self.posterior, pairs)


def _gaussian(encoder: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the standard deviation [N, style_dim]. The latter is between exp(-4) and exp(4): the divergence
    divides by it, and must not overflow."""
    mean, log_variance = encoder(x)
    return mean, (_MOST * (log_variance / (2 * _MOST)).tanh()).exp()
