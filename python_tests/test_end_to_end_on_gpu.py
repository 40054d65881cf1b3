"""Margins, training and evaluation on a GPU against those on the CPU."""

import copy

import pytest
import torch

import robustperf as rp
from robustperf import nets
from robustperf.attacks import BG, FGSM, PGD
from robustperf.data import Dataset
from robustperf.nuisance import Brightness, Compose, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, evaluate, fit

NO_GPU = "cuda: there is no GPU that torch can use"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)]
KERNEL = Compose([Rotation(), Brightness()])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nets.SmallCNN(size=28).double().eval()


def images(count, seed=0):
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_margins_are_those_of_the_cpu(net):
    x, attacks = images(200), [FGSM(), PGD(steps=10), BG()]
    want = rp.margins(net, x, attacks=attacks, batch_size=32)
    got = rp.margins(copy.deepcopy(net).cuda(), x.cuda(), attacks=attacks, batch_size=32, keep_points=True)
    assert torch.equal(got.found, want.found)
    torch.testing.assert_close(got.distance, want.distance, rtol=1e-4, atol=1e-6)
    points = got.point[got.found]
    assert (net(points).argmax(1) != net(x[got.found]).argmax(1)).all()


@pytest.mark.parametrize(
    "objective",
    [ERM(), MRT(KERNEL), MRT(KERNEL, selection="batch"), MRT(KERNEL, chunk=3), MDA(KERNEL), MAT(KERNEL, 3)],
    ids=lambda o: f"{type(o).__name__}",
)
def test_a_loss_and_its_gradients_are_those_of_the_cpu(net, objective):
    x, y, index = images(16), torch.arange(16) % 10, torch.arange(16)
    found = {}
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(net).to(device)
        loss = objective(model, x.to(device), y.to(device), key=5, index=index.to(device))
        loss.backward()
        found[device] = [loss.detach().cpu(), *(parameter.grad.cpu() for parameter in model.parameters())]
    for got, want in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_a_compiled_selection_chooses_the_same(net):
    x, y, index = images(16).cuda(), torch.arange(16).cuda() % 10, torch.arange(16).cuda()
    want = MRT(KERNEL).worst(net.cuda(), x, y, key=5, index=index)
    for mode in ("default", "reduce-overhead"):
        objective = MRT(KERNEL, selection_compile=mode)
        for _ in range(3):
            assert torch.equal(objective.worst(net, x, y, key=5, index=index), want)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16", "fp16"])
def test_training_learns(mixed_precision, tmp_path):
    y = torch.arange(512) % 4
    x = 0.1 * torch.rand(512, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for label in range(4):  # a bright quarter
        top, left = 14 * (label // 2), 14 * (label % 2)
        x[y == label, :, top : top + 14, left : left + 14] += 0.6
    torch.manual_seed(0)
    net = nets.SmallCNN(size=28, classes=4)
    fitted = fit(
        net,
        MRT(Brightness(0.2), k=3),
        Dataset("quarters", x, y, 4),
        epochs=3,
        validation=None,
        optimizer="adam",
        mixed_precision=mixed_precision,
        out=tmp_path,
        progress=False,
    )
    assert next(net.parameters()).is_cuda and fitted.steps.isfinite().all()
    assert evaluate(net, Dataset("quarters", x, y, 4)).top(1) > 0.9
