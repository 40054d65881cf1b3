"""Dropout with a mask for each sample, against the uniforms that define it."""

import math
from threading import Thread

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustperf import random
from robustperf.nets import Dropout, RobeyCNN, drawing

KEY = 2**63 + 5
INDEX = torch.tensor([7, 0, 2**40, 3, 12])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def dropped(layer, x, index=INDEX, key=KEY):
    with drawing(key, index):
        return layer(x)


def test_a_value_is_kept_where_its_uniform_is_at_least_p():
    x = torch.rand(15, 3, 4, 2, dtype=torch.float64) + 0.1
    layer = Dropout(0.3)
    with drawing(KEY, INDEX):
        first, second = layer(x), Dropout(0.6)(x[:5])
    uniform = random.uniform(KEY, INDEX, 3, 24).view(x.shape)
    torch.testing.assert_close(first, torch.where(uniform >= 0.3, x / 0.7, 0.0))
    # the second call has other draws
    uniform = random.uniform(KEY, INDEX, torch.tensor([2**20]), 24).view(x[:5].shape)
    torch.testing.assert_close(second, torch.where(uniform >= 0.6, x[:5] / 0.4, 0.0))


@pytest.mark.parametrize("order", [[3, 1, 4, 0, 2], [2], [0, 4]])
def test_a_mask_does_not_depend_on_the_batch(order):
    x = torch.rand(15, 6)
    whole = dropped(Dropout(), x).view(3, 5, 6)
    part = dropped(Dropout(), x.view(3, 5, 6)[:, order].flatten(0, 1), INDEX[order])
    assert torch.equal(part.view(3, len(order), 6), whole[:, order])
    # the clean images have the same masks with and without their draws
    assert torch.equal(dropped(Dropout(), x[:5]), whole[0])


def test_masks_differ_between_keys_samples_draws_and_calls():
    x = torch.ones(10, 200)
    with drawing(KEY, INDEX):
        first, second = Dropout()(x), Dropout()(x)
    rows = torch.cat([first, second, dropped(Dropout(), x, key=1)])
    assert len(rows.unique(dim=0)) == 30
    assert torch.equal(dropped(Dropout(), x), first)


def test_the_fraction_that_is_kept_and_the_mean():
    index = torch.arange(100)
    for p in (0.25, 0.5, 0.9):
        out = dropped(Dropout(p), torch.ones(200, 500), index)
        # 100,000 values: 5 standard deviations
        assert abs((out == 0).double().mean() - p) < 5 * math.sqrt(p * (1 - p) / 1e5)
        assert abs(out.double().mean() - 1) < 5 * math.sqrt(p / (1 - p) / 1e5)
        assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_is_kept_and_its_values_are_scaled_without_bias(dtype):
    x = torch.rand(10, 50).to(dtype)
    out = dropped(Dropout(0.25), x)
    exact = dropped(Dropout(0.25), x.double())
    assert out.dtype == dtype
    torch.testing.assert_close(out, exact.to(dtype), rtol=2**-23, atol=0)  # float32 rounds the scale too


def test_the_gradient_is_that_of_a_constant_mask():
    x = torch.rand(10, 8, dtype=torch.float64, requires_grad=True)
    mask = dropped(Dropout(0.3), torch.ones_like(x)).detach()
    (grad,) = torch.autograd.grad(dropped(Dropout(0.3), x).square().sum(), x)
    torch.testing.assert_close(grad, 2 * x.detach() * mask**2)


def test_in_place():
    x = torch.rand(10, 8)
    expected = dropped(Dropout(), x)
    out = dropped(Dropout(inplace=True), x)
    assert out is x and torch.equal(x, expected)


def test_memory_format_is_kept_and_changes_nothing():
    x = torch.rand(10, 6, 4, 5)
    expected = dropped(Dropout(), x)
    assert expected.is_contiguous()
    out = dropped(Dropout(), x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()
    assert torch.equal(out, expected)


def test_outside_of_drawing_it_is_nn_dropout():
    x = torch.rand(10, 50)
    ours, torchs = Dropout(0.3), nn.Dropout(0.3)

    def same(layer):
        torch.manual_seed(0)
        out = layer(x)
        torch.manual_seed(0)
        return torch.equal(out, torchs(x))

    assert same(ours)
    dropped(ours, x)
    assert same(ours)  # again, after a context
    with drawing(KEY, INDEX):
        assert not same(ours)
        assert torch.equal(Dropout(0)(x), x) and not Dropout(1)(x).any()
        assert torch.equal(ours.eval()(x), x)
        assert ours(x[:3]).shape == (3, 50)  # nothing is drawn: any number of rows is accepted
    assert repr(ours) == repr(torchs)


def test_calls_that_draw_nothing_do_not_count():
    x = torch.rand(5, 50)
    with drawing(KEY, INDEX):
        Dropout(0)(x), Dropout().eval()(x)
        assert torch.equal(Dropout()(x), dropped(Dropout(), x))


def test_an_inner_context_restores_the_outer_one():
    x = torch.rand(5, 50)
    with drawing(KEY, INDEX):
        expected = Dropout()(x), Dropout()(x)
    with drawing(KEY, INDEX):
        first = Dropout()(x)
        with pytest.raises(RuntimeError, match="on the way"), drawing(1, INDEX[:1]):
            assert torch.equal(Dropout()(x[:1]), dropped(Dropout(), x[:1], INDEX[:1], key=1))
            raise RuntimeError("on the way")
        second = Dropout()(x)
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])


