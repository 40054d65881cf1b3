"""MUNIT's networks: their parts against torch's own functions, their sizes against the paper, and what is shared."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustperf.names import SHARES
from robustperf.nets.munit import MunitDiscriminator, StyleEncoder, Translator
from robustperf.nets.munit_generator import (
    BlockConvolution,
    ContentEncoder,
    Decoder,
    MunitGenerator,
    UpsampledConvolution,
    instance_norm,
    sizes_for,
)


def seeded(make, *arguments, **named):
    """A network in float64 with weights that do not make every term small."""
    torch.manual_seed(0)
    network = make(*arguments, **named).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def convolutions(network):
    """(in, out, kernel, stride) of each convolution, in order."""
    return [
        (each.in_channels, each.out_channels, each.kernel_size[0], each.stride[0])
        for each in network.modules()
        if isinstance(each, nn.Conv2d)
    ]


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 1, 2, 2), (2, 3, 1, 7)])
def test_instance_norm_is_that_of_torch_scaled_and_shifted(shape):
    x = torch.randn(shape, dtype=torch.float64)
    scale, shift = torch.randn(2, *shape[:2], dtype=torch.float64)
    plain = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(functional.instance_norm(x), plain)
    torch.testing.assert_close(instance_norm(x), plain)
    torch.testing.assert_close(
        instance_norm(x, scale, shift), plain * scale[:, :, None, None] + shift[:, :, None, None]
    )
    assert instance_norm(x[:0], scale[:0], shift[:0]).shape == (0, *shape[1:])


@pytest.mark.parametrize("height, width", [(5, 7), (1, 2), (4, 4)])
def test_the_phases_are_an_upsampling_and_a_5x5_convolution(height, width):
    layer = seeded(UpsampledConvolution, 3, 2)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    upsampled = functional.interpolate(x, scale_factor=2, mode="nearest")
    expected = functional.conv2d(functional.pad(upsampled, (2, 2, 2, 2), mode="replicate"), layer.weight, layer.bias)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    sources = [x, layer.weight, layer.bias]
    towards = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, sources, towards), torch.autograd.grad(expected, sources, towards), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_the_blocks_are_a_7x7_convolution(size):
    layer = seeded(BlockConvolution, 3, 2)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(functional.pad(x, (3,) * 4, mode="reflect"), layer.weight, layer.bias)
    found, sources, towards = layer(x), [x, layer.weight, layer.bias], torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, sources, towards), torch.autograd.grad(expected, sources, towards), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_networks_of_the_paper():
    """Huang et al. 2018, B.2: c7s1-64, d128, d256, R256 x 4; the style's d128, d256, d256, d256; u128, u64, c7s1-3;
    d64, d128, d256, d512 on three scales."""
    assert sizes_for(64, 64) == sizes_for(224, 300) == (8, 2, 4, 4)
    content = [(3, 64, 7, 1), (64, 128, 4, 2), (128, 256, 4, 2)] + [(256, 256, 3, 1)] * 8
    assert convolutions(ContentEncoder(3, 64, 2, 4)) == content
    style = [(3, 64, 7, 1), (64, 128, 4, 2), (128, 256, 4, 2), (256, 256, 4, 2), (256, 256, 4, 2)]
    encoder = StyleEncoder(3, 64, 8, 2)
    assert convolutions(encoder) == style and encoder.heads[0].weight.shape == (8, 256)
    decoder = Decoder(3, 64, 8, 2, 4)
    assert convolutions(decoder) == [(256, 256, 3, 1)] * 8 + [(64, 3, 7, 1)]
    assert [tuple(each.weight.shape) for each in decoder.upsamplings] == [(128, 256, 5, 5), (64, 128, 5, 5)]
    assert [each.out_features for each in decoder.mlp if isinstance(each, nn.Linear)] == [256, 256, 4 * 4 * 256]
    discriminator = MunitDiscriminator(3, (64, 64), 64, layers=4)
    scale = [(3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 2), (512, 1, 1, 1)]
    assert convolutions(discriminator) == scale * 6


def test_the_small_networks():
    assert sizes_for(32, 32) == sizes_for(28, 64) == (2, 1, 1, 3)
    assert convolutions(ContentEncoder(3, 64, 1, 1)) == [(3, 64, 7, 1), (64, 128, 4, 2)] + [(128, 128, 3, 1)] * 2
    scale = [(3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 1, 1, 1)]
    assert convolutions(MunitDiscriminator(3, (32, 32), 64)) == scale * 6
    scores, _ = MunitDiscriminator(3, (32, 32), 4)(*torch.rand(2, 5, 3, 32, 32))
    assert [tuple(each.shape) for each in scores] == [(5, 1, 4, 4), (5, 1, 2, 2), (5, 1, 1, 1)]


def test_the_decoder_by_hand():
    decoder = seeded(Decoder, 2, 3, 4, 1, 1)
    content, style = torch.randn(2, 6, 4, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    (scale1, shift1), (scale2, shift2) = decoder.mlp(style).view(2, 2, 2, 6, 1, 1).permute(1, 2, 0, 3, 4, 5)

    def padded(x, by, mode="reflect"):
        return functional.pad(x, (by,) * 4, mode=mode)

    block, (up,), (norm,) = decoder.blocks[0], decoder.upsamplings, decoder.norms
    hidden = functional.instance_norm(functional.conv2d(padded(content, 1), block.conv1.weight)) * scale1 + shift1
    hidden = functional.instance_norm(functional.conv2d(padded(hidden.relu(), 1), block.conv2.weight)) * scale2 + shift2
    x = functional.interpolate(content + hidden, scale_factor=2)
    x = functional.conv2d(padded(x, 2, "replicate"), up.weight, up.bias)
    x = functional.layer_norm(x, x.shape[1:]) * norm.weight[:, None, None] + norm.bias[:, None, None]
    x = functional.conv2d(padded(x.relu(), 3), decoder.last.weight, decoder.last.bias).tanh()
    torch.testing.assert_close(decoder(content, style), x)


def test_several_styles_of_one_content():
    generator = seeded(MunitGenerator, 3, 2, 4)
    x, styles = torch.rand(3, 3, 8, 12, dtype=torch.float64), torch.randn(4, 3, 2, dtype=torch.float64)
    together = generator(x, styles.flatten(0, 1)).unflatten(0, (4, 3))
    for number, style in enumerate(styles):
        torch.testing.assert_close(together[number], generator(x, style))


def test_initial_weights_follow_from_the_seed():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(MunitGenerator(width=4))
    for name, value in networks[0].state_dict().items():
        assert torch.equal(value, networks[1].state_dict()[name]), name
    weight = networks[0].decoder.upsamplings[0].weight
    bound = 1 / (25 * weight.shape[1]) ** 0.5  # that of nn.Conv2d
    assert 0.9 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (28, 28), (64, 64)])
def test_any_size_divisible_by_four(size):
    style_dim, downsamplings, blocks, layers = sizes_for(*size)
    translator = Translator(1, style_dim, 2, downsamplings, blocks)
    a, b = torch.rand(2, 1, 1, *size)
    found = translator(a, b, *torch.randn(2, 1, style_dim))
    for name in ("reconstructed_a", "translated_b", "cycled_a"):
        image = getattr(found, name)
        assert image.shape == a.shape and image.abs().max() <= 1 and image.isfinite().all()
    made = translator.generator()(a, torch.randn(1, style_dim))
    assert made.shape == a.shape and 0 <= made.min() and made.max() <= 1
    scores = MunitDiscriminator(1, size, 2, layers)(a, b)
    assert all(len(each) == 3 and all(score.numel() for score in each) for each in scores)


@pytest.mark.parametrize("share", SHARES)
def test_the_translations_of_a_pair_depend_on_it_alone(share):
    translator = seeded(Translator, 2, 3, 2, share=share)
    a, b = torch.rand(2, 3, 2, 8, 8, dtype=torch.float64)
    style_a, style_b = torch.randn(2, 3, 3, dtype=torch.float64)
    together = translator(a, b, style_a, style_b)
    for row in range(3):
        alone = translator(*(each[row : row + 1] for each in (a, b, style_a, style_b)))
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other[row : row + 1])
    assert translator(a, b, style_a, style_b, cycle=False).cycled_a is None


@pytest.mark.parametrize("share", SHARES)
def test_the_generator_translates_from_a_to_b(share):
    translator = seeded(Translator, 2, 3, 2, share=share)
    a, b = torch.rand(2, 3, 2, 8, 8, dtype=torch.float64)
    style_a, style_b = torch.randn(2, 3, 3, dtype=torch.float64)
    expected = (translator(a, b, style_a, style_b).translated_b + 1) / 2
    generator = translator.generator().double()
    torch.testing.assert_close(generator(a, style_b), expected)
    assert not generator.training and generator.content.convolutions[0] is not translator.contents[0].convolutions[0]


def test_what_the_domains_share():
    def names(share):
        network = Translator(share=share)
        return [len(each) for each in network.children()], sum(each.numel() for each in network.parameters())

    (none, most), (content, fewer), (everything, fewest) = map(names, SHARES)
    assert (none, content, everything) == ([2, 2, 2], [1, 2, 2], [1, 1, 1])
    assert most - fewer == sum(each.numel() for each in ContentEncoder(3, 64, 1, 1).parameters())
    assert fewest < fewer


def test_the_image_in_the_other_domain_differs_with_the_domain_it_is_told():
    translator = seeded(Translator, 1, 2, 4)
    content, style = torch.randn(1, 8, 4, 4, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    images = [translator.decoders[0](content, style, torch.tensor([domain])) for domain in (0, 1)]
    assert (images[0] - images[1]).abs().max() > 1e-3


@pytest.mark.parametrize("make", [Translator, MunitGenerator, MunitDiscriminator])
def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="in_channels: expected an integer above 0, got 0"):
        make(0)
    with pytest.raises(ValueError, match="width: expected an integer above 0, got 1.5"):
        make(width=1.5)
    if make is Translator:
        with pytest.raises(ValueError, match="share: expected one of none, content, all, got 'al'; did you mean 'all'"):
            make(share="al")
