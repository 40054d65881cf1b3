"""The networks: parameters counted by hand, shapes, gradients, initialisation, errors."""

import math

import pytest
import torch
from torch.nn import functional as F

from robustperf.nets import (
    NAMES,
    LeNet,
    ResNet20,
    ResNet50,
    RobeyCNN,
    SmallCNN,
    TiboCNN,
    TiboTransferCNN,
    build,
)
from robustperf.nets.resnet import BasicBlock

# every network at a small size: (network, image shape, labels)
SMALL = [
    (lambda: TiboCNN(3, size=9, classes=4, width=5, hidden=6), (3, 9, 9), 4),
    (lambda: TiboCNN(1, size=5, classes=2, width=3, layers=1, hidden=4), (1, 5, 5), 2),
    (lambda: TiboTransferCNN(2, size=7, classes=3, width=4, hidden=5), (2, 7, 7), 3),
    (lambda: RobeyCNN(1, size=12, classes=3, width=4), (1, 12, 12), 3),
    (lambda: RobeyCNN(2, size=17, classes=4, width=3, batch_norm=True), (2, 17, 17), 4),
    (lambda: LeNet(2, size=17, classes=3), (2, 17, 17), 3),
    (lambda: ResNet20(1, classes=5, width=2), (1, 11, 9), 5),
    (lambda: ResNet50(2, classes=4), (2, 33, 40), 4),
    (lambda: SmallCNN(1, size=8, classes=3, width=4), (1, 8, 8), 3),
    (lambda: SmallCNN(2, size=1, classes=3, width=4), (2, 1, 1), 3),
]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_tibo_cnn_has_the_parameters_of_its_layers():
    convolutions = 25 * (1 * 128 + 128 * 128 + 128 * 128) + 3 * 2 * 128
    dense = 7 * 7 * 128 * 1024 + 2 * 1024 + 1024 * 10 + 10
    assert parameters(TiboCNN()) == convolutions + dense
    # SVHN: three channels, 32 -> 16 -> 8
    assert parameters(TiboCNN(3, size=32)) == convolutions + 25 * 2 * 128 + dense + (8 * 8 - 7 * 7) * 128 * 1024


def test_tibo_transfer_cnn_has_the_layers_of_appendix_b():
    assert parameters(TiboTransferCNN()) == 9 * 32 + 32 + 9 * 32 * 64 + 64 + 64 * 12 * 12 * 128 + 128 + 128 * 10 + 10
    torch.manual_seed(0)
    net, x = TiboTransferCNN(size=12, width=3, hidden=7).eval(), torch.rand(4, 1, 12, 12)
    weighted = torch.nn.Conv2d | torch.nn.Linear
    first, second, dense, last = (layer for layer in net.modules() if isinstance(layer, weighted))
    assert [layer.p for layer in net.modules() if isinstance(layer, torch.nn.Dropout)] == [0.25, 0.5]
    features = F.max_pool2d(F.relu(second(F.relu(first(x)))), 2).flatten(1)
    torch.testing.assert_close(net(x), last(F.relu(dense(features))), rtol=0, atol=0)


def test_robey_cnn_has_the_parameters_of_its_layers():
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128)
    biases = 32 + 64 + 128
    dense = 6 * 6 * 128 * 128 + 128 + 128 * 10 + 10  # 32 -> 30 -> 28 -> 14 -> 12 -> 6
    assert parameters(RobeyCNN()) == convolutions + biases + dense
    assert parameters(RobeyCNN(batch_norm=True)) == convolutions + 2 * biases + dense
    assert parameters(RobeyCNN(size=64)) == convolutions + biases + dense + (14 * 14 - 6 * 6) * 128 * 128


@pytest.mark.parametrize("batch_norm", [False, True])
def test_robey_cnn_has_the_layers_of_the_paper_in_their_order(batch_norm):
    torch.manual_seed(0)
    net, x = RobeyCNN(batch_norm=batch_norm).eval(), torch.rand(4, 3, 32, 32)
    weighted = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    assert [layer.weight.shape[0] for layer in weighted] == [32, 64, 128, 128, 10]
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(norms) == (3 if batch_norm else 0)
    assert [layer.p for layer in net.modules() if isinstance(layer, torch.nn.Dropout)] == [0.25, 0.5]
    # as printed: c32-3, c64-3, p2, c128-3, p2, flat, fc128, fc10, ReLU after each convolution
    features = x
    for number, layer in enumerate(weighted[:3]):
        features = layer(features)
        features = F.relu(norms[number](features) if batch_norm else features)
        features = F.max_pool2d(features, 2) if number else features
    logits = weighted[4](F.relu(weighted[3](features.flatten(1))))
    torch.testing.assert_close(net(x), logits, rtol=0, atol=0)


def test_lenet_has_the_parameters_of_the_common_sizes():
    assert parameters(LeNet(1, size=28)) == 431_080
    assert LeNet(1, size=28).encoder(torch.rand(2, 1, 28, 28)).shape == (2, 500)


def test_resnet20_has_the_parameters_of_option_a():
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert parameters(ResNet20()) == convolutions + norms + 64 * 10 + 10 == 269_722
    # option B would only add two projections with their norms
    assert parameters(ResNet20()) + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64) == 272_474


