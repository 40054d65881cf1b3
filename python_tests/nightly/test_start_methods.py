"""Operations and margins in threads and in child processes of every start method, after the parent has used threads."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import robustperf as rp
from robustperf import ops
from robustperf.nuisance import Brightness, Compose, Rotation

KERNEL = Compose([Rotation(30), Brightness(0.3)])


def model():
    """A network in training mode, whose dropout would change every result."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 10)).train()


def work(net=None):
    """Results of operations and of margins, as bytes."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.rand(101, 3001, generator=g), torch.randn(101, 3001, generator=g)
    delta, _ = ops.halfspace_box_projection(x, w, torch.linspace(-1, 900, 101))
    images = torch.rand(20, 1, 8, 8, generator=g)
    drawn = KERNEL.draw(images, key=1, index=torch.arange(20), draws=40)
    net = model() if net is None else net
    margins = rp.margins(net, images, attacks="fgsm,pgd(steps=5)")
    rho = rp.basic_robustness(net, images, KERNEL, samples=30).rho
    return [tensor.numpy().tobytes() for tensor in (delta, drawn, margins.distance, rho)]


def in_child(method):
    if method == "fork":  # as torch's DataLoader does: torch's own threads do not survive a fork
        torch.set_num_threads(1)
    return work()


@pytest.fixture
def two_threads(one_thread):
    torch.set_num_threads(2)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_give_their_parents_results(two_threads, method):
    want = work()
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        for found in pool.map_async(in_child, [method] * 4, chunksize=1).get(timeout=120):
            assert found == want
    assert work() == want


def test_threads_that_share_a_model(two_threads):
    want, net = work(), model()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, [net] * 8, timeout=120):
            assert found == want
    assert net.training and net[3].training
    assert all(parameter.requires_grad for parameter in net.parameters())


class Drawn(torch.utils.data.Dataset):
    """Each sample is drawn in a worker of the DataLoader."""

    def __len__(self):
        return 12

    def __getitem__(self, place):
        image = torch.full((1, 1, 8, 8), 0.5)
        return KERNEL.draw(image, key=3, index=torch.tensor([place]))[0, 0], place % 2


def test_draws_in_workers_of_a_data_loader(two_threads):
    want = torch.stack([Drawn()[place][0] for place in range(12)])
    for method in ("fork", "spawn", "forkserver"):
        loader = torch.utils.data.DataLoader(Drawn(), 4, num_workers=2, multiprocessing_context=method)
        assert torch.equal(torch.cat([x for x, _ in loader]), want)
