"""The logit gap on every backend against a loop over Python's floats, number for number."""

import math

import pytest
import torch

from robustperf.ops import logit_gap
from robustperf.ops.logit_gap import rounding_tolerance_of

OP = "logit_gap"
UNIT = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
DTYPES = list(UNIT)
ALLOWED = {torch.float32: 32, torch.float64: 32, torch.bfloat16: 4, torch.float16: 4}  # units in the last place
inf, nan = math.inf, math.nan


def by_hand(logits, label):
    gaps = []
    for z, y in zip(logits.tolist(), label.tolist(), strict=True):
        others = z[:y] + z[y + 1 :]
        top = nan if any(map(math.isnan, others)) else max(others)
        largest = max((abs(v) for v in z if math.isfinite(v)), default=0.0)
        gaps.append(z[y] - top + ALLOWED[logits.dtype] * UNIT[logits.dtype] * largest)
    return torch.tensor(gaps, dtype=torch.float64)


def check(logits, label, backend, device):
    gap = logit_gap(logits.to(device), label.to(device), backend=backend)
    assert gap.dtype == torch.float64 and gap.device.type == device.type
    torch.testing.assert_close(gap.cpu(), by_hand(logits, label), rtol=0, atol=0, equal_nan=True)


def random_logits(batch, classes, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=g, dtype=torch.float64) * 8
    return logits.to(dtype), torch.randint(classes, (batch,), generator=g)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch, classes", [(0, 2), (0, 10), (1, 2), (33, 2), (17, 3), (64, 10), (5, 1000)])
