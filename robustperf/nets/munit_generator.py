"""The generator of MUNIT: Huang, Liu, Belongie and Kautz (2018), appendix B.2; Robey et al. (2020), section 4.3, A.3.

Instance normalisation, with or without a scale and a shift for each image (AdaIN), is one fused group normalisation
with a group for each image and channel. Upsampling and the 5x5 convolution after it are four 3x3 convolutions at the
low resolution, one for each position of a pixel in its 2x2 block. The last convolution also computes 2x2 blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from robustperf import check
from robustperf.nets.dtype import made_in_float32

MLP_WIDTH = 256  # of the layers between a style and AdaIN's parameters
_LARGE = 64  # the least side of an image that takes the larger networks
_EPS = 1e-5


Encoded = tuple[torch.Tensor, ...]
"""All of G(x, delta) that does not depend on delta: a content and its first convolution in the decoder, and what a
subclass of `MunitGenerator` adds."""


class Sizes(NamedTuple):
    """The sizes of MUNIT's networks that depend on the images' size."""

    style_dim: int
    downsamplings: int
    residual_blocks: int
    layers: int
    """Convolutions of each discriminator."""


def sizes_for(height: int, width: int) -> Sizes:
    """The sizes for images of height x width pixels: small below 64 pixels, where R has 32x32, and large from there on
    (R section 7.2 for the style)."""
    return Sizes(8, 2, 4, 4) if min(height, width) >= _LARGE else Sizes(2, 1, 1, 3)


def instance_norm(
    x: torch.Tensor, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None
) -> torch.Tensor:
    """Each channel of each image with mean 0 and variance 1, times `scale` plus `shift`: AdaIN.

    Args:
        x: [N, C, H, W] float.
        scale, shift: [N, C]; None for 1 and 0.

    Returns [N, C, H, W]. Raises ValueError for channels of one pixel.
    """
    if not x.numel():
        return x
    n, c, h, w = x.shape
    weights = (None if each is None else each.flatten() for each in (scale, shift))
    return functional.group_norm(x.reshape(1, n * c, h, w), n * c, *weights, _EPS).view(n, c, h, w)


def convolution(channels: int, out: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Reflect-padded, so that stride 1 keeps the size and stride 2 halves it. Without a bias where an instance
    normalisation follows, which would remove it."""
    return nn.Conv2d(channels, out, size, stride=stride, padding=(size - 1) // 2, padding_mode="reflect", bias=bias)


class ResidualBlock(nn.Module):
    """x + norm2(conv2(relu(norm1(conv1(x))))), 3x3 convolutions and instance normalisation.

    Forward: [N, C, H, W] -> the same shape. With `adain` [2, 2, N, C], (scale, shift) of norm1 and of norm2. `first`
    is conv1(x) where the caller has it.
    """

    conv1: nn.Conv2d
    conv2: nn.Conv2d

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, channels, 3)
        self.conv2 = convolution(channels, channels, 3)

    def forward(
        self, x: torch.Tensor, adain: torch.Tensor | None = None, first: torch.Tensor | None = None
    ) -> torch.Tensor:
        norm1, norm2 = ((None, None), (None, None)) if adain is None else (adain[0], adain[1])
        hidden = self.conv1(x) if first is None else first
        hidden = functional.relu(instance_norm(hidden, norm1[0], norm1[1]), inplace=True)
        return instance_norm(self.conv2(hidden), norm2[0], norm2[1]) + x


