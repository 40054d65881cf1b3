"""The worst of k draws against float64: losses, selection, ties, NaN and ignored rows."""

import math

import pytest
import torch

from python_tests.support.best_of_k import check, every_dtype, every_selection, inf, nan, run, sample

OP = "best_of_k"

# ---- against float64


@every_dtype
@every_selection
@pytest.mark.parametrize("draws, batch, classes", [
    (1, 1, 1), (1, 5, 10), (4, 33, 1), (7, 17, 2), (7, 17, 3), (5, 16, 4), (5, 15, 7), (10, 64, 10), (3, 31, 17),
    (3, 9, 39), (3, 9, 40), (3, 9, 41), (3, 9, 63), (3, 17, 64), (3, 9, 65), (4, 5, 100), (10, 6, 1000), (3, 7, 1003),
    (2, 1, 30000), (40, 1, 5), (1, 100, 5), (3, 2050, 2),
])  # fmt: skip
def test_random_logits(backend, device, draws, batch, classes, dtype, selection):
    logits, target = sample(draws, batch, classes, dtype)
    check(logits, target, backend, device, ties=True, selection=selection)


@every_dtype
@pytest.mark.parametrize("classes", [1, 2, 10, 37, 1003])
@pytest.mark.parametrize("label_smoothing", [0.1, 0.5, 1, 1e-3])
def test_label_smoothing(backend, device, classes, label_smoothing, dtype):
    logits, target = sample(5, 37, classes, dtype)
    target[3], target[7] = -100, -100
    for selection in ("sample", "batch"):
        check(logits, target, backend, device, ties=True, selection=selection, label_smoothing=label_smoothing)


@every_dtype
@pytest.mark.parametrize("classes", [5, 70])
def test_every_target_of_a_row(backend, device, classes, dtype):
    logits, _ = sample(3, 1, classes, dtype)
    check(logits.expand(3, classes, classes), torch.arange(classes), backend, device)


@pytest.mark.parametrize("scale", [1e-6, 1e2, 1e4, 1e30])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("classes", [10, 129])
def test_extreme_logits(backend, device, scale, classes, label_smoothing):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        logits, target = sample(4, 20, classes, dtype, scale=scale)
        check(logits, target, backend, device, ties=True, label_smoothing=label_smoothing)


def test_a_loss_near_zero_is_no_less(backend, device):
    for classes in (2, 10, 100):
        logits = torch.zeros(3, 4, classes)
        logits[..., 0] = torch.tensor([20.0, 90.0, 500.0])[:, None]
        loss, index = check(logits, torch.zeros(4, dtype=torch.int64), backend, device, ties=True)
        assert (loss >= 0).all() and (loss < 1e-6).all()


def test_by_hand(backend, device):
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, math.log(3)]]])  # p_0 = 1/2, then 1/4
    loss, index = run(logits, torch.tensor([0]), backend, device)
    assert loss.item() == pytest.approx(math.log(4), abs=2e-7) and index.item() == 1
    loss, index = run(logits, torch.tensor([1]), backend, device)
    assert loss.item() == pytest.approx(math.log(2), abs=2e-7) and index.item() == 0


@every_selection
def test_the_two_selections_differ(backend, device, selection):
    logits = torch.zeros(2, 3, 2)
    logits[0, 0, 1], logits[1, 1:, 1] = 9.0, 1.0  # draw 0 is bad for one sample, draw 1 a little for two
    loss, index = check(logits, torch.zeros(3, dtype=torch.int64), backend, device, selection=selection)
    assert index.tolist() == ([0, 1, 1] if selection == "sample" else [0, 0, 0])


# ---- ties, NaN, infinities


@every_dtype
@every_selection
@pytest.mark.parametrize("classes", [1, 3, 10, 100])
def test_of_equal_draws_the_lowest_index_wins(backend, device, classes, dtype, selection):
    logits, target = sample(1, 21, classes, dtype)
    loss, index = run(logits.expand(6, -1, -1), target, backend, device, selection=selection)
    assert (index == 0).all()
    easy = logits.clone()
    easy[0, torch.arange(21), target] += 9
    loss, index = run(torch.cat([easy, logits, easy, logits, logits]), target, backend, device, selection=selection)
    assert (index == (0 if classes == 1 else 1)).all()
    check(logits, target, backend, device, selection=selection)