def test_random_logits(backend, device, dtype, batch, classes):
    check(*random_logits(batch, classes, dtype), backend, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_label_of_a_row(backend, device, dtype):
    logits = torch.tensor([[1.0, -3.0, 2.5, 2.0]], dtype=dtype).expand(4, 4)
    check(logits, torch.arange(4), backend, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layout_does_not_matter(backend, device, dtype):
    logits, label = random_logits(12, 20, dtype)
    twice = torch.stack([label, label + 100], 1)[:, 0]  # stride 2
    for view in (logits[:, ::2], logits[:, 1::3], logits.t().contiguous().t(), logits[::3].expand(4, 20)):
        labels = (twice[::3] if view.shape[0] == 4 else twice) % view.shape[1]
        assert view.shape[0] == labels.shape[0]
        check(view, labels, backend, device)
    column = logits[:1].t()[:, :1].expand(20, 2)  # stride 0
    check(column, torch.arange(20) % 2, backend, device)


def test_a_negated_view_counts_as_its_values(backend, device):
    negated = torch.randn(6, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)).conj().imag
    assert negated.is_neg()
    check(negated, torch.arange(6) % 4, backend, device)


ROWS = [
    ([nan, 1.0, 2.0], 0), ([nan, 1.0, 2.0], 1), ([1.0, nan, 2.0], 0), ([1.0, 2.0, nan], 0), ([nan, nan, nan], 2),
    ([nan, inf, 1.0], 2), ([inf, nan, 1.0], 2), ([-inf, nan, 1.0], 2),
    ([inf, 1.0, 2.0], 0), ([inf, 1.0, 2.0], 1), ([inf, inf, 2.0], 0), ([inf, inf, 2.0], 2), ([inf, -inf, -inf], 0),
    ([-inf, 1.0, 2.0], 0), ([-inf, 1.0, 2.0], 2), ([-inf, -inf, 2.0], 2), ([-inf, -inf, 2.0], 0),
    ([-inf, -inf, -inf], 1), ([0.0, 0.0, 0.0], 1), ([3.0, 3.0, 3.0], 0), ([3.0, 3.0, -3.0], 1), ([-7.0, -7.0, -9.0], 0),
    ([0.0, -0.0, -1.0], 0), ([-4.0, 1.0, 1.0], 0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_infinities_masked_classes_and_ties(backend, device, dtype):
    logits = torch.tensor([row for row, _ in ROWS], dtype=dtype)
    check(logits, torch.tensor([y for _, y in ROWS]), backend, device)


@pytest.mark.parametrize("row, label, gap", [
    ([2.0, 1.0], 0, 1 + 32 * 2 * 2.0**-23),
    ([1.0, 2.0], 0, -1 + 32 * 2 * 2.0**-23),
    ([1.0, 1.0], 1, 32 * 2.0**-23),
    ([0.0, 0.0], 1, 0.0),
    ([1.0, -8.0], 0, 9 + 32 * 8 * 2.0**-23),  # the scale is that of the largest magnitude, not of the largest logit
    ([-inf, -1.0], 1, inf),
    ([-inf, -1.0], 0, -inf),
    ([-inf, 1.0, 4.0], 1, -3 + 32 * 4 * 2.0**-23),  # a masked class changes neither the maximum nor the scale
    ([inf, 1.0], 0, inf),
    ([nan, 1.0], 0, nan), ([nan, 1.0], 1, nan),
])  # fmt: skip
def test_by_hand(backend, device, row, label, gap):
    got = logit_gap(torch.tensor([row], device=device), torch.tensor([label], device=device), backend=backend).item()
    assert got == gap or (math.isnan(got) and math.isnan(gap))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_crossing_counts_beyond_the_rounding_tolerance(backend, device, dtype):
    one, label, allowed = 1.0, torch.tensor([0], device=device), ALLOWED[dtype]
    for units, crossed in ((0, False), (allowed - 1, False), (allowed + 1, True), (allowed + 4, True)):
        # 1 is the largest logit: below it the spacing is half a unit, which is exact in every dtype
        logits = torch.tensor([[one - units * UNIT[dtype], one]], dtype=dtype, device=device)
        assert (logits[0, 1] - logits[0, 0]).item() == units * UNIT[dtype]
        assert (logit_gap(logits, label, backend=backend).item() < 0) is crossed


def test_an_infinite_logit_leaves_the_tolerance_to_the_finite_ones(backend, device):
    logits = torch.tensor([[5.0, 5.0, -inf]], device=device)
    gap = logit_gap(logits, torch.tensor([0], device=device), backend=backend)
    assert gap.item() == 32 * 5 * 2.0**-23


def test_largest_numbers_do_not_overflow(backend, device):
    top = torch.finfo(torch.float32).max
    logits = torch.tensor([[top, -top], [-top, top]])
    check(logits, torch.tensor([0, 0]), backend, device)


def test_a_row_does_not_depend_on_its_neighbours(backend, device):
    logits, label = random_logits(9, 7)
    logits[4, 2] = nan
    whole = logit_gap(logits.to(device), label.to(device), backend=backend)
    for i in range(9):
        alone = logit_gap(logits[i : i + 1].to(device), label[i : i + 1].to(device), backend=backend)
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=0, equal_nan=True)


def test_inputs_are_left_as_they_were(backend, device):
    logits, label = random_logits(5, 4)
    logits, label = logits.to(device), label.to(device)
    before = logits.clone(), label.clone()
    logit_gap(logits, label, backend=backend)
    assert torch.equal(logits, before[0]) and torch.equal(label, before[1])


def test_no_gradient_is_promised(backend, device):
    # "Not differentiable": an output that asks for gradients and has none would train on silence
    logits = torch.randn(3, 4, device=device).requires_grad_()
    gap = logit_gap(logits, torch.zeros(3, dtype=torch.int64, device=device), backend=backend)
    assert not gap.requires_grad


Z, Y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("logits, label, wanted, error, message", [
    (Z.long(), Y, None, TypeError, r"logits: expected torch.float32 or .*, got torch.int64"),
    (Z.to(torch.complex64), Y, None, TypeError, r"logits: .* got torch.complex64"),
    (Z.numpy(), Y, None, TypeError, r"logits: expected a tensor, got ndarray"),
    (None, Y, None, TypeError, r"logits: expected a tensor, got NoneType"),
    (Z[0], Y, None, ValueError, r"logits: expected shape \[B, C\], got \[4\]"),
    (Z[None], Y, None, ValueError, r"logits: expected shape \[B, C\], got \[1, 3, 4\]"),
    (Z[:, :1], Y, None, ValueError, r"logits: expected at least two classes, got shape \[3, 1\]"),
    (Z[:, :0], Y, None, ValueError, r"logits: expected at least two classes, got shape \[3, 0\]"),
    (Z, Y.int(), None, TypeError, r"label: expected torch.int64, got torch.int32"),
    (Z, Y.float(), None, TypeError, r"label: expected torch.int64, got torch.float32"),
    (Z, [0, 0, 0], None, TypeError, r"label: expected a tensor, got list"),
    (Z, Y[:2], None, ValueError, r"label: expected shape \[3\], got \[2\]"),
    (Z, Y[:, None], None, ValueError, r"label: expected shape \[3\], got \[3, 1\]"),
    (Z, Y + 4, None, ValueError, r"label: expected labels in 0..3, got 4"),
    (Z, Y - 1, None, ValueError, r"label: expected labels in 0..3, got -1"),
    (Z, Y.to("meta"), None, ValueError, r"label: expected a tensor on cpu, got one on meta"),
    (Z, Y, "fast", ValueError, r"backend: expected one of reference, native, cuda, triton, got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(logits, label, wanted, error, message):
    with pytest.raises(error, match=message):
        logit_gap(logits, label, backend=wanted)


def test_the_rounding_tolerance_is_of_the_precision_that_convolutions_may_have():
    class OnGpu:
        is_cuda, dtype = True, torch.float32

    before = torch.backends.cudnn.allow_tf32
    try:
        for allowed, units in ((True, 4 * 2.0**-10), (False, 32 * 2.0**-23)):
            torch.backends.cudnn.allow_tf32 = allowed
            assert rounding_tolerance_of(OnGpu()) == units
            assert rounding_tolerance_of(torch.zeros(1, 2)) == 32 * 2.0**-23
    finally:
        torch.backends.cudnn.allow_tf32 = before
    OnGpu.dtype = torch.float64
    assert rounding_tolerance_of(OnGpu()) == 32 * 2.0**-52
