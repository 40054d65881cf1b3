"""`wrap`: each convention of a model, compared with the same network written by hand."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import robustperf as rp

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


@dataclass
class Output:
    logits: torch.Tensor
    hidden_states: tuple = ()


class Returning(nn.Module):
    """A linear network of 12 values that returns `shape(logits)`."""

    def __init__(self, form, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.form = nn.Linear(12, classes), form

    def forward(self, x):
        return self.form(self.linear(x.flatten(1)))


def plain(x, network=None, mean=MEAN, std=STD):
    """The logits of the normalised images, in float64."""
    network = Returning(lambda z: z) if network is None else network
    x = (x.double() - torch.tensor(mean).double().view(-1, 1, 1)) / torch.tensor(std).double().view(-1, 1, 1)
    linear = network.linear
    return x.flatten(1) @ linear.weight.detach().double().T + linear.bias.detach().double()


@pytest.fixture
def x():
    return torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array, lambda v: torch.tensor(v).view(1, 3, 1, 1)])
def test_normalises_each_channel(x, kind):
    wrapped = rp.wrap(Returning(lambda z: z), mean=kind(MEAN), std=kind(STD))
    torch.testing.assert_close(wrapped(x).double(), plain(x))
    assert wrapped.mean == pytest.approx(MEAN) and wrapped.std == pytest.approx(STD)


def test_one_number_is_for_all_channels(x):
    wrapped = rp.wrap(Returning(lambda z: z), mean=0.5, std=STD)
    torch.testing.assert_close(wrapped(x).double(), plain(x, mean=(0.5,) * 3))
    torch.testing.assert_close(rp.wrap(Returning(lambda z: z), std=0.5)(x).double(), plain(x, None, (0.0,), (0.5,)))


def test_normalises_features():
    network = nn.Linear(2, 2)
    x = torch.rand(4, 2)
    expected = network((x - torch.tensor([0.1, 0.9])) / torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(rp.wrap(network, mean=[0.1, 0.9], std=[2, 4])(x), expected)


Named = namedtuple("Named", "logits aux")


@pytest.mark.parametrize(
    "form",
    [
        Output,
        lambda z: {"logits": z, "loss": z.sum()},
        lambda z: OrderedDict(only=z),
        lambda z: (z,),
        lambda z: [z],
        lambda z: Named(z, 2 * z),
    ],
)
def test_takes_logits_from_other_outputs(x, form):
    torch.testing.assert_close(rp.wrap(Returning(form), mean=MEAN, std=STD)(x).double(), plain(x))


def test_callable_selects_logits(x):
    wrapped = rp.wrap(Returning(lambda z: (2 * z, z)), mean=MEAN, std=STD, outputs=lambda output: output[1])
    torch.testing.assert_close(wrapped(x).double(), plain(x))


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        (lambda z: (z, z), TypeError, r"got tuple of Tensor \[5, 3\], Tensor \[5, 3\]; pass outputs="),
        (lambda z: {"boxes": z, "scores": z}, TypeError, "got dict with the keys boxes, scores"),
        (lambda z: Output(None), TypeError, "got Output"),
        (lambda z: None, TypeError, "got NoneType"),
        (lambda z: (), TypeError, "got tuple of nothing"),
        (lambda z: z.argmax(1), TypeError, "got torch.int64"),
        (lambda z: z[:, :, None], ValueError, r"expected shape \[5, C\].*got \[5, 3, 1\]"),
        (lambda z: z[:4], ValueError, r"got \[4, 3\]"),
    ],
)
def test_error_names_the_output(x, form, error, message):
    with pytest.raises(error, match=message):
        rp.wrap(Returning(form))(x)


def test_error_of_a_callable_names_what_it_returned(x):
    with pytest.raises(TypeError, match=r"outputs\(model\(x\)\): expected a tensor, got tuple"):
        rp.wrap(Returning(lambda z: (z, z)), outputs=lambda output: output)(x)


@pytest.mark.parametrize("form", [lambda z: z, lambda z: z[:, 0], lambda z: {"logits": z}])
def test_single_logit_becomes_two(x, form):
    logits = rp.wrap(Returning(form, classes=1))(x)
    z = Returning(lambda z: z, classes=1)(x)
    assert torch.equal(logits, torch.cat([torch.zeros(5, 1), z], 1))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], z.sigmoid())


def test_margin_of_a_binary_model_is_the_distance_to_its_hyperplane():
    network = nn.Linear(4, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, -1.0, 2.0, 0.5]]))
        network.bias.fill_(0.1)
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(2))
    z = (x - 0.5) / 0.25 @ network.weight.detach().T + network.bias.detach()
    exact = z[:, 0].abs() / (network.weight.detach().norm() / 0.25)
    found = rp.margins(rp.wrap(network, mean=0.5, std=0.25), x, attacks="bg", bounds=(-9, 9))
    torch.testing.assert_close(found.distance.float(), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("classes", [3, 2])
def test_log_of_probabilities_has_their_softmax(x, classes):
    network = Returning(lambda z: z.softmax(1), classes)
    logits = rp.wrap(network, outputs="probabilities")(x)
    torch.testing.assert_close(logits.softmax(1), network(x))
    assert (logits <= 0).all()


def test_single_probability_is_that_of_class_1(x):
    network = Returning(lambda z: z.sigmoid()[:, 0], classes=1)
    logits = rp.wrap(network, outputs="probabilities")(x)
    torch.testing.assert_close(logits.softmax(1)[:, 1], network(x))


def test_zero_probability_has_a_finite_logit_and_gradient():
    x = torch.tensor([[1.0, 0.0], [0.25, 0.75]], requires_grad=True)
    logits = rp.wrap(nn.Identity(), outputs="probabilities")(x)
    logits[:, 1].sum().backward()
    assert logits.isfinite().all() and x.grad.isfinite().all()
    assert x.grad[1, 1] == pytest.approx(1 / 0.75)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, 0.6]], "the sum 1.1"),
        ([[-0.5, 1.5]], "values from -0.5 to 1.5"),
        ([[2.0, 3.0]], "values from 2 to 3"),
    ],
)
def test_outputs_that_are_no_probabilities_are_an_error(values, message):
    with pytest.raises(ValueError, match=f"expected probabilities.*{message}"):
        rp.wrap(nn.Identity(), outputs="probabilities")(torch.tensor(values))


def test_single_output_that_is_no_probability_is_an_error():
    with pytest.raises(ValueError, match="expected probabilities.*values from -1 to 2"):
        rp.wrap(nn.Identity(), outputs="probabilities")(torch.tensor([[2.0]]))


def test_nan_probabilities_stay_nan():
    logits = rp.wrap(nn.Identity(), outputs="probabilities")(torch.tensor([[torch.nan, torch.nan], [0.5, 0.5]]))
    assert logits.isnan().any(1).tolist() == [True, False]


def test_nhwc_model_takes_channels_last(x):
    network = Returning(lambda z: z)
    wrapped = rp.wrap(lambda images: network(images.permute(0, 3, 1, 2)), mean=MEAN, std=STD, layout="nhwc")
    torch.testing.assert_close(wrapped(x).double(), plain(x))
    with pytest.raises(ValueError, match=r"x: expected shape \[B, C, H, W\], got \[2, 3\]"):
        rp.wrap(network, layout="nhwc")(torch.rand(2, 3))


def test_images_of_another_size_are_resized():
    network = Returning(lambda z: z)
    wrapped = rp.wrap(network, image_shape=(3, 2, 2))
    x = torch.rand(2, 3, 4, 4)
    small = rp.data.Dataset("x", x, torch.zeros(2, dtype=torch.int64), 1).resized(2).x
    torch.testing.assert_close(wrapped(x), network(small))
    assert torch.equal(wrapped(small), network(small))
    with pytest.raises(ValueError, match=r"x: expected shape \[B, 3, H, W\], got \[2, 1, 4, 4\]"):
        wrapped(x[:, :1])


def test_grey_images_are_not_broadcast_to_rgb():
    with pytest.raises(ValueError, match=r"expected 3 channels, as mean and std have, got shape \[2, 1, 2, 2\]"):
        rp.wrap(Returning(lambda z: z), mean=MEAN, std=STD)(torch.rand(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"std": 0.0}, ValueError, "std: expected numbers above 0"),
        ({"std": [0.1, -1.0]}, ValueError, "std: expected numbers above 0"),
        ({"mean": [0.1, 0.2], "std": [1, 2, 3]}, ValueError, "each of 3 channels, got 2 and 3"),
        ({"mean": [0.1, 0.2], "std": 1, "image_shape": (3, 2, 2)}, ValueError, "each of 3 channels, got 2 and 1"),
        ({"mean": "imagenet"}, TypeError, "mean: expected a number"),
        ({"mean": torch.nan}, ValueError, "mean: expected finite"),
        ({"mean": torch.zeros(3, 2, 2)}, ValueError, r"mean: .*got shape \[3, 2, 2\]"),
        ({"mean": []}, ValueError, "mean"),
        ({"outputs": "logit"}, ValueError, "outputs: expected one of .*or a callable, got 'logit'; did you mean"),
        ({"layout": "hwc"}, ValueError, "layout: expected one of nchw, nhwc"),
        ({"image_shape": (224, 224)}, ValueError, "image_shape"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rp.wrap(nn.Identity(), **arguments)


@pytest.mark.parametrize("model", ["resnet18", nn.Linear])
def test_model_must_be_callable(model):
    with pytest.raises(TypeError, match="model: expected a module or a callable, got"):
        rp.wrap(model)


def test_integer_images_are_an_error():
    with pytest.raises(TypeError, match="x: expected .* got torch.uint8"):
        rp.wrap(nn.Identity(), mean=0.5)(torch.zeros(2, 3, dtype=torch.uint8))


def test_state_dict_has_the_names_of_the_parameters_and_nothing_else():
    wrapped = rp.wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), mean=MEAN, std=STD)
    names = [*dict(wrapped.named_parameters()), *(name for name in dict(wrapped.named_buffers()) if name[0] != "_")]
    assert set(wrapped.state_dict()) == set(names)
    assert set(wrapped.state_dict()) == {f"module.{name}" for name in wrapped.module.state_dict()}


def test_weights_file_has_the_networks_own_names(tmp_path):
    network = rp.nets.build("small-cnn", size=8)
    path = tmp_path / "wrapped.safetensors"
    rp.nets.weights_file.save(path, rp.wrap(network, mean=0.5))
    weights, header = rp.nets.weights_file.read(path)
    assert weights.keys() == network.state_dict().keys()
    assert header == {}  # the architecture alone would be loaded without the normalisation
    other = rp.wrap(rp.nets.build("small-cnn", size=8), mean=0.5)
    loaded = rp.nets.weights_file.load(path, other)
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), rp.wrap(network, mean=0.5).eval()(x))


def test_modes_of_the_model_are_set_and_restored(x):
    wrapped = rp.wrap(nn.Sequential(nn.Dropout(), Returning(lambda z: z)), mean=MEAN, std=STD).train()
    found = rp.margins(wrapped, x, attacks="fgsm")
    torch.testing.assert_close(
        found.distance, rp.margins(rp.wrap(Returning(lambda z: z), mean=MEAN, std=STD), x, attacks="fgsm").distance
    )
    assert all(module.training for module in wrapped.modules())


def test_modules_of_a_callable_are_submodules(x):
    network = nn.Sequential(nn.Dropout(), Returning(lambda z: z))
    wrapped = rp.wrap(lambda images: network(images).softmax(1), outputs="probabilities")
    assert {id(p) for p in wrapped.parameters()} == {id(p) for p in network.parameters()}
    wrapped.eval()
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_another_dtype(x, dtype):
    wrapped = rp.wrap(Returning(lambda z: z), mean=MEAN, std=STD).to(dtype)
    assert wrapped(x).dtype == dtype
    network = Returning(lambda z: z).to(dtype)
    tolerance = {torch.float64: 1e-6, torch.float16: 2e-2, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(wrapped(x).double(), plain(x, network), rtol=tolerance, atol=tolerance)


def test_statistics_keep_their_precision_in_half_precision(x):
    wrapped = rp.wrap(nn.Flatten(), mean=MEAN, std=STD).half()
    expected = rp.wrap(nn.Flatten(), mean=MEAN, std=STD)(x)
    assert torch.equal(wrapped(x), expected)
    wrapped = rp.wrap(nn.Flatten(), mean=0.1)
    assert wrapped(x.double()).flatten()[0].item() == x.double().flatten()[0].item() - 0.1  # 0.1 of float64


def test_moves_to_another_device():
    wrapped = rp.wrap(nn.Flatten(), mean=MEAN, std=STD).to("meta")
    assert wrapped(torch.rand(2, 3, 2, 2, device="meta")).device.type == "meta"


def test_gradient_is_that_of_the_images(x):
    wrapped = rp.wrap(Returning(lambda z: z).double(), mean=MEAN, std=STD)
    assert torch.autograd.gradcheck(wrapped, x[:2].double().requires_grad_())


def test_copy_is_independent(x):
    wrapped = rp.wrap(Returning(Output), mean=MEAN, std=STD)
    copied = copy.deepcopy(wrapped)
    with torch.no_grad():
        copied.module.linear.weight.zero_()
    torch.testing.assert_close(wrapped(x).double(), plain(x))


def test_fit_and_evaluate_train_through_the_wrapper():
    data = rp.data.load("digits", "train").limit(320)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    wrapped = rp.wrap(nn.Sequential(network, _Named()), mean=0.5, std=0.5)
    before = rp.training.evaluate(wrapped, data).top(1)
    rp.training.fit(wrapped, rp.training.ERM(), data, epochs=5, batch_size=32, optimizer="adam", lr=1e-2,
                    validation=None, progress=False)  # fmt: skip
    assert rp.training.evaluate(wrapped, data).top(1) > max(0.8, before)


class _Named(nn.Module):
    def forward(self, z):
        return {"logits": z}


def test_unwrapped_outputs_point_to_wrap(x):
    with pytest.raises(TypeError, match=r"model\(x\): expected a tensor, got Output; robustperf.wrap"):
        rp.margins(Returning(Output), x)
    with pytest.raises(ValueError, match=r"at least two classes, got shape \[5, 1\]; robustperf.wrap"):
        rp.margins(Returning(lambda z: z, classes=1), x)
