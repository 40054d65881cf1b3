"""The names, the settings and the peers of the attacks that users know by name."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from python_tests.attacks.minimal_norm import distance, small_net
from robustperf import margins
from robustperf.attacks import APGD, DDN, FAB, FMN, PDPGD, SigmaZero, Square, SuperDeepFool
from robustperf.attacks.named import attacks_of


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_names(norm):
    text = "ddn(steps=9), fmn, fab(classes=1), apgd(search=7), pdpgd, superdeepfool, sigma_zero, square(steps=20)"
    ball = math.inf if norm == math.inf else 2.0
    expected = [DDN(steps=9), FMN(norm), FAB(norm, classes=1), APGD(ball, search=7), PDPGD(norm), SuperDeepFool()]
    assert attacks_of(text, norm) == [*expected, SigmaZero(), Square(steps=20)]
    assert attacks_of("fmn(1, steps=4), fab(norm=inf)", norm) == [FMN(1, steps=4), FAB(math.inf)]


def test_margins_of_named_attacks():
    net, x, labels = small_net()
    text = "ddn(steps=10), fab(steps=3), superdeepfool(steps=5), apgd(steps=5, search=2)"
    found = margins(net, x, attacks=text)
    assert found.attacks == ("DDN", "FAB", "SuperDeepFool", "APGD") and found.found.all()
    alone = margins(net, x, attacks="fab(steps=3)")
    assert (found.distance <= alone.distance * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (DDN, {"steps": 0}, "steps: expected an integer above 0, got 0"),
        (DDN, {"gamma": 1.0}, r"gamma: expected a number in \(0, 1\), got 1.0"),
        (DDN, {"radius": 0}, "radius: expected a finite number above 0"),
        (DDN, {"loss": "ce"}, "loss: expected one of gap, dlr, cross_entropy, got 'ce'"),
        (FMN, {"norm": 3}, "norm: expected 1, 2 or inf, got 3"),
        (FMN, {"last_gamma": 0}, "last_gamma: "),
        (FMN, {"step": math.nan}, "step: "),
        (FAB, {"norm": 0}, "norm: expected 1, 2 or inf, got 0"),
        (FAB, {"alpha": 1.5}, r"alpha: expected a number in \[0, 1\], got 1.5"),
        (FAB, {"eta": 0.9}, "eta: "),
        (FAB, {"beta": 1}, "beta: "),
        (FAB, {"classes": 0}, "classes: "),
        (FAB, {"restarts": 0}, "restarts: "),
        (APGD, {"norm": 1}, "norm: expected 2 or inf, got 1"),
        (APGD, {"eps": 0}, "eps: "),
        (APGD, {"targets": -1}, "targets: expected an integer >= 0, got -1"),
        (APGD, {"search": 1.5}, "search: "),
        (APGD, {"rho": 0}, "rho: "),
        (APGD, {"targets": 2, "loss": "cross_entropy"}, "loss: expected gap or dlr with targets, got 'cross_entropy'"),
        (PDPGD, {"average": 1}, r"average: expected a number in \[0, 1\), got 1"),
        (PDPGD, {"step_decay": 2}, "step_decay: "),
        (PDPGD, {"ratio": 0}, "ratio: "),
        (SuperDeepFool, {"overshoot": -0.1}, "overshoot: "),
        (SuperDeepFool, {"classes": True}, "classes: "),
        (SigmaZero, {"threshold": 1.5}, "threshold: "),
        (SigmaZero, {"sigma": 0}, "sigma: "),
        (Square, {"area": 0}, "area: "),
        (Square, {"eps": math.inf}, "eps: "),
    ],
)
def test_wrong_settings(kind, arguments, match):
    with pytest.raises(ValueError, match=match):
        kind(**arguments)


@pytest.fixture(scope="module")
def digits():
    """(a network trained on 8 × 8 digits, 60 of them, their labels), float32."""
    images, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[:1500]), y[:1500]).backward()
        optimizer.step()
    net.requires_grad_(False)
    x = images[1500:1560]
    return net, x, net(x).argmax(1)


@pytest.mark.parametrize("name", ["ddn", "fmn-1", "fmn-2", "fmn-inf"])
def test_as_near_as_foolbox(digits, name):
    """At the same settings the mean distance is at most 5 % above."""
    foolbox = pytest.importorskip("foolbox", reason="the peer is in the extra bench")
    net, x, labels = digits
    peers = {
        "ddn": (foolbox.attacks.DDNAttack(steps=60), DDN(steps=60)),
        "fmn-1": (foolbox.attacks.L1FMNAttack(steps=60), FMN(norm=1, steps=60)),
        "fmn-2": (foolbox.attacks.L2FMNAttack(steps=60), FMN(steps=60)),
        "fmn-inf": (foolbox.attacks.LInfFMNAttack(steps=60), FMN(norm=math.inf, steps=60)),
    }
    peer, attack = peers[name]
    norm = getattr(attack, "norm", 2.0)
    model = foolbox.PyTorchModel(net.eval(), bounds=(0, 1))
    theirs = peer(model, x, labels, epsilons=None)[0]
    crossed = net(theirs).argmax(1) != labels
    ours = distance(attack(net, x, labels), x, norm)
    assert crossed.float().mean() > 0.4 and ours.isfinite().float().mean() > 0.95
    length, crossed = torch.linalg.vector_norm(theirs - x, norm, dim=1), crossed & ours.isfinite()
    assert ours[crossed].mean() <= 1.05 * length[crossed].mean()


def test_the_attacks_agree_on_a_trained_network(digits):
    """In L2 the margins after the line search are within 10 % of the nearest of all, on average; APGD's 20 %."""
    net, x, _ = digits
    attacks = [DDN(steps=60), FMN(steps=60), FAB(steps=15), SuperDeepFool(), PDPGD(steps=150)]
    attacks.append(APGD(norm=2, steps=20, search=6))
    found = torch.stack([margins(net, x[:30], attacks=attack).distance for attack in attacks])
    ratio = (found / found.amin(0)).mean(1)
    assert (ratio[:-1] < 1.1).all() and ratio[-1] < 1.2, ratio
