"""best_of_k by layout and size, in chunks, inside torch.compile, and the arguments that it refuses."""

import pytest
import torch

from python_tests.support.best_of_k import check, every_dtype, every_selection, inf, nan, run, sample
from robustperf.ops import best_of_k

OP = "best_of_k"


def bits(tensor):
    return tensor.contiguous().view({4: torch.int32, 8: torch.int64}[tensor.element_size()])


def same(one, other):
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(one, other, strict=True))


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
@pytest.mark.parametrize("batch, classes", [(1, 1), (5, 3), (17, 3), (64, 10), (19, 70), (257, 2)])
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


# ---- torch.compile


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
