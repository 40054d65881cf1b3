"""The generator: its layers, its images, and bad input."""

import pytest
import torch
from torch import nn

from robustperf.nets import TiboGenerator


@pytest.mark.parametrize("channels, size, layers", [(1, 28, 3), (3, 32, 1)])
def test_images_of_the_same_shape(channels, size, layers):
    torch.manual_seed(0)
    model, x = TiboGenerator(channels, 8, layers).double(), torch.rand(4, channels, size, size, dtype=torch.float64)
    made = model(x)
    assert made.shape == x.shape and made.dtype == x.dtype and 0 < made.min() and made.max() < 1
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == layers * [8] + [channels]
    assert all(module.kernel_size == (5, 5) and module.stride == (1, 1) for module in convolutions)
    by_hand = x
    for conv, norm in zip(convolutions, [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], strict=False):
        by_hand = nn.functional.conv2d(by_hand, conv.weight, padding=2)
        mean, variance = by_hand.mean((0, 2, 3)), by_hand.var((0, 2, 3), unbiased=False)
        by_hand = (by_hand - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
        by_hand = torch.where(by_hand > 0, by_hand, 0.1 * by_hand)
    by_hand = nn.functional.conv2d(by_hand, convolutions[-1].weight, convolutions[-1].bias, padding=2).sigmoid()
    torch.testing.assert_close(made, by_hand)


def test_the_papers_width():
    # 5x5 weights, two batch-norm parameters a channel, one bias at the end
    assert sum(p.numel() for p in TiboGenerator().parameters()) == 25 * (128 + 2 * 128**2 + 128) + 3 * 2 * 128 + 1


def test_errors():
    for name in ("in_channels", "width", "layers"):
        for wrong in (0, -1, 1.5, "3", None, True):
            with pytest.raises(ValueError, match=f"{name}: expected an integer above 0, got"):
                TiboGenerator(**{name: wrong})
    for shape in ((1, 28, 28), (2, 3, 28, 28)):
        with pytest.raises(ValueError, match=r"x: expected images \[B, 1, H, W\], got"):
            TiboGenerator(1, 4, 1)(torch.rand(shape))
