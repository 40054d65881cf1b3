"""MUNIT's networks of two domains: Huang, Liu, Belongie and Kautz (2018), appendix B.2; Robey et al. (2020), A.3."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from robustperf import check
from robustperf.names import SHARES, check_name
from robustperf.nets.dtype import made_in_float32
from robustperf.nets.munit_generator import ContentEncoder, Decoder, MunitGenerator, UpsampledConvolution, convolution


class StyleEncoder(nn.Module):
    """A 7x7 convolution to `width` channels and 4x4 convolutions of stride 2, of which the first `downsamplings` double
    the channels and two more keep them, with ReLU and without normalisation, which would remove the style; the mean
    over the pixels; and for each of `heads` domains a linear layer.

    Forward: images [N, in_channels, H, W] in [-1, 1] -> styles [heads, N, style_dim].
    """

    stem: nn.Conv2d
    halvings: nn.ModuleList
    heads: nn.ModuleList

    def __init__(self, in_channels: int, width: int, style_dim: int, downsamplings: int, heads: int = 1) -> None:
        super().__init__()
        self.stem = convolution(in_channels, width, 7, bias=True)
        self.halvings = nn.ModuleList()
        for level in range(downsamplings + 2):
            channels = width << min(level, downsamplings)
            self.halvings.append(convolution(channels, width << min(level + 1, downsamplings), 4, stride=2, bias=True))
        self.heads = nn.ModuleList(nn.Linear(width << downsamplings, style_dim) for _ in range(heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x), inplace=True)
        for halving in self.halvings:
            x = functional.relu(halving(x), inplace=True)
        pooled = x.mean((2, 3))
        return torch.stack([head(pooled) for head in self.heads])


class Translations(NamedTuple):
    """What a `Translator` computes of N images of each domain, [N, ...] each; images are in [-1, 1]."""

    a: torch.Tensor
    """The images of domain A that it got."""
    b: torch.Tensor
    content_a: torch.Tensor
    content_b: torch.Tensor
    reconstructed_a: torch.Tensor
    """Dec_A(Enc_A(a))."""
    reconstructed_b: torch.Tensor
    translated_a: torch.Tensor
    """Dec_A(c_b, s_a) for a style s_a of the prior: the image b in domain A."""
    translated_b: torch.Tensor
    content_of_translated_a: torch.Tensor
    """Enc_A's content of `translated_a`, which should be that of b."""
    content_of_translated_b: torch.Tensor
    style_of_translated_a: torch.Tensor
    style_of_translated_b: torch.Tensor
    cycled_a: torch.Tensor | None
    """a translated to domain B and back with its own style; None where it is not computed."""
    cycled_b: torch.Tensor | None


