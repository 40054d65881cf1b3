"""Objectives through DistributedDataParallel: two processes do to the weights what one does on the whole batch."""

import math

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import robustperf as rp
from python_tests.support import processes
from robustperf.attacks import PGD
from robustperf.nets import RobeyCNN
from robustperf.nuisance import Brightness, Compose, Rotation
from robustperf.training import MAT, MDA, MRT, AdversarialTraining

KEY, INDEX = 5, torch.tensor([4, 0, 2**33, 1, 9, 7, 3, 2])
Y = torch.tensor([2, 0, 1, 2, 1, 1, 0, 2])
X = torch.rand(8, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HALVES = slice(0, 4), slice(4, 8)
KERNEL = Compose([Rotation(), Brightness()])


class NanInOneDraw(rp.Kernel):
    """x plus a third of the draw index delta_1; NaN in draw 3 of sample 7."""

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return torch.stack([draws[:, None].expand(-1, len(index)), index.expand(len(draws), -1)], 2).float()

    def transform(self, x, delta, *, backend=None):
        nan = (delta == delta.new_tensor([3, 7])).all(2)
        return x + torch.where(nan, math.nan, delta[..., 0] / 3)[..., None, None, None]


OBJECTIVES = {
    "sample": MRT(KERNEL, 6), "sample-chunk": MRT(KERNEL, 6, chunk=4), "batch": MRT(KERNEL, 6, selection="batch"),
    "batch-chunk": MRT(KERNEL, 6, 0.5, "batch", chunk=1), "batch-nan": MRT(NanInOneDraw(), 4, selection="batch"),
    "mat": MAT(KERNEL, 3), "mda": MDA(KERNEL, 2), "adversarial": AdversarialTraining(PGD(steps=3)),
}  # fmt: skip


def network():
    """With dropout, whose masks belong to the samples."""
    torch.manual_seed(0)
    net = RobeyCNN(1, size=12, width=8, classes=3).double().train()
    net.head[-1].weight.data *= 10  # otherwise all draws have about the same loss
    return net


def step(objective, model, rows=slice(None)):
    """[the loss, the gradients in the parameters ...] of some of the samples."""
    loss = objective(model, X[rows], Y[rows], key=KEY, index=INDEX[rows])
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def run(folder):
    """One of the two processes: {name: step} into a file of its own."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    steps = {}
    for name, objective in OBJECTIVES.items():
        model, passes = DistributedDataParallel(network()), []
        model.register_forward_pre_hook(lambda *arguments, passes=passes: passes.append(arguments))
        steps[name] = step(objective, model, HALVES[rank])
        assert len(passes) == 1  # the wrapper expects a backward pass after each forward pass
    groups = [distributed.new_group([each]) for each in (0, 1)]
    alone = DistributedDataParallel(network(), process_group=groups[rank])
    steps["alone"] = step(OBJECTIVES["batch"], alone, HALVES[rank])
    torch.save(steps, f"{folder}/{rank}")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The results of each of two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    processes.on_two_processes(run, folder, log=folder / "log")
    return [torch.load(folder / str(rank)) for rank in (0, 1)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_compute_what_one_does(of_two, name):
    (loss, *gradients), (other_loss, *other_gradients) = (steps[name] for steps in of_two)
    expected_loss, *expected = step(OBJECTIVES[name], network())
    torch.testing.assert_close((loss + other_loss) / 2, expected_loss)
    for gradient, other, of_one in zip(gradients, other_gradients, expected, strict=True):
        assert torch.equal(gradient, other)
        torch.testing.assert_close(gradient, of_one, rtol=1e-6, atol=1e-9)


def test_the_draw_of_the_whole_batch_is_not_that_of_each_half():
    """Otherwise the test above could not tell them apart."""
    for name in ("batch", "batch-chunk", "batch-nan"):
        whole = OBJECTIVES[name].worst(network(), X, Y, key=KEY, index=INDEX)
        halves = [OBJECTIVES[name].worst(network(), X[rows], Y[rows], key=KEY, index=INDEX[rows]) for rows in HALVES]
        assert not torch.equal(torch.cat(halves), whole)


def test_the_batch_is_that_of_the_models_process_group(of_two):
    for rows, steps in zip(HALVES, of_two, strict=True):
        for found, expected in zip(steps["alone"], step(OBJECTIVES["batch"], network(), rows), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
