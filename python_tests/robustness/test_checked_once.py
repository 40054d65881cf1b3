"""The images of a call are scanned for wrong pixels once, however many attacks and batches there are."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robustperf import closest_boundary, line_search, margins
from robustperf.attacks import BG, FGSM, PGD


class Scans(TorchDispatchMode):
    """Counts the values of some tensors that `aminmax`, by which `check.images` scans, reads."""

    def __init__(self, *tensors):
        super().__init__()
        self.read = {tensor.untyped_storage().data_ptr(): 0 for tensor in tensors}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.aminmax.default:
            place = args[0].untyped_storage().data_ptr()
            if place in self.read:
                self.read[place] += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch_size", [7, 100])
def test_margins(net, x, batch_size):
    with Scans(x) as scans:
        found = margins(net, x, attacks=[FGSM(), PGD(steps=3), PGD(norm=2, steps=3), BG()], batch_size=batch_size)
    assert len(found) == 30 and list(scans.read.values()) == [x.numel()]


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3, early_stop=True), BG(steps=2)], ids=repr)
def test_attacks(net, x, attack):
    labels = net(x).argmax(1)
    with Scans(x) as scans:
        attack(net, x, labels)
    assert list(scans.read.values()) == [x.numel()]


def test_boundary(net, x):
    candidates = torch.rand(3, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    with Scans(x, candidates) as scans:
        closest_boundary(net, x, candidates, bounds=(0, 1))
    assert list(scans.read.values()) == [x.numel(), candidates.numel()]
    with Scans(x, candidates) as scans:
        line_search(net, x, candidates[1])
    assert list(scans.read.values()) == [x.numel(), x.numel()]
