"""The losses that attacks ascend, against their definition and central differences."""

import pytest
import torch

from robustperf import ops
from robustperf.attacks import FGSM, PGD
from robustperf.attacks.losses import LOSSES, loss_gradient, loss_of, per_sample


def by_definition(logits, labels, loss):
    """The losses, a point at a time."""
    values = []
    for z, y in zip(logits, labels, strict=True):
        gap = max(z[j] for j in range(len(z)) if j != y) - z[y]
        first, _, third, *_ = sorted(z.tolist(), reverse=True)
        values.append({"gap": gap, "dlr": gap / (first - third), "cross_entropy": -z.log_softmax(0)[y]}[loss])
    return torch.stack(values)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_gradient_against_central_differences(net, x, labels, loss):
    net.eval()
    gradient, gap, value, flat = loss_gradient(net, x, labels, loss)
    h = 1e-6
    for row, column in [(0, 0), (2, 3), (4, 4), (1, 2)]:
        ahead, behind = x.clone(), x.clone()
        ahead[:, 0, row, column] += h
        behind[:, 0, row, column] -= h
        with torch.no_grad():
            slope = (by_definition(net(ahead), labels, loss) - by_definition(net(behind), labels, loss)) / (2 * h)
        torch.testing.assert_close(gradient[:, 0, row, column], slope, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gap, ops.logit_gap(net(x).detach(), labels), rtol=0, atol=0)
    torch.testing.assert_close(value, by_definition(net(x).detach(), labels, loss), rtol=1e-9, atol=1e-12)
    assert gradient.shape == x.shape and not gradient.requires_grad and gradient.abs().max() > 1e-3
    assert flat.dtype == torch.bool and not flat.any()


@pytest.mark.parametrize("classes", [3, 4, 6])
def test_losses_of_a_target(classes):
    """z_t - z_y, for dlr over z_π1 - (z_π3 + z_π4) / 2: by hand."""
    logits = torch.randn(5, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels, target = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    for row in range(5):
        z, y, t = logits[row].tolist(), labels[row], target[row]
        ordered = sorted(z, reverse=True)
        fourth = ordered[3] if classes > 3 else ordered[2]
        gap = loss_of(logits, labels, "gap", target)[row].item()
        ratio = loss_of(logits, labels, "dlr", target)[row].item()
        assert gap == pytest.approx(z[t] - z[y])
        assert ratio == pytest.approx((z[t] - z[y]) / (ordered[0] - (ordered[2] + fourth) / 2))


def test_loss_gradient_is_a_sum_and_not_a_mean_over_the_batch(net, x, labels):
    net.eval()
    together, *_ = loss_gradient(net, x, labels)
    alone, *_ = loss_gradient(net, x[2:3], labels[2:3])
    torch.testing.assert_close(together[2:3], alone)


@pytest.mark.parametrize("make", [lambda **kwargs: FGSM(**kwargs), lambda **kwargs: PGD(steps=2, **kwargs)])
def test_the_difference_of_logits_ratio_needs_three_classes(net, x, make):
    net.eval()

    def two(images):
        return net(images)[:, :2]

    labels = two(x).argmax(1)
    with pytest.raises(ValueError, match="loss: dlr expected logits of at least three classes, got 2; gap takes two"):
        make(loss="dlr")(two, x, labels)
    assert not make(loss="gap")(two, x, labels).flat.any()
    with pytest.raises(ValueError, match="loss: expected one of gap, dlr, cross_entropy, got 'ce'"):
        make(loss="ce")


def test_per_sample():
    like = torch.zeros(3, 2, 4, 5, dtype=torch.float32)
    values = per_sample(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), like)
    assert values.shape == (3, 1, 1, 1) and values.dtype == torch.float32
