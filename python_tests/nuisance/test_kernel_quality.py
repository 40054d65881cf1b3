"""The figures of a kernel's quality against closed forms and scipy's energy distance."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from python_tests.support.learned import images, kernel
from robustperf.data import Dataset
from robustperf.nuisance import KernelQuality, ModuleKernel
from robustperf.nuisance.learned.quality import energy_distance

A, B = 0.3 * images(30, size=8), 0.5 + 0.5 * images(20, size=8, seed=1)
LABELS = torch.arange(30) % 2


def brighter(x, delta):
    """x + 0.5 + 0.1 delta_1."""
    return x + 0.5 + 0.1 * delta[:, :1, None, None]


def dark_or_bright(x):
    """Logits whose label is 1 for images brighter than 0.4."""
    mean = x.mean((1, 2, 3))
    return torch.stack([0.4 - mean, mean - 0.4], 1)


def brightness(x):
    return 255 * x.double().mean((1, 2, 3))


def test_the_energy_distance_is_scipys_squared():
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=40), generator.normal(1, 2, size=30)
    found = energy_distance(torch.from_numpy(one)[:, None], torch.from_numpy(other)[:, None])
    assert found == pytest.approx(scipy.stats.energy_distance(one, other) ** 2, rel=1e-12)
    x, y = torch.randn(6, 3), torch.randn(4, 3)
    pairs = [[(u - v).norm().item() for u in left for v in right] for left, right in ((x, y), (x, x), (y, y))]
    by_hand = 2 * np.mean(pairs[0]) - np.mean(pairs[1]) - np.mean(pairs[2])
    assert energy_distance(x, y) == pytest.approx(by_hand, rel=1e-6)
    assert energy_distance(x, x) == 0


def test_the_figures_in_closed_form():
    made = ModuleKernel(brighter, dim=2)
    data = Dataset("dark", A, LABELS, 2)
    found = made.quality(data, B, classifier=dark_or_bright, key=3, batch_size=7)
    delta = made.sample(3, torch.arange(30), 2)
    drawn = A + 0.5 + 0.1 * delta[..., :1, None, None]
    assert isinstance(found, KernelQuality) and found.images == (30, 20)
    assert found.brightness == pytest.approx(brightness(drawn[0]).mean().item(), rel=1e-6)
    assert found.brightness_a == pytest.approx(brightness(A).mean().item(), rel=1e-6)
    assert found.brightness_b == pytest.approx(brightness(B).mean().item(), rel=1e-6)
    for value, x in ((found.brightness_distance, drawn[0]), (found.brightness_distance_before, A)):
        expected = scipy.stats.energy_distance(brightness(x).numpy(), brightness(B).numpy()) ** 2
        assert value == pytest.approx(expected, rel=1e-4)
    assert found.brightness_distance < found.brightness_distance_before / 5
    # every A is dark, label 0, and every G(A) and B bright, label 1
    assert found.label_kept == 0.5 and found.label_before == 0.5
    expected = energy_distance(dark_or_bright(A), dark_or_bright(B))
    assert found.feature_distance_before == pytest.approx(expected, rel=1e-4)
    assert found.feature_distance < found.feature_distance_before / 5
    assert found.spread == pytest.approx((drawn[0] - drawn[1]).abs().mean().item(), rel=1e-5)


def test_without_labels_the_classifiers_own_are_kept():
    found = ModuleKernel(brighter).quality(A, B, classifier=dark_or_bright)
    assert found.label_kept == 0 and found.label_before == 1
    same = ModuleKernel(lambda x, delta: x).quality(A, B, classifier=dark_or_bright)
    assert same.label_kept == 1 and same.spread == 0
    assert same.brightness_distance == pytest.approx(same.brightness_distance_before)


def test_without_a_classifier_and_with_a_limit():
    found = ModuleKernel(brighter).quality(A, B, limit=10)
    assert math.isnan(found.label_kept) and math.isnan(found.feature_distance) and found.images == (10, 10)
    assert found.brightness_a == pytest.approx(brightness(A[::3]).mean().item(), rel=1e-6)  # evenly spaced
    assert "label" not in repr(found) and "brightness distance=" in repr(found)
    assert kernel().quality(A, B).brightness > 0


def test_data_sets_that_are_read_from_disk():
    class Read(torch.utils.data.Dataset):
        def __len__(self):
            return len(A)

        def __getitem__(self, place):
            return A[place]

    assert ModuleKernel(brighter).quality(Read(), B) == ModuleKernel(brighter).quality(A, B)


@pytest.mark.parametrize("arguments, message", [
    ((A[:, :1], B), r"b: expected images of the kernel's shape \[1, 8, 8\], got \[3, 8, 8\]"),
    ((A, B + 1), r"b: expected pixels within \[0, 1\]"),
    ((A, B[:0]), "b: expected images, got none"),
])  # fmt: skip
def test_domains_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModuleKernel(brighter).quality(*arguments)
    with pytest.raises(ValueError, match="limit: expected an integer above 0"):
        ModuleKernel(brighter).quality(A, B, limit=0)
