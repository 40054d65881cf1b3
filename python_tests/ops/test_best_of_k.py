"""The worst of k draws on every backend against float64 cross_entropy, and the bits of chunks against one call's."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from robustperf.ops import best_of_k

OP = "best_of_k"
inf, nan = math.inf, math.nan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LOSS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32,
        torch.float16: torch.float32}  # fmt: skip
TOLERANCE = {torch.float32: 3e-7, torch.float64: 1e-15}  # relative to 1 + loss

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_selection = pytest.mark.parametrize("selection", ["sample", "batch"])


def truth(logits, target, selection="sample", label_smoothing=0.0, ignore_index=-100):
    """(losses [K, B], scores [K, B], loss [B], index [B]) in float64, by torch's own functions."""
    draws, batch, _ = logits.shape
    losses = cross_entropy(
        logits.double().flatten(0, 1),
        target.repeat(draws),
        reduction="none",
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    ).view(draws, batch)
    scores = losses if selection == "sample" else losses.sum(1, keepdim=True).expand(-1, batch)
    index = scores.nan_to_num(nan=-1.0, posinf=inf).argmax(0)
    loss = torch.where(scores.isnan().all(0), nan, losses.gather(0, index[None])[0])
    ignored = target == ignore_index
    return losses, scores, loss.masked_fill(ignored, 0.0), index.masked_fill(ignored, 0)


def run(logits, target, backend, device, **settings):
    loss, index = best_of_k(logits.to(device), target.to(device), backend=backend, **settings)
    assert loss.shape == index.shape == target.shape
    assert loss.dtype == LOSS[logits.dtype] and index.dtype == torch.int64
    assert loss.device.type == index.device.type == device.type
    return loss.cpu(), index.cpu()


def check(logits, target, backend, device, ties=False, **settings):
    """Against the truth; `ties`: draws so close that rounding chooses are as good as the best."""
    loss, index = run(logits, target, backend, device, **settings)
    losses, scores, want, best = truth(logits, target, **settings)
    tolerance = TOLERANCE[loss.dtype]
    torch.testing.assert_close(
        loss.double(), want.to(loss.dtype).double(), rtol=4 * tolerance, atol=4 * tolerance, equal_nan=True
    )
    if ties:
        mine, top = scores.gather(0, index[None])[0], scores.gather(0, best[None])[0]
        torch.testing.assert_close(mine, top, rtol=4 * tolerance, atol=4 * tolerance * len(target), equal_nan=True)
    else:
        assert index.tolist() == best.tolist()
    return loss, index


def sample(draws, batch, classes, dtype=torch.float32, seed=0, scale=4.0):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(draws, batch, classes, generator=g, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (batch,), generator=g)


def bits(tensor):
    return tensor.contiguous().view({4: torch.int32, 8: torch.int64}[tensor.element_size()])


def same(one, other):
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(one, other, strict=True))


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


# ---- layouts and sizes


@every_dtype
def test_layout_does_not_matter(backend, device, dtype):
    logits, target = sample(6, 12, 20, dtype)
    twice = torch.stack([target, target], 1)[:, 0]
    logits, views = logits.to(device), {}
    views["classes"], views["draws"], views["rows"] = logits[..., ::2], logits[1::2], logits[:, ::2]
    views["transposed"], views["back"] = logits.transpose(0, 1)[:, :6], logits.permute(2, 0, 1)[:, :, :10]
    views["same row"] = logits[:, :1].expand(6, 12, 20)
    for name, view in views.items():
        labels = (twice[::2] if view.shape[1] == 6 else twice[: view.shape[1]]).to(device) % view.shape[2]
        got = best_of_k(view, labels, backend=backend)
        assert same(got, best_of_k(view.contiguous(), labels.contiguous(), backend=backend)), name
        check(view.cpu(), labels.cpu(), backend, device)


@every_dtype
@every_selection
def test_an_empty_batch(backend, device, dtype, selection):
    for draws, classes in ((1, 1), (5, 10), (3, 100)):
        loss, index = run(
            torch.zeros(draws, 0, classes, dtype=dtype),
            torch.zeros(0, dtype=torch.int64),
            backend,
            device,
            selection=selection,
        )
        assert loss.shape == (0,)


def test_a_row_does_not_depend_on_its_neighbours(backend, device):
    for classes in (3, 10, 40, 41, 200):
        logits, target = sample(3, 23, classes)
        whole = run(logits, target, backend, device)
        for b in (0, 1, 15, 16, 22):
            alone = run(logits[:, b : b + 1], target[b : b + 1], backend, device)
            assert same([part[b : b + 1] for part in whole], alone)