def test_another_thread_has_another_context():
    x, seen = torch.rand(5, 50), []

    def other():
        torch.manual_seed(0)
        seen.append(Dropout()(x))
        seen.append(dropped(Dropout(), x, key=1))

    with drawing(KEY, INDEX):
        thread = Thread(target=other)
        thread.start()
        thread.join()
        after = Dropout()(x)
    torch.manual_seed(0)
    assert torch.equal(seen[0], F.dropout(x))
    assert torch.equal(seen[1], dropped(Dropout(), x, key=1)) and torch.equal(after, dropped(Dropout(), x))


def test_under_torch_compile_it_is_nn_dropout():
    x = torch.ones(5, 400)
    layer = torch.compile(Dropout(0.25), backend="eager", fullgraph=True)
    with drawing(KEY, INDEX):
        out = layer(x)
    assert 0 < (out == 0).sum() < 1000 and not torch.equal(out, dropped(Dropout(0.25), x))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_robey_cnn_drops_by_sample(batch_norm):
    torch.manual_seed(0)
    net = RobeyCNN(1, size=12, width=8, batch_norm=batch_norm).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # only dropout may make rows differ
    x, order = torch.rand(10, 1, 12, 12, dtype=torch.float64), [4, 2, 0]
    whole = dropped(net, x).view(2, 5, 10)
    assert not torch.equal(whole, dropped(net, x, key=1).view(2, 5, 10))
    part = dropped(net, x.view(2, 5, 1, 12, 12)[:, order].flatten(0, 1), INDEX[order])
    torch.testing.assert_close(part.view(2, 3, 10), whole[:, order])
    channels_last = dropped(net, x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last.view(2, 5, 10), whole)


def test_under_autocast():
    net = nn.Sequential(nn.Linear(20, 400), Dropout(0.25))
    x = torch.rand(10, 20)
    with torch.autocast("cpu", torch.bfloat16):
        out = dropped(net, x)
        plain = net[0](x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, dropped(net[1], plain))
    out.float().sum().backward()
    assert net[0].weight.grad.isfinite().all()


def test_an_empty_batch():
    assert dropped(Dropout(), torch.zeros(0, 3), INDEX[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "x, index, error, message",
    [
        (torch.rand(7, 3), INDEX, ValueError, "x: expected a multiple of 5 rows, one for each sample, got 7"),
        (torch.rand(3, 3), INDEX, ValueError, "x: expected a multiple of 5 rows, one for each sample, got 3"),
        (torch.rand(3, 3), INDEX[:0], ValueError, "x: expected a multiple of 0 rows, one for each sample, got 3"),
        (torch.ones(5, 3, dtype=torch.int64), INDEX, TypeError, "x: expected torch.float32 or .*, got torch.int64"),
        (torch.tensor(1.0), INDEX, ValueError, r"x: expected shape \[K B, ...\], got \[\]"),
        (torch.rand(2**20 + 1, 1), INDEX[:1], ValueError, "drawing: expected at most 1048576 draws .*, got 1048577 in"),
    ],
)
def test_errors_of_a_call(x, index, error, message):
    with pytest.raises(error, match=message):
        dropped(Dropout(), x, index)


def test_draw_indices_do_not_overflow():
    x = torch.ones(1, 1)
    with drawing(KEY, INDEX[:1]):
        for _ in range(4096):
            Dropout()(x)
        with pytest.raises(ValueError, match="drawing: expected at most .* 4096 calls, got 1 in call 4096"):
            Dropout()(x)


@pytest.mark.parametrize(
    "key, index, error, message",
    [
        (-1, INDEX, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
        (0.5, INDEX, ValueError, "key: expected an integer"),
        (0, 3, TypeError, "index: expected a tensor, got int"),
        (0, INDEX.float(), TypeError, "index: expected torch.int64, got torch.float32"),
        (0, INDEX.view(5, 1), ValueError, r"index: expected shape \[B\], got \[5, 1\]"),
        (0, -INDEX, ValueError, "index: expected numbers in 0.."),
    ],
)
def test_errors_of_drawing(key, index, error, message):
    with pytest.raises(error, match=message), drawing(key, index):
        pass
