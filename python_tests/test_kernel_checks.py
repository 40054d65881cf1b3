"""`sample`, a call and `draw` check each argument once; the documented way to write a kernel works."""

import doctest
from collections import Counter

import pytest
import torch

import robustperf as rp
from python_tests.support.kernels import Fade
from robustperf import check, ops
from robustperf.names import CORRUPTIONS
from robustperf.nuisance import (
    KERNELS,
    AugMix,
    BackgroundColour,
    Brightness,
    Compose,
    InBounds,
    L2Ball,
    LabelAware,
    OnManifold,
    Rotation,
)

INDEX = torch.tensor([7, 0, 2**40, 3])
ARGUMENTS = {"l1_ball": (0.5,), "l2_ball": (0.5,), "linf_ball": (0.5,), "mnist_c": ("fog",)}
GREY_ONLY = repr(BackgroundColour())
EVERY = [
    *(make(*ARGUMENTS.get(name, ())) for name, make in KERNELS.items()),
    *map(rp.nuisance.mnist_c, CORRUPTIONS),
    Compose([Rotation(), Brightness()]),
    Compose([Rotation(), AugMix(), Brightness()]),
    Brightness((0, 5)).normalised(),
    InBounds(L2Ball(0.5), (-1, 2)),
    InBounds(Brightness(), (-1, 2)),
    LabelAware(Brightness(), lambda x: torch.zeros(len(x), dtype=torch.int64)),
    OnManifold(torch.rand(5, 3, 28, 28), 50.0),
]
every_kernel = pytest.mark.parametrize("kernel", EVERY, ids=lambda each: repr(each).split(" at 0x")[0])


def images(kernel):
    channels = 1 if repr(kernel) == GREY_ONLY else 3
    return torch.rand(4, channels, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counts(monkeypatch):
    """The number of checks of each argument, and of scans over the values of integer and of real tensors."""
    counted, tensor, aminmax = Counter(), check.tensor, torch.Tensor.aminmax

    def counting_tensor(name, *arguments, **options):
        counted[name] += 1
        return tensor(name, *arguments, **options)

    def counting_aminmax(self, **options):
        if not options:
            counted["scan of x" if self.is_floating_point() else f"scan of {len(self)} integers"] += 1
        return aminmax(self, **options)

    monkeypatch.setattr(check, "tensor", counting_tensor)
    monkeypatch.setattr(torch.Tensor, "aminmax", counting_aminmax)
    return counted


@every_kernel
def test_draw_checks_each_argument_once(kernel, counts):
    x = images(kernel)
    kernel.draw(x, key=0, index=INDEX, draws=3)
    checks_pixels = counts.pop("scan of x", 0)  # in Python; compiled code checks them in its pass over the image
    assert checks_pixels <= 1 and counts["x"] == 1 + checks_pixels
    assert counts["index"] == counts["draw"] == 1
    assert counts["scan of 4 integers"] == counts["scan of 3 integers"] == 1


@every_kernel
def test_sample_checks_each_argument_once(kernel, counts):
    kernel.sample(0, INDEX, 3, shape=images(kernel).shape[1:])
    assert counts == {"index": 1, "draw": 1, "scan of 4 integers": 1, "scan of 3 integers": 1}


@every_kernel
def test_a_call_checks_each_argument_once(kernel, counts):
    x = images(kernel)
    delta = kernel.sample(0, INDEX, 3, shape=x.shape[1:])
    counts.clear()
    kernel(x, delta)
    checks_pixels = counts.pop("scan of x", 0)
    assert checks_pixels <= 1 and counts["delta"] == 1 and counts["x"] == 1 + checks_pixels


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": torch.rand(4, 28, 28)}, ValueError, r"x: expected shape \[B, C, H, W\], got \[4, 28, 28\]"),
        ({"x": torch.rand(4, 1, 8, 8).half()}, TypeError, "x: expected torch.float32"),
        ({"index": INDEX[:3]}, ValueError, r"index: expected shape \[4\], got \[3\]"),
        ({"index": INDEX.int()}, TypeError, "index: expected torch.int64"),
        ({"index": -INDEX}, ValueError, "index: expected"),
        ({"draw": torch.tensor([-1])}, ValueError, "draw: expected"),
        ({"draw": torch.tensor(1)}, ValueError, r"draw: expected shape \[K\], got \[\]"),
        ({"key": -1}, ValueError, "key: expected an integer"),
    ],
)
def test_the_operation_itself_still_checks_everything(change, error, message):
    arguments = {"x": torch.rand(4, 1, 8, 8), "key": 0, "index": INDEX, "draw": torch.arange(2)} | change
    with pytest.raises(error, match=message):
        ops.nuisance_draw(*arguments.values(), Rotation().program)
    if "x" not in change and change.get("index", INDEX).shape == INDEX.shape:
        with pytest.raises(error, match=message):
            ops.nuisance_sample(arguments["key"], arguments["index"], arguments["draw"], Rotation().program)


class HalfPrecision(Fade):
    def transform(self, x, delta, *, backend=None):
        return super().transform(x, delta).half()


def test_a_composition_checks_what_a_users_kernel_returns():
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(
        TypeError, match=r"^brightness.*, applied to the output of other kernels: G\(x, delta\): expected"
    ):
        Compose([HalfPrecision(), Brightness()]).draw(x, key=0, index=INDEX)


def test_the_documented_kernel_works():
    found = doctest.DocTestFinder(recurse=False).find(rp.Kernel, "Kernel", globs={})
    results = [doctest.DocTestRunner().run(test, clear_globs=False) for test in found]
    assert sum(result.attempted for result in results) >= 4 and not any(result.failed for result in results)
    documented = found[0].globs["shade"]
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(documented.draw(x, key=1, index=INDEX, draws=2), documented(x, documented.sample(1, INDEX, 2)))
    assert documented.radius_for(None).tolist() == [1.0] and documented.normalised().dim == 1
    with pytest.raises(ValueError, match=r"delta: .* expected values in \[-1, 1\], got 1.5 in component 0"):
        documented(x, torch.full((4, 1), 1.5))
    assert documented.project(torch.tensor([[-3.0], [0.5]])).tolist() == [[-1.0], [0.5]]
    loss = rp.training.MAT(documented, k=2)(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)),
        x,
        torch.tensor([0, 1, 2, 0]),
        key=0,
        index=INDEX,
    )
    assert loss.isfinite()