@made_in_float32
class Translator(nn.Module):
    """MUNIT's encoders and decoders of two domains A and B (R A.3), all but the discriminators.

    Args:
        in_channels, style_dim, width, downsamplings, residual_blocks: as in `MunitGenerator`.
        share: which weights the domains share. "none", the paper's form, has an encoder and a decoder for each.
            "content" has one content encoder. "all" also has one decoder, which is told the domain, and one style
            encoder with a last layer for each domain.

    Forward: images a and b [N, in_channels, H, W] in [0, 1], styles of the prior style_a and style_b [N, style_dim],
    and whether to compute the cycles -> `Translations`.

    The initial weights are normal with variance 2 / fan-in, biases zero. Raises ValueError for a wrong argument.
    """

    def __init__(
        self,
        in_channels: int = 3,
        style_dim: int = 2,
        width: int = 64,
        downsamplings: int = 1,
        residual_blocks: int = 1,
        share: str = "all",
    ) -> None:
        super().__init__()
        sizes = MunitGenerator(in_channels, style_dim, width, downsamplings, residual_blocks).settings
        self.settings = {**sizes, "share": check_name("share", share, SHARES)}
        contents, others = 1 if share != "none" else 2, 1 if share == "all" else 2
        self.contents = nn.ModuleList(
            ContentEncoder(in_channels, width, downsamplings, residual_blocks) for _ in range(contents)
        )
        self.styles = nn.ModuleList(
            StyleEncoder(in_channels, width, style_dim, downsamplings, heads=3 - others) for _ in range(others)
        )
        self.decoders = nn.ModuleList(
            Decoder(in_channels, width, style_dim, downsamplings, residual_blocks, domains=2 if others == 1 else 0)
            for _ in range(others)
        )
        initialise(self)

    def forward(
        self, a: torch.Tensor, b: torch.Tensor, style_a: torch.Tensor, style_b: torch.Tensor, cycle: bool = True
    ) -> Translations:
        a, b = 2 * a - 1, 2 * b - 1
        content_a, content_b = self._content(a, b)
        own_a, own_b = self._style(a, b)
        in_a, in_b = self._decode(
            torch.cat([content_a, content_b]), torch.cat([own_a, style_a]),
            torch.cat([content_b, content_a]), torch.cat([own_b, style_b]),
        )  # fmt: skip
        (reconstructed_a, translated_a), (reconstructed_b, translated_b) = in_a.chunk(2), in_b.chunk(2)
        found_b, found_a = self._content(translated_a, translated_b)
        found_style_a, found_style_b = self._style(translated_a, translated_b)
        cycled = self._decode(found_a, own_a, found_b, own_b) if cycle else (None, None)
        return Translations(
            a, b, content_a, content_b, reconstructed_a, reconstructed_b, translated_a, translated_b, found_b, found_a,
            found_style_a, found_style_b, *cycled,
        )  # fmt: skip

    def _content(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The contents of images of both domains, from one pass where the encoder is shared."""
        if len(self.contents) == 2:
            return self.contents[0](a), self.contents[1](b)
        both = self.contents[0](torch.cat([a, b]))
        return both[: len(a)], both[len(a) :]

    def _style(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.styles) == 2:
            return self.styles[0](a)[0], self.styles[1](b)[0]
        both = self.styles[0](torch.cat([a, b]))
        return both[0, : len(a)], both[1, len(a) :]

    def _decode(
        self, content_a: torch.Tensor, style_a: torch.Tensor, content_b: torch.Tensor, style_b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The images in domain A and those in domain B."""
        if len(self.decoders) == 2:
            return self.decoders[0](content_a, style_a), self.decoders[1](content_b, style_b)
        domain = torch.tensor([0] * len(content_a) + [1] * len(content_b), device=content_a.device)
        both = self.decoders[0](torch.cat([content_a, content_b]), torch.cat([style_a, style_b]), domain)
        return both[: len(content_a)], both[len(content_a) :]

    def generator(self) -> MunitGenerator:
        """A copy of the networks of G from A to B, on the CPU and in eval mode; a shared decoder is told domain B once
        and for all, by the bias of its first layer."""
        sizes = {name: value for name, value in self.settings.items() if name != "share"}
        content, decoder = copy.deepcopy(self.contents[0]).cpu(), copy.deepcopy(self.decoders[-1]).cpu()
        with torch.random.fork_rng([]):  # the initial weights, which are replaced
            generator, told = MunitGenerator(**sizes), decoder.mlp[0]
            own = nn.Linear(sizes["style_dim"], told.out_features).to(told.weight.dtype)
        if decoder.domains:
            with torch.no_grad():
                own.weight.copy_(told.weight[:, : own.in_features])
                own.bias.copy_(told.bias + told.weight[:, own.in_features + 1])
            decoder.mlp[0], decoder.domains = own, 0
        generator.content = content
        generator.decoder = decoder
        return generator.eval()


def initialise(network: nn.Module) -> None:
    """Weights of convolutions and linear layers are normal with variance 2 / fan-in, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | UpsampledConvolution):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class _MultiScale(nn.Module):
    """A discriminator on the images, on their half and on their quarter size: 4x4 convolutions of stride 2 with leaky
    ReLU (0.2), and a 1x1 convolution to one value for each place."""

    def __init__(self, in_channels: int, width: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for depth in depths:
            layers, channels = [], in_channels
            for level in range(depth):
                layers += [nn.Conv2d(channels, width << level, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
                channels = width << level
            self.scales.append(nn.Sequential(*layers, nn.Conv2d(channels, 1, 1)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        scores = []
        for number, scale in enumerate(self.scales):
            if number:
                x = functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(scale(x))
        return scores


@made_in_float32
class MunitDiscriminator(nn.Module):
    """The discriminators of both domains, each on up to three scales (Huang et al. 2018, B.2).

    A scale has `layers` convolutions, or as many as its images can be halved: three scales of four do not fit images of
    32x32. Padding is with zeros. The initial weights are normal with standard deviation 0.02.

    Args:
        in_channels: channels of the images.
        size: (height, width) of the images, at least 8.
        width: channels of the first convolution, 64 in the paper; each further one doubles them.
        layers: convolutions of a scale, as `sizes_for` has them.

    Forward: images [N, in_channels, H, W] in [-1, 1] of domain A and of domain B -> for each domain a list with the
    scores [N, 1, h, w] of each scale.

    Raises ValueError for a wrong argument.
    """

    def __init__(
        self, in_channels: int = 3, size: tuple[int, int] = (32, 32), width: int = 64, layers: int = 3
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "width": width, "layers": layers}.items():
            check.integer(name, value, 1)
        for value in size:
            check.integer("size", value, 8)
        depths = tuple(min(layers, side.bit_length() - 1) for side in _halved(min(size), 3))
        self.a, self.b = (_MultiScale(in_channels, width, depths) for _ in range(2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return self.a(a), self.b(b)


def _halved(side: int, times: int) -> Iterator[int]:
    """The sides of the scales, down to two pixels."""
    for _ in range(times):
        if side >= 2:
            yield side
        side = (side + 1) // 2