@every_selection
def test_the_number_of_threads_does_not_matter(backend, device, selection):
    for shape in ((10, 2000, 10), (5, 50, 1003)):
        logits, target = sample(*shape)
        target[1] = -100
        one = run(logits, target, backend, device, selection=selection)
        torch.set_num_threads(2)
        two = run(logits, target, backend, device, selection=selection)
        torch.set_num_threads(1)
        assert same(one, two)


def test_inputs_are_left_as_they_were(backend, device):
    logits, target = (t.to(device) for t in sample(3, 5, 4))
    before = logits.clone(), target.clone()
    best_of_k(logits, target, backend=backend)
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


# ---- chunks


def in_chunks(logits, target, chunk, backend, **settings):
    running = None
    for first in range(0, len(logits), chunk):
        given = running
        running = best_of_k(
            logits[first : first + chunk], target, running=running, first=first, backend=backend, **settings
        )
        assert given is None or (running[0] is given[0] and running[1] is given[1]), "in place"
    return running


@every_dtype
@every_selection
@pytest.mark.parametrize("batch, classes", [(1, 1), (17, 3), (64, 10), (19, 70), (257, 2)])
def test_chunks_give_the_bits_of_one_call(backend, device, batch, classes, selection, dtype):
    logits, target = (t.to(device) for t in sample(7, batch, classes, dtype))
    logits[3] = logits[5]  # a tie
    if batch > 1:
        target[1], logits[0, 2], logits[2, 0, 0], logits[4, 4, 0] = -100, nan, inf, -inf
    for label_smoothing in (0.0, 0.1):
        settings = {"selection": selection, "label_smoothing": label_smoothing, "backend": backend}
        whole = best_of_k(logits, target, **settings)
        for chunk in (1, 2, 3, 7):
            assert same(in_chunks(logits, target, chunk, **settings), whole), chunk


