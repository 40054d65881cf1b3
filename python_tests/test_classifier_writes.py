"""Models that write into their input get copies; images from inference mode."""

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.support.classifier import Wrapper
from robustperf.attacks import BG, FGSM, PGD
from robustperf.classifier import logits_of
from robustperf.training import MRT

IMAGES = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))


class InPlace(nn.Module):
    """Normalises its input in place."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x.sub_(0.5).div_(0.25))


class InPlaceUncounted(InPlace):
    """Through NumPy's view of the memory, which torch's count of in-place operations does not cover."""

    def forward(self, x):
        x.detach().numpy()[...] = (x.detach().numpy() - 0.5) / 0.25
        return self.net(x)


class OutOfPlace(InPlace):
    def forward(self, x):
        return self.net((x - 0.5) / 0.25)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: lambda x: net(x), lambda net: net.forward])
def test_a_model_that_writes_into_its_input_gets_copies(wrap):
    torch.manual_seed(0)
    net, plain, x = InPlace(), OutOfPlace(), torch.rand(20, 1, 4, 4)
    plain.load_state_dict(net.state_dict())
    before, y = x.clone(), plain(x).argmax(1)
    model = wrap(net)
    for _ in range(3):
        assert torch.equal(logits_of(model, x), plain(before)) and torch.equal(x, before)
    attacks = [FGSM(), PGD(norm=2, steps=5), BG()]
    found = rp.margins(model, x, attacks=attacks, keep_points=True)
    expected = rp.margins(plain, x, attacks=attacks, keep_points=True)
    torch.testing.assert_close(found.distance, expected.distance)
    torch.testing.assert_close(found.point, expected.point)
    kernel = rp.nuisance.Brightness(0.3)
    rho = rp.basic_robustness(model, x, kernel, samples=20).rho
    assert torch.equal(rho, rp.basic_robustness(plain, x, kernel, samples=20).rho) and torch.equal(x, before)
    loss = MRT(kernel, 3, weight=1.0)(model, x, y, key=0, index=torch.arange(20))
    torch.testing.assert_close(loss, MRT(kernel, 3, weight=1.0)(plain, x, y, key=0, index=torch.arange(20)))
    assert torch.equal(x, before) and loss.requires_grad


def test_a_model_that_writes_through_numpy_gets_copies():
    torch.manual_seed(0)
    net, plain, x = InPlaceUncounted(), OutOfPlace(), torch.rand(20, 1, 4, 4)
    plain.load_state_dict(net.state_dict())
    before = x.clone()
    for _ in range(3):
        torch.testing.assert_close(logits_of(net, x), plain(before))
        assert torch.equal(x, before)


def test_a_model_that_begins_to_write_is_an_error():
    calls = []

    def model(x):
        calls.append(1)
        return (x.mul_(2) if len(calls) > 1 else x).flatten(1)

    logits_of(model, IMAGES)
    with pytest.raises(RuntimeError, match="model: expected .* input unchanged, got one that wrote into x"):
        logits_of(model, IMAGES.clone())


def test_copies_where_writes_cannot_be_detected():
    class Unhashable(Wrapper):
        __hash__ = None

    torch.manual_seed(0)
    net, x = InPlace(), torch.rand(5, 1, 4, 4)
    before = x.clone()
    logits_of(Unhashable(net), x)
    assert torch.equal(x, before)
    with torch.inference_mode():
        inside = torch.rand(5, 1, 4, 4)
        before = inside.clone()
        logits_of(net, inside), logits_of(InPlace(), inside)
        assert torch.equal(inside, before)


@pytest.mark.parametrize("attack", [FGSM(), PGD(norm=2, steps=3), BG()], ids=["FGSM", "PGD", "BG"])
def test_images_from_inference_mode(attack):
    torch.manual_seed(0)
    net = OutOfPlace()
    with torch.inference_mode():
        x = torch.rand(6, 1, 4, 4)
    label = net(x.clone()).argmax(1)
    assert torch.equal(attack(net, x, label).point, attack(net, x.clone(), label).point)
    found = rp.margins(net, x, attacks=[attack], keep_points=True)
    assert torch.equal(found.distance, rp.margins(net, x.clone(), attacks=[attack]).distance)
    assert rp.closest_boundary(net, x, found.point[None].nan_to_num(0)).distance.shape == (6,)
    with torch.inference_mode():
        assert rp.basic_robustness(net, x, rp.nuisance.Brightness(0.3), samples=5).rho.shape == (6,)