def test_resnet20_has_twenty_layers_and_three_resolutions():
    net = ResNet20()
    weighted = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == 20
    sizes = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[1:])))
    net(torch.rand(2, 3, 32, 32))
    assert sizes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


@pytest.mark.parametrize("size", [6, 7])
def test_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros(size):
    block = BasicBlock(2, 4, stride=2)
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.rand(3, 2, size, size)
    y = block(x)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert y.shape[1] == 4 and not y[:, 2:].any()


def test_resnet20_starts_with_variance_two_over_fan_in():
    torch.manual_seed(0)
    for module in ResNet20().modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = 9 * module.in_channels
            # four standard errors of a sample variance of normals
            slack = 4 * math.sqrt(2 / module.weight.numel())
            assert module.weight.var().item() * fan_in / 2 == pytest.approx(1, abs=slack)


@pytest.mark.parametrize("make, shape, classes", SMALL)
def test_logits_have_their_shape_and_every_parameter_and_pixel_a_gradient(make, shape, classes):
    torch.manual_seed(0)
    net = make()
    x = torch.rand(6, *shape, requires_grad=True)
    logits = net(x)
    assert logits.shape == (6, classes) and logits.dtype == torch.float32
    F.cross_entropy(logits, torch.arange(6) % classes).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert sum(p.grad.abs().sum().item() > 0 for p in net.parameters()) == len(list(net.parameters()))
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("make, shape, classes", SMALL)
def test_in_eval_mode_a_row_depends_on_its_own_image_only(make, shape, classes):
    torch.manual_seed(0)
    net = make().double().eval()
    x = torch.rand(5, *shape, dtype=torch.float64)
    assert net(x).dtype == torch.float64
    torch.testing.assert_close(torch.cat([net(image[None]) for image in x]), net(x))
    assert net(x[:0]).shape == (0, classes)


def test_logits_are_not_a_softmax():
    torch.manual_seed(0)
    for make, shape, _ in SMALL:
        logits = make().eval()(torch.rand(4, *shape))
        assert not torch.allclose(logits.sum(dim=1), torch.ones(4))


def test_tibo_cnn_applies_its_leaky_slope():
    slopes = [m.negative_slope for m in TiboCNN(width=2, hidden=2).modules() if isinstance(m, torch.nn.LeakyReLU)]
    assert slopes == [0.1] * 4


def test_small_cnn_learns_the_digits_in_seconds():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels)
    torch.manual_seed(0)
    net = SmallCNN(size=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(4):
        for rows in torch.randperm(1200).split(50):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        assert (net(x[1200:]).argmax(1) == y[1200:]).float().mean() > 0.85


def test_build_takes_every_name_and_passes_arguments_on():
    assert NAMES == ("tibo-cnn", "tibo-transfer-cnn", "robey-cnn", "lenet", "resnet20", "resnet50", "small-cnn")
    nets = [build(name, in_channels=2, classes=3) for name in NAMES]
    assert [type(net) for net in nets] == [TiboCNN, TiboTransferCNN, RobeyCNN, LeNet, ResNet20, ResNet50, SmallCNN]
    assert build("small-cnn", size=8, classes=3)(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_build_names_the_choices_for_an_unknown_name():
    with pytest.raises(ValueError, match="tibo-cnn, .*, small-cnn, got 'vgg'"):
        build("vgg")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TiboCNN(width=0), "width: expected an integer above 0, got 0"),
        (lambda: TiboCNN(hidden=2.5), "hidden: expected an integer above 0, got 2.5"),
        (lambda: TiboCNN(size=3), "size: expected at least .*2 pixels .* got 3"),
        (lambda: ResNet20(classes=-1), "classes: expected an integer above 0, got -1"),
        (lambda: RobeyCNN(width=0), "width: expected an integer above 0, got 0"),
        (lambda: RobeyCNN(size=11), "size: expected at least 12 pixels, got 11"),
        (
            lambda: RobeyCNN(width=1)(torch.rand(2, 3, 28, 28)),
            r"x: expected images \[B, 3, 32, 32\], got \[2, 3, 28, 28\]",
        ),
        (lambda: LeNet(classes=1.5), "classes: expected an integer above 0, got 1.5"),
        (lambda: LeNet(size=15), "size: expected at least 16 pixels, got 15"),
        (lambda: LeNet()(torch.rand(3, 32, 32)), r"x: expected images \[B, 3, 32, 32\], got \[3, 32, 32\]"),
        (lambda: ResNet50(in_channels=None), "in_channels: expected an integer above 0, got None"),
        (lambda: SmallCNN(in_channels="1"), "in_channels: expected an integer above 0, got '1'"),
        (lambda: SmallCNN(size=8)(torch.rand(2, 1, 28, 28)), r"\[B, 1, 8, 8\], got \[2, 1, 28, 28\]"),
        (lambda: TiboCNN(size=8, width=2, hidden=2)(torch.rand(2, 64)), r"\[B, 1, 8, 8\], got \[2, 64\]"),
    ],
)
def test_errors_name_the_argument_and_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
