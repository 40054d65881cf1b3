"""What makes margins doubtful is counted, warned about once, saved and described: on models that mislead attacks."""

import math
import warnings

import pytest
import torch
from torch import nn

from robustperf import MarginCurve, margins, plot
from robustperf.attacks import BG, FGSM, PGD, Attack
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.margin_run import load_margins, save_margins
from robustperf.robustness.margins import Margins

PUBLISHED = [FGSM(), PGD(norm=2), BG()]


@pytest.fixture
def x():
    return torch.rand(32, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def found_by(model, x, attacks, match=None, **arguments):
    """The margins, with a warning that matches or none."""
    if match is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return margins(model, x, attacks=attacks, **arguments)
    with pytest.warns(RuntimeWarning, match=match) as caught:
        found = margins(model, x, attacks=attacks, batch_size=8, **arguments)
    assert len(caught) == 1  # of all batches and all signs
    return found


class Nearby(Attack):
    """An attack whose points are given."""

    def __init__(self, point, gap=None):
        self.point, self.gap = point, gap

    def run(self, problem):
        point = self.point[problem.index]
        return point, problem.gap(point)


def test_nothing_to_report(net, x):
    found = found_by(net, x, PUBLISHED)
    reported = found.diagnostics
    assert reported == Diagnostics(points=32, flat={"FGSM": 0, "PGD": 0, "BG": 0}, repeated=8)
    assert not reported.messages and not reported.captions and not any(reported.fractions.values())


@pytest.mark.parametrize("attack", [FGSM(), PGD(norm=2), PGD(), FGSM(loss="dlr"), PGD(norm=2, loss="dlr")], ids=repr)
@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_of_the_logits_has_no_effect(net, x, attack, scale, dtype):
    net, x = net.to(dtype), x.to(dtype)
    plain = margins(net, x, attacks=[attack])
    scaled = margins(lambda images: net(images) * scale, x, attacks=[attack])
    assert torch.equal(scaled.found, plain.found) and plain.found.any()
    some = plain.found
    torch.testing.assert_close(scaled.distance[some], plain.distance[some], rtol=1e-4, atol=1e-6)
    assert not sum(scaled.diagnostics.flat.values())


def test_a_cross_entropy_that_is_zero_is_reported(net, x):
    attacks = [FGSM(loss="cross_entropy")]
    found = found_by(lambda images: net(images.float().double()) * 1e6, x, attacks, "FGSM had a zero")
    assert found.diagnostics.flat["FGSM"] > 16


def test_probabilities_are_reported(net, x):
    found = found_by(lambda images: (200 * net(images)).softmax(1), x, PUBLISHED, "look like probabilities at 100.00%")
    assert found.diagnostics.probabilities == 32 and found.diagnostics.fractions["probabilities"] == 1
    assert any("probabilities" in caption for caption in found.diagnostics.captions)


def test_a_quantised_input_is_reported(net, x):
    found = found_by(
        lambda images: net((images * 8).round() / 8),
        x,
        PUBLISHED,
        "FGSM had a zero or non-finite gradient at 100.00% of the points.*BG had",
    )
    flat = found.diagnostics.flat
    # a random start may have crossed already; then no direction is needed
    assert flat["FGSM"] == flat["BG"] == 32 and 10 < flat["PGD"] < 32


def test_a_noisy_model_is_reported(net, x):
    noise = torch.Generator().manual_seed(3)

    def model(images):
        return net(images + 0.1 * torch.randn(images.shape, generator=noise, dtype=images.dtype))

    found = found_by(model, x, [BG()], "of 8 points the label of x or of its adversarial example changed")
    assert found.diagnostics.repeated == 8 and 1 <= found.diagnostics.changed <= 8


def test_noise_at_x_is_reported_though_the_adversarial_example_keeps_its_label(x):
    """A dark image, such as x, has the label 0 or 1 at random. A bright one has 2."""
    coin = torch.Generator().manual_seed(3)

    def model(images):
        brightness = images.flatten(1).mean(1)
        toss = torch.randint(0, 2, (len(images),), generator=coin)
        side = nn.functional.one_hot(toss, 2).to(images)
        return torch.cat([side, 1 + 10 * (brightness[:, None] - 0.6)], 1)

    found = found_by(model, 0.5 * x, [Nearby(torch.full_like(x, 0.75))], "of 8 points the label of x or of its adv")
    assert 1 <= found.diagnostics.changed <= 8


def test_labels_are_no_logits(net, x):
    def one_hot(images):
        return nn.functional.one_hot(net(images).argmax(1), 4).double()

    for attack in PUBLISHED:
        with pytest.raises(RuntimeError, match=r"model\(x\): expected logits with a gradient in x.*detach"):
            margins(one_hot, x, attacks=[attack])
        with pytest.raises(RuntimeError, match=r"model\(x\): expected logits with a gradient in x"):
            margins(lambda images: net(images.detach()), x, attacks=[attack])


def test_one_gradient_that_is_not_finite_costs_one_point(net, x):
    first = x[5].sum()

    def model(images):  # the square root's gradient at 0
        return net(images) + 0 * (images.flatten(1).sum(1, keepdim=True) - first).abs().sqrt()

    found = found_by(model, x, PUBLISHED, "FGSM had a zero or non-finite gradient at 3.12%")
    assert found.diagnostics.flat["FGSM"] == found.diagnostics.flat["BG"] == 1
    others = torch.arange(32) != 5
    expected = margins(net, x, attacks=PUBLISHED)
    torch.testing.assert_close(found.distance[others], expected.distance[others], rtol=1e-6, atol=1e-9)
    assert found.distance[5] >= expected.distance[5] * (1 - 1e-6)  # from PGD's random start, or inf


@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_infinite_logits(net, x, wrong):
    """An infinite logit is a gap of infinity; two equal ones leave no label."""
    labels = net(x).argmax(1)

    def model(images):
        z = net(images)
        place = labels[7] if wrong > 0 else (labels[7] + 1) % 4
        here = (images.flatten(1) == x[7].flatten()).all(1)
        return torch.where(here[:, None] & (torch.arange(4) == place), wrong, z)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = margins(model, x, attacks=PUBLISHED)
    expected = margins(net, x, attacks=PUBLISHED)
    others = torch.arange(32) != 7
    torch.testing.assert_close(found.distance[others], expected.distance[others], rtol=1e-6, atol=1e-9)
    assert found.distance[7] > 0 and not found.distance[7].isnan() and found.diagnostics.undefined == 0
    both = found_by(
        lambda images: torch.where(images[:, 0, 0, :1] == x[3, 0, 0, 0], math.inf, net(images)),
        x,
        PUBLISHED,
        "have NaN logits",
    )
    assert both.diagnostics.undefined == 1 and both.distance[3].isnan() and both.distance[4].isfinite()


def test_points_that_are_not_finite_are_not_searched(net, x):
    point = x.flip(0).clone()
    point[4, 0, 1, 1], point[9, 0, 0, 0] = math.nan, math.inf
    found = found_by(net, x, [Nearby(point), BG()], "Nearby had a zero or non-finite gradient at 6.25%")
    assert found.diagnostics.flat == {"Nearby": 2, "BG": 0} and found.found.all()
    assert (found.attack[[4, 9]] == 1).all()


def test_no_adversarial_example(net, x):
    found = found_by(net, x, [Nearby(x)], "no adversarial example was found for 100.00% of the points")
    assert found.diagnostics.missing == 32


def test_undercut():
    """Two boundaries at right angles: one attack finds only the far one."""
    x = torch.full((40, 2), 0.2, dtype=torch.float64)

    def model(images):  # another label beyond 0.9 in the first value, or beyond 0.4 in the second
        z = images[:, 0] - 0.9 + 9 * (images[:, 1] > 0.4)
        return torch.stack([-z, z], 1)

    near = x.clone()
    near[:, 1] = 0.6
    found = found_by(model, x, [BG(), Nearby(near)], "100.00% of 10 points found by other attacks are more than 10% ")
    assert found.diagnostics.compared == found.diagnostics.undercut == 10
    # one that is hardly nearer than the published ones undercuts nothing: the line to FGSM's point ends at 0.9
    same = x.clone()
    same[:, 0] = 0.95
    found = found_by(model, x, [Nearby(same), FGSM(eps=0.3), BG()])
    assert found.diagnostics.undercut == 0 and found.diagnostics.repeated == 10


def test_points_without_a_label_are_left_out_of_the_curve(net, x, tmp_path):
    def model(images):
        return net(images).masked_fill(images[:, 0, 0, :1] > 0.8, math.nan)

    inside = x[:, 0, 0, 0] <= 0.8
    found = found_by(model, x, [BG()], "NaN logits")
    curve = MarginCurve.from_margins(found)
    assert curve.count == int(inside.sum()) < 32 and any("left out" in note for note in curve.notes)
    text = plot.margin_curves({"net": curve}, tmp_path / "curve.png").legends[0].get_texts()[0].get_text()
    assert "NaN logits at" in text
    with pytest.raises(ValueError, match="at position"):
        MarginCurve.from_margins(found.distance, 3.0)
    nothing = found_by(lambda images: net(images) * math.nan, x, [BG()], "NaN logits")
    with pytest.raises(ValueError, match="NaN logits at all 32"):
        MarginCurve.from_margins(nothing)


def test_parts_add_up_and_are_saved(net, x, tmp_path):
    model = lambda images: (200 * net(images)).softmax(1)  # noqa: E731
    together = found_by(model, x, PUBLISHED, "probabilities")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [margins(model, x[rows], attacks=PUBLISHED, index=rows) for rows in torch.arange(32).split(7)]
    assert Margins.concatenate(parts).diagnostics == together.diagnostics
    save_margins(tmp_path / "margins.npz", together)
    assert load_margins(tmp_path / "margins.npz").diagnostics == together.diagnostics
    assert MarginCurve.from_margins(together).notes == together.diagnostics.captions
    assert Diagnostics.merge([]) == Diagnostics()
