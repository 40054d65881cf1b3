"""ρ where it is known in closed form, against a plain loop over single draws, and what must not change it."""

import math

import pytest
import torch
from torch import nn

import robustperf as rp
from robustperf import basic_robustness
from robustperf.kernel import Kernel
from robustperf.nuisance import Brightness, Compose, L2Ball, LinfBall, Rotation
from robustperf.robustness.basic_robustness import interim_stages

INDEX = torch.tensor([7, 2**40, 0, 3, 12, 5, 2])
X = torch.rand(7, 1, 5, 6, generator=torch.Generator().manual_seed(0))
RADIUS = 0.2


def threshold(x):
    """Label 1 from grey 0.5 on."""
    return torch.stack([torch.zeros_like(x[:, 0, 0, 0]), x[:, 0, 0, 0] - 0.5], 1)


def truth(x):
    """ρ of `threshold` under noise uniform in ± RADIUS."""
    distance = (x.flatten().double() - 0.5).abs()
    return 0.5 + distance.clamp(max=RADIUS) / (2 * RADIUS)


GREYS = torch.linspace(0.25, 0.75, 3001)[:, None, None, None]


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Dropout(), nn.Linear(48, 5)).train()
    nn.init.zeros_(net[-1].bias)  # no label is everywhere
    return net


KERNELS = {"ball": L2Ball(2.0), "program": Compose([Rotation(180), Brightness(0.9)])}


@pytest.fixture(params=KERNELS)
def kernel(request):
    return KERNELS[request.param]


def labels_by_hand(net, kernel, samples, key=3):
    """[N] labels of the points and [samples, N] of their draws, image by image."""
    net.eval()
    with torch.no_grad():
        own = torch.stack([net(x[None]).argmax(1)[0] for x in X])
        drawn = [
            [
                net(kernel.draw(X[i : i + 1], key=key, index=INDEX[i : i + 1], draws=torch.tensor([d]))[0]).argmax()
                for i in range(len(X))
            ]
            for d in range(samples)
        ]
    net.train()
    return own, torch.tensor(drawn)


def test_rho_is_the_fraction_of_draws_that_keep_the_label(net, kernel):
    own, drawn = labels_by_hand(net, kernel, 23)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = basic_robustness(net, X, kernel, samples=23, key=3, index=INDEX, batch_size=4)
    assert torch.equal(found.label, own) and torch.equal(found.agreed, (drawn == own).sum(0))
    assert (found.draws == 23).all() and found.confidence == 0.95
    assert torch.equal(found.rho, (drawn == own).double().mean(0))
    assert 0 < found.rho.min() < found.rho.max()
    lower, upper = rp.robustness.clopper_pearson(found.agreed, found.draws, 0.95)
    assert torch.equal(found.lower, lower) and torch.equal(found.upper, upper)
    assert net.training and all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_it_stops_at_the_first_disagreement(net, kernel):
    own, drawn = labels_by_hand(net, kernel, 40)
    found = basic_robustness(net, X, kernel, samples=40, key=3, index=INDEX, until_disagreement=True)
    other = drawn != own
    first = torch.where(other.any(0), other.int().argmax(0) + 1, 40)
    assert torch.equal(found.draws, first) and torch.equal(found.agreed, first - other.any(0).long())
    assert 1 < first.unique().numel()