class ContentEncoder(nn.Module):
    """A 7x7 convolution to `width` channels, 4x4 convolutions of stride 2 that double them, each with instance
    normalisation and ReLU, and residual blocks.

    Forward: images [N, in_channels, H, W] in [-1, 1] -> content [N, width 2^d, H / 2^d, W / 2^d] for d downsamplings.
    """

    convolutions: nn.ModuleList
    blocks: nn.ModuleList

    def __init__(self, in_channels: int, width: int, downsamplings: int, residual_blocks: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([convolution(in_channels, width, 7)])
        for level in range(downsamplings):
            self.convolutions.append(convolution(width << level, width << level + 1, 4, stride=2))
        self.blocks = nn.ModuleList(ResidualBlock(width << downsamplings) for _ in range(residual_blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            x = functional.relu(instance_norm(convolution(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        return x


class UpsampledConvolution(nn.Module):
    """Nearest-neighbour upsampling by two and a 5x5 convolution, padded by replication, in one 3x3 convolution at the
    low resolution with four times the channels: the same function with 9 / 25 of its products.

    Along an axis the pixels 2 i and 2 i + 1 see the 5 taps w on the low pixels i - 1, i, i + 1 as
    (w0 + w1, w2 + w3, w4) and (w0, w1 + w2, w3 + w4).

    Forward: [N, channels, H, W] -> [N, out, 2 H, 2 W].
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, channels, 5, 5))
        self.bias = nn.Parameter(torch.zeros(out))
        with torch.random.fork_rng([]):  # the draws of other layers do not depend on this one
            nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Conv2d
        taps = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
                             [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]], dtype=torch.float32)  # fmt: skip
        phases = torch.einsum("pai,qbj->ijpqab", taps, taps).reshape(25, 36)
        self.register_buffer("phases", phases, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, channels = self.weight.shape[:2]
        weight = (self.weight.reshape(-1, 25) @ self.phases).view(out, channels, 4, 3, 3)
        weight = weight.transpose(1, 2).reshape(4 * out, channels, 3, 3)
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.pixel_shuffle(functional.conv2d(padded, weight, self.bias.repeat_interleave(4)), 2)


class BlockConvolution(nn.Conv2d):
    """A reflect-padded 7x7 convolution to few channels, computed for blocks of 2x2 pixels: an 8x8 convolution of stride
    2 with four times the channels. A CPU's vectors have room for more channels than three, so that it takes half the
    time.

    Forward: [N, in_channels, H, W], H and W even -> [N, out_channels, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 7)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        assert self.bias is not None
        blocks = [
            functional.pad(self.weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)
        ]
        padded = functional.pad(input, (3, 3, 3, 3), mode="reflect")
        weight = torch.stack(blocks, 1).flatten(0, 1)
        return functional.pixel_shuffle(functional.conv2d(padded, weight, self.bias.repeat_interleave(4), stride=2), 2)


class Decoder(nn.Module):
    """Residual blocks with AdaIN, whose scales and shifts three linear layers compute from the style; for each
    downsampling of the encoder an upsampled 5x5 convolution that halves the channels, normalisation over all values of
    an image (layer norm, with a scale and a shift for each channel) and ReLU; a 7x7 convolution and tanh.

    Args:
        domains: 2 for a decoder of both domains, which is told the domain with the style; 0 for one of its own.

    Forward: content [N, width 2^d, h, w] and style [N, style_dim] -> images [N, out_channels, 2^d h, 2^d w] in [-1, 1].
    With `domain` [N] int64 for `domains` = 2. With k styles for each content, [k N, style_dim], draw-major, the first
    convolution of the content is computed once.
    """

    mlp: nn.Sequential
    blocks: nn.ModuleList
    upsamplings: nn.ModuleList
    norms: nn.ModuleList
    last: BlockConvolution

    def __init__(
        self, out_channels: int, width: int, style_dim: int, downsamplings: int, residual_blocks: int, domains: int = 0
    ) -> None:
        super().__init__()
        channels = width << downsamplings
        self.domains = domains
        self.mlp = nn.Sequential(
            nn.Linear(style_dim + domains, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, 4 * residual_blocks * channels),
        )
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(residual_blocks))
        self.upsamplings, self.norms = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(downsamplings)):
            self.upsamplings.append(UpsampledConvolution(width << level + 1, width << level))
            self.norms.append(nn.GroupNorm(1, width << level))
        self.last = BlockConvolution(width, out_channels)

    def begin(self, content: torch.Tensor) -> Encoded:
        """(content, its first convolution), for `finish`: what does not depend on the style."""
        return content, self.blocks[0].conv1(content)

    def finish(self, begun: Encoded, style: torch.Tensor, domain: torch.Tensor | None = None) -> torch.Tensor:
        """The images [k N, ...] of styles [k N, style_dim], draw-major, for `begin` of content [N, ...]."""
        x, first = (repeated(each, len(style)) for each in begun)
        if self.domains:
            assert domain is not None
            style = torch.cat([style, functional.one_hot(domain, self.domains).to(style)], 1)
        n, channels = x.shape[:2]
        adain = self.mlp(style).view(n, len(self.blocks), 2, 2, channels).permute(1, 2, 3, 0, 4)
        for number, block in enumerate(self.blocks):
            x = block(x, adain[number], first if number == 0 else None)
        for upsampling, norm in zip(self.upsamplings, self.norms, strict=True):
            x = functional.relu(norm(upsampling(x)), inplace=True)
        return self.last(x).tanh()

    def forward(self, content: torch.Tensor, style: torch.Tensor, domain: torch.Tensor | None = None) -> torch.Tensor:
        return self.finish(self.begin(content), style, domain)


def repeated(x: torch.Tensor, rows: int) -> torch.Tensor:
    """x [N, ...] repeated to this many rows."""
    times = rows // max(len(x), 1)
    return x if times == 1 else x.repeat(times, *[1] * (x.dim() - 1))


@made_in_float32
class MunitGenerator(nn.Module):
    """G(x, delta) of R section 4.3: the content encoder of domain A and the decoder of domain B.

    Args:
        in_channels: channels of the images.
        style_dim: q, the dimension of delta.
        width: channels of the first convolution, 64 in the paper.
        downsamplings, residual_blocks: as `sizes_for` has them.

    Forward: images [N, in_channels, H, W] in [0, 1], H and W divisible by 2^downsamplings, and styles [k N, style_dim],
    draw-major -> images [k N, in_channels, H, W] in [0, 1].

    Raises ValueError for an argument that is not a positive integer.
    """

    def __init__(
        self,
        in_channels: int = 3,
        style_dim: int = 2,
        width: int = 64,
        downsamplings: int = 1,
        residual_blocks: int = 1,
    ) -> None:
        super().__init__()
        self.settings = {
            "in_channels": in_channels, "style_dim": style_dim, "width": width, "downsamplings": downsamplings,
            "residual_blocks": residual_blocks,
        }  # fmt: skip
        for name, value in self.settings.items():
            check.integer(name, value, 1)
        self.content = ContentEncoder(in_channels, width, downsamplings, residual_blocks)
        self.decoder = Decoder(in_channels, width, style_dim, downsamplings, residual_blocks)

    def encode(self, x: torch.Tensor) -> Encoded:
        """What `decode` needs of the images [N, in_channels, H, W]: all that does not depend on the style."""
        return self.decoder.begin(self.content(2 * x - 1))

    def decode(self, encoded: Encoded, style: torch.Tensor) -> torch.Tensor:
        """G(x, delta) [k N, in_channels, H, W] for styles [k N, style_dim], draw-major."""
        return (self.decoder.finish(encoded, style) + 1) / 2

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x), style)