ODD = [
    [1.0, nan, 0.0], [nan, nan, nan], [inf, 0.0, 1.0], [0.0, inf, 1.0], [inf, inf, 0.0], [inf, -inf, 0.0],
    [-inf, 0.0, 1.0], [0.0, -inf, 1.0], [0.0, 1.0, -inf], [-inf, -inf, -inf], [-inf, -inf, 2.0], [2.0, -inf, -inf],
    [0.0, 1.0, 2.0], [nan, -inf, 1.0], [nan, inf, 1.0], [0.0, -0.0, 0.0],
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("padding", [0, 7, 77])
def test_rows_with_nan_and_infinities(backend, device, padding, label_smoothing, dtype):
    rows = torch.tensor(ODD, dtype=dtype)
    rows = torch.cat([rows, torch.full((len(ODD), padding), -1.0, dtype=dtype)], 1)
    for target in range(3):
        targets = torch.full((len(ODD),), target)
        # each alone, each after an ordinary draw, and before one
        for logits in (
            rows[None],
            torch.stack([rows[12].expand_as(rows), rows]),
            torch.stack([rows, rows[12].expand_as(rows)]),
        ):
            check(logits, targets, backend, device, label_smoothing=label_smoothing)
        # the same numbers in another order may add up to another last bit
        check(
            torch.stack([rows, rows.roll(1, 0)]), targets, backend, device, ties=True, label_smoothing=label_smoothing
        )


@every_dtype
@pytest.mark.parametrize("padding", [0, 77])
def test_a_batch_with_nan_and_infinities(backend, device, padding, dtype):
    rows = torch.cat([torch.tensor(ODD), torch.full((len(ODD), padding), -1.0)], 1).to(dtype)
    plain = torch.tensor([0.0, 1.0, 2.0] + [-1.0] * padding).to(dtype).expand_as(rows)
    for spoilt in range(len(ODD)):
        draw = plain.clone()
        draw[5] = rows[spoilt]
        for logits in ((draw, plain), (plain, draw), (draw, draw), (draw,), (plain, draw, plain / 2, draw)):
            check(torch.stack(logits), torch.zeros(len(ODD), dtype=torch.int64), backend, device, selection="batch")


@every_selection
def test_nan_never_wins_and_alone_is_what_is_left(backend, device, selection):
    logits, target = sample(4, 9, 6)
    logits[0], logits[2] = nan, nan
    loss, index = check(logits, target, backend, device, selection=selection)
    assert loss.isfinite().all() and set(index.tolist()) <= {1, 3}
    loss, index = run(torch.full_like(logits, nan), target, backend, device, selection=selection)
    assert loss.isnan().all() and (index == 0).all()


def test_a_target_of_no_probability_wins(backend, device):
    logits, target = sample(4, 9, 6)
    logits[2, torch.arange(9), target] = -inf
    loss, index = check(logits, target, backend, device)
    assert (loss == inf).all() and (index == 2).all()


# ---- ignored rows


@every_selection
@pytest.mark.parametrize("ignore_index", [-100, 3, 0, -1, 10**12])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_rows(backend, device, selection, ignore_index, label_smoothing):
    logits, target = sample(6, 40, 5)
    target[::3] = ignore_index
    logits[0] = 0.0  # never the worst
    logits[:, 3], logits[2, 6] = nan, inf  # ignored, so of no consequence
    loss, index = check(
        logits, target, backend, device, selection=selection, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    assert (loss[::3] == 0).all() and (index[::3] == 0).all() and (index > 0).any()


@every_selection
@pytest.mark.parametrize("classes", [1, 4, 50])
def test_all_rows_ignored(backend, device, selection, classes):
    logits = torch.full((3, 20, classes), nan)
    loss, index = run(logits, torch.full((20,), -100), backend, device, selection=selection)
    assert (loss == 0).all() and (index == 0).all()