@pytest.mark.parametrize("rule", [{}, {"width": 0.3}, {"until_disagreement": True}])
def test_batches_and_processes_change_nothing(net, kernel, rule):
    def run(rows, batch_size):
        return basic_robustness(
            net, X[rows], kernel, samples=150, key=1, index=INDEX[rows], batch_size=batch_size, **rule
        )

    whole = run(torch.arange(7), 64)
    for batch_size in (1, 3, 1000):
        other = run(torch.arange(7), batch_size)
        assert torch.equal(whole.agreed, other.agreed) and torch.equal(whole.draws, other.draws)
    for rows in (torch.tensor([4, 0, 2]), torch.tensor([1, 6, 3, 5])):
        part = run(rows, 5)
        for name in ("rho", "lower", "upper", "agreed", "draws", "label"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
    assert rule or not torch.equal(
        run(torch.arange(7), 64).agreed, basic_robustness(net, X, kernel, samples=150, key=2, index=INDEX).agreed
    )


@pytest.mark.parametrize("rule", [{}, {"width": 0.12}, {"until_disagreement": True}])
def test_the_intervals_hold_the_truth(rule):
    found = basic_robustness(threshold, GREYS, LinfBall(RADIUS), samples=400, confidence=0.9, batch_size=1000, **rule)
    held = ((found.lower <= truth(GREYS)) & (truth(GREYS) <= found.upper)).double()
    certain = truth(GREYS) == 1
    assert held[certain].all() and (found.rho[certain] == 1).all()
    # five standard deviations of a fraction of 0.9
    assert held[~certain].mean() > 0.9 - 5 * math.sqrt(0.09 / int((~certain).sum()))
    # and they are not much wider than necessary
    assert held[~certain].mean() < (0.995 if rule else 0.95)
    if not rule:
        assert (found.rho - truth(GREYS)).abs().max() < 5 * 0.5 / math.sqrt(400)


def test_sampling_continues_until_the_interval_is_narrow():
    width = 0.12
    found = basic_robustness(threshold, GREYS, LinfBall(RADIUS), samples=4000, width=width, batch_size=3001)
    assert (found.upper - found.lower <= width).all()
    assert interim_stages(4000, width, 0.95)[:-1] == [32, 64, 128, 256, 512]
    assert found.draws.unique().tolist() == [64, 128, 256, 512]  # 32 would suffice for one analysis, not for all five
    short = basic_robustness(threshold, GREYS[1400:1500], LinfBall(RADIUS), samples=100, width=width, batch_size=3001)
    assert (short.upper - short.lower > width).all() and (short.draws == 100).all()


def test_stages_of_the_interim_analyses():
    assert interim_stages(1000, None, 0.95) == [1000]
    # half of 256 draws give an interval of 0.129, of 512 one of 0.090, below 0.17 at the level of any six analyses
    assert interim_stages(10**6, 0.17, 0.95) == interim_stages(2000, 0.17, 0.95) == [32, 64, 128, 256, 512]
    # 1 - 0.025^(1/n) for n = 32, 64: 0.109, 0.056
    assert interim_stages(300, 0.11, 0.95) == [32, 64, 128, 256, 300]
    assert interim_stages(256, 0.10, 0.95) == [64, 128, 256]
    assert interim_stages(20, 0.5, 0.95) == [20]


def test_a_constant_classifier_is_maximally_robust(kernel):
    def constant(x):
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    for rule in ({}, {"until_disagreement": True}):
        found = basic_robustness(constant, X, kernel, samples=9, **rule)
        assert (found.rho == 1).all() and (found.upper == 1).all() and (found.draws == 9).all()


class Nowhere(Kernel):
    """Exists where the first pixel is below one half."""

    def dim_for(self, shape):
        return 1

    def defined(self, x):
        return x[:, 0, 0, 0] < 0.5

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return torch.zeros(len(draws), len(index), 1)

    def transform(self, x, delta, *, backend=None):
        assert self.defined(x).all()
        return x[None].expand(delta.shape[0], *x.shape)


def test_where_the_kernel_does_not_exist(net):
    there = X[:, 0, 0, 0] < 0.5
    assert 0 < there.sum() < 7
    for rule in ({}, {"width": 0.5}, {"until_disagreement": True}):
        found = basic_robustness(net, X, Nowhere(), samples=40, **rule)
        for value in (found.rho, found.lower, found.upper):
            assert torch.equal(value.isnan(), ~there)
        assert (found.rho[there] == 1).all() and torch.equal(found.draws > 0, there)


def test_no_points_and_double(net):
    found = basic_robustness(net, X[:0], L2Ball(1))
    assert found.rho.shape == found.lower.shape == found.label.shape == (0,)
    assert basic_robustness(net.double(), X.double(), L2Ball(1), samples=2).rho.dtype == torch.float64


def test_errors(net):
    ball = L2Ball(1)
    for name, wrong in (
        ("samples", 0),
        ("samples", 1.5),
        ("samples", 2**32 + 1),
        ("batch_size", 0),
        ("confidence", 1),
        ("width", 0),
        ("width", 1),
        ("width", math.nan),
        ("key", -1),
        ("seed", -1),
    ):
        with pytest.raises((TypeError, ValueError), match=name):
            basic_robustness(net, X, ball, **{name: wrong})
    with pytest.raises(ValueError, match="width: expected None beside until_disagreement"):
        basic_robustness(net, X, ball, width=0.1, until_disagreement=True)
    with pytest.raises(TypeError, match="kernel: expected a Kernel, got float"):
        basic_robustness(net, X, 0.1)
    with pytest.raises(TypeError, match="model: expected a module or a callable, got str"):
        basic_robustness("net", X, ball)
    with pytest.raises(ValueError, match="x: expected finite pixels, got nan"):
        basic_robustness(net, X.log().sqrt(), ball)
    with pytest.raises(ValueError, match=r"x: expected shape \[N, C, H, W\]"):
        basic_robustness(net, X[0], ball)
    with pytest.raises(ValueError, match=r"index: expected shape \[7\], got \[6\]"):
        basic_robustness(net, X, ball, index=INDEX[:6])
    with pytest.raises(ValueError, match="NaN logits for 7 of 7 points, the first at .7, "):
        basic_robustness(lambda x: x.flatten(1).mul(torch.nan), X, ball, index=INDEX)
    # a model that is only sometimes no number
    with pytest.raises(ValueError, match="NaN logits"):
        basic_robustness(lambda x: (1 - x.flatten(1)).sqrt(), X.clamp(max=0.9), ball, samples=50)
