"""Networks of other families than the papers', for the tightness of margins: a transformer, one for large images."""

from __future__ import annotations

import torch
from torch import nn


class Transformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021): patches, position embeddings, pre-norm encoder layers with
    GELU, the mean of the tokens, a linear head.

    Forward: images [B, 3, size, size] -> logits [B, classes].
    """

    def __init__(self, classes: int, size: int = 32, patch: int = 4, width: int = 96, layers: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).mT + self.position
        return self.head(self.encoder(tokens).mean(1))


class LargeImages(nn.Sequential):
    """A convolutional network for large images: 7x7 convolution with stride 4, then 3x3 with stride 2, batch
    normalisation and ReLU after each, means over 4x4 parts of the image, a linear head.

    Forward: images [B, 3, H, W] -> logits [B, classes].
    """

    def __init__(self, classes: int) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for out, side, stride in ((24, 7, 4), (48, 3, 2), (96, 3, 2), (96, 3, 1)):
            convolution = nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        super().__init__(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, classes))