@every_selection
def test_chunks_without_a_number_give_way_to_one_with(backend, device, selection):
    logits, target = (t.to(device) for t in sample(5, 8, 4))
    target[3] = -100
    for spoilt in ([0], [0, 1], [4], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        draws = logits.clone()
        draws[spoilt] = nan
        whole = best_of_k(draws, target, selection=selection, backend=backend)
        for chunk in (1, 2, 3):
            assert same(in_chunks(draws, target, chunk, backend, selection=selection), whole)


@every_selection
def test_nan_and_zero_are_the_state_of_no_draw(backend, device, selection):
    logits, target = (t.to(device) for t in sample(5, 8, 4))
    target[3] = -100
    running = torch.full((8,), nan, device=device), torch.zeros(8, dtype=torch.int64, device=device)
    best_of_k(logits, target, running=running, selection=selection, backend=backend)
    assert same(running, best_of_k(logits, target, selection=selection, backend=backend))


def test_the_first_draw_has_the_number_given(backend, device):
    logits, target = (t.to(device) for t in sample(3, 8, 4))
    loss, index = best_of_k(logits, target, backend=backend)
    for first in (0, 5, 2**40):
        again = best_of_k(logits, target, first=first, backend=backend)
        assert torch.equal(again[0], loss) and torch.equal(again[1], index + first)


# ---- torch.library and torch.compile


@every_selection
def test_opcheck(backend, device, selection):
    for dtype in DTYPES:
        logits, target = (t.to(device) for t in sample(3, 5, 4, dtype))
        for z, y in ((logits, target), (logits[:, ::2], target[::2]), (logits[:, :0], target[:0])):
            loss = torch.full((len(y),), nan, dtype=LOSS[dtype], device=device)
            args = (z, y, loss, torch.zeros_like(y), 0, False, selection == "batch", 0.1, -100, backend)
            torch.library.opcheck(torch.ops.robustperf.best_of_k.default, args)


def test_compiled_functions_equal_eager_ones(backend, device):
    torch.compiler.reset()

    def best(logits, target):
        loss, index = best_of_k(logits * 2, target, label_smoothing=0.1, backend=backend)
        return loss + 1, index

    def chunks(logits, target):
        loss, index = in_chunks(logits, target, 2, backend, selection="batch")
        return loss.sum(), index

    for function in (best, chunks):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for batch in (4, 7):
            logits, target = (t.to(device) for t in sample(5, batch, 6, seed=batch))
            assert same(compiled(logits, target), function(logits, target))


def test_an_update_inside_a_compiled_function_is_seen_outside(backend, device):
    torch.compiler.reset()
    logits, target = (t.to(device) for t in sample(6, 5, 4))
    running = best_of_k(logits[:2], target, backend=backend)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def update(logits, loss, index):
        best_of_k(logits, target, running=(loss, index), first=2, backend=backend)

    update(logits[2:], *running)
    assert same(running, best_of_k(logits, target, backend=backend))


# ---- errors


Z, Y = torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.int64)
LOSSES, INDEX = torch.zeros(3), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("logits, target, settings, error, message", [
    (Z.long(), Y, {}, TypeError, r"logits: expected torch.float32 or .*, got torch.int64"),
    (Z.numpy(), Y, {}, TypeError, r"logits: expected a tensor, got ndarray"),
    (Z[0], Y, {}, ValueError, r"logits: expected shape \[K, B, C\], got \[3, 4\]"),
    (Z[:0], Y, {}, ValueError, r"logits: expected at least one draw and one class, got shape \[0, 3, 4\]"),
    (Z[..., :0], Y, {}, ValueError, r"logits: expected at least one draw and one class, got shape \[2, 3, 0\]"),
    (Z, Y.int(), {}, TypeError, r"target: expected torch.int64, got torch.int32"),
    (Z, [0, 0, 0], {}, TypeError, r"target: expected a tensor, got list"),
    (Z, Y[:2], {}, ValueError, r"target: expected shape \[3\], got \[2\]"),
    (Z, Y[:, None], {}, ValueError, r"target: expected shape \[3\], got \[3, 1\]"),
    (Z, Y + 4, {}, ValueError, r"target: expected labels in 0..3, got 4"),
    (Z, Y - 1, {}, ValueError, r"target: expected labels in 0..3, got -1"),
    (Z, Y - 100, {"ignore_index": -1}, ValueError, r"target: expected labels in 0..3, got -100"),
    (Z, torch.tensor([0, -100, 2**40]), {}, ValueError, r"target: expected labels in 0..3, got 1099511627776"),
    (Z, Y.to("meta"), {}, ValueError, r"target: expected a tensor on cpu, got one on meta"),
    (Z, Y, {"selection": "worst"}, ValueError, r"selection: expected one of sample, batch, got 'worst'"),
    (Z, Y, {"selection": None}, ValueError, r"selection: expected one of sample, batch, got None"),
    (Z, Y, {"label_smoothing": 1.5}, ValueError, r"label_smoothing: expected a number in \[0, 1\], got 1.5"),
    (Z, Y, {"label_smoothing": -0.1}, ValueError, r"label_smoothing: expected a number in \[0, 1\], got -0.1"),
    (Z, Y, {"label_smoothing": nan}, ValueError, r"label_smoothing: expected a number in \[0, 1\], got nan"),
    (Z, Y, {"label_smoothing": "0"}, ValueError, r"label_smoothing: expected a number in \[0, 1\], got '0'"),
    (Z, Y, {"ignore_index": 2**63}, ValueError, r"ignore_index: expected .* -2\^63..2\^63-1, got 92233720368547758"),
    (Z, Y, {"ignore_index": 0.5}, ValueError, r"ignore_index: expected an integer in -2\^63..2\^63-1, got 0.5"),
    (Z, Y, {"first": -1}, ValueError, r"first: expected an integer in 0..2\^62-1, got -1"),
    (Z, Y, {"first": 1.0}, ValueError, r"first: expected an integer in 0..2\^62-1, got 1.0"),
    (Z, Y, {"running": LOSSES}, TypeError, r"running: expected \(loss, index\), got tensor"),
    (Z, Y, {"running": 5}, TypeError, r"running: expected \(loss, index\), got 5"),
    (Z, Y, {"running": (LOSSES.double(), INDEX)}, TypeError, r"running loss: expected torch.float32, got .*float64"),
    (Z.double(), Y, {"running": (LOSSES, INDEX)}, TypeError, r"running loss: expected torch.float64, got .*float32"),
    (Z, Y, {"running": (LOSSES[:2], INDEX)}, ValueError, r"running loss: expected shape \[3\], got \[2\]"),
    (Z, Y, {"running": (LOSSES, LOSSES)}, TypeError, r"running index: expected torch.int64, got torch.float32"),
    (Z, Y, {"running": (LOSSES, torch.zeros(6, dtype=torch.int64)[::2])}, ValueError,
     r"running index: expected a contiguous tensor, got strides \(2,\)"),
    (Z, Y, {"backend": "fast"}, ValueError, r"backend: expected one of reference, native, cuda, triton, got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(logits, target, settings, error, message):
    with pytest.raises(error, match=message):
        best_of_k(logits, target, **settings)


@pytest.mark.parametrize("wrong", [4, -1, 2**40, -(2**62)])
def test_targets_out_of_range_are_refused(backend, device, wrong):
    if device.type != "cpu":
        pytest.skip(f"{backend}: numbers on a GPU are not waited for")
    for place in (0, 20, 32):
        target = torch.zeros(33, dtype=torch.int64)
        target[place], target[5] = wrong, -100
        with pytest.raises(ValueError, match=f"target: expected labels in 0..3, got {wrong}"):
            best_of_k(torch.zeros(2, 33, 4), target, backend=backend)
