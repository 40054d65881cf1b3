"""Looks by CUDA graphs, with a stand-in for the capture: sizes, permutations and choices need no GPU."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from robustperf import margins
from robustperf.attacks import FGSM, PGD
from robustperf.robustness import looks as module
from robustperf.robustness.boundary import closest_boundary, closest_boundary_by
from robustperf.robustness.looks import EAGER_LOOKS, TIMED_LOOKS, GraphedLooks, Looks, looks_for

CLASSES, DIM = 4, 6


class Recorder:
    """Captures as torch.cuda.graph does: nothing runs until the first replay, and a replay writes where the last one
    wrote."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, look):
        self.captured += 1
        count = torch.full((), -1)

        def replay():
            self.replayed += 1
            count.copy_(look())

        return replay, count


def classifier(seed=0):
    """Of float64 and one image at a time, so that what comes beside an image makes no difference."""
    g = torch.Generator().manual_seed(seed)
    first, second = torch.randn(DIM, 16, generator=g).double(), torch.randn(16, CLASSES, generator=g).double()
    return lambda x: torch.stack([(row @ first).tanh() @ second for row in x.flatten(1).double()])


def batch(seed, points=13, ensemble=3):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(points, 1, 2, 3, generator=g).double()
    return x, x + 2 * torch.randn(ensemble, *x.shape, generator=g).double()


def compare(got, want):
    for name in ("distance", "candidate", "evaluations"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    torch.testing.assert_close(got.point, want.point, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("settings", [{}, {"method": "bisection"}, {"probes": 2, "tol": 2.0**-10}], ids=str)
def test_batch_after_batch_the_boundaries_are_those_of_plain_looks(settings):
    model, capture = classifier(), Recorder()
    mine = GraphedLooks(model, capture)
    for seed in range(12):
        x, candidates = batch(seed, points=13 if seed % 3 else 5)
        labels = torch.arange(len(x)) % CLASSES if seed % 2 else None  # some are misclassified
        compare(closest_boundary_by(mine, x, candidates, labels=labels, **settings),
                closest_boundary(model, x, candidates, labels=labels, **settings))
    assert capture.captured >= 2 and capture.replayed >= 2 * TIMED_LOOKS


def test_margins_of_streamed_batches(monkeypatch):
    x = torch.rand(140, 1, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(DIM, 16), torch.nn.Tanh(),
                              torch.nn.Linear(16, CLASSES)).double()  # fmt: skip
    want = margins(net, x, attacks=[FGSM(), PGD(steps=3)], batch_size=7, keep_points=True)
    capture, made = Recorder(), []

    def graphed(model, x):
        made.append(GraphedLooks(model, capture))
        return made[-1]

    monkeypatch.setattr(sys.modules["robustperf.robustness.margins"], "looks_for", graphed)
    got = margins(net, x, attacks=[FGSM(), PGD(steps=3)], batch_size=7, keep_points=True)
    assert len(made) == 1, "one for all batches"
    assert torch.equal(got.found, want.found) and torch.equal(got.attack, want.attack)
    torch.testing.assert_close(got.distance, want.distance, rtol=1e-6, atol=0)
    assert capture.replayed


def test_nothing_to_search():
    model = classifier()
    x, candidates = batch(0)
    wrong = (model(x).argmax(1) + 1) % CLASSES
    found = closest_boundary_by(GraphedLooks(model, Recorder()), x, candidates, labels=wrong)
    assert (found.distance == 0).all()
    compare(closest_boundary_by(GraphedLooks(model, Recorder()), x, x[None]), closest_boundary(model, x, x[None]))
    empty = closest_boundary_by(GraphedLooks(model, Recorder()), x[:0], candidates[:, :0])
    assert empty.distance.shape == (0,)


def run_with_clock(monkeypatch, eager, replay, per_row):
    """Looks at many batches, with a clock that says how long a look took; (arena's sizes, captures, replays)."""
    now, model, capture = [0.0], classifier(), Recorder()
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    eagerly = module._Arena._eagerly

    def clocked(arena, size):
        now[0] += eager + per_row * size
        return eagerly(arena, size)

    def capturing(look):
        play, count = capture(look)

        def replayed():
            before = now[0]
            play()
            now[0] = before + replay + per_row * look.args[0]

        return replayed, count

    monkeypatch.setattr(module._Arena, "_eagerly", clocked)
    mine = GraphedLooks(model, capturing)
    for seed in range(20):
        x, candidates = batch(seed, points=16)
        compare(closest_boundary_by(mine, x, candidates), closest_boundary(model, x, candidates))
    (arena,) = mine._arenas.values()
    return arena.sizes, capture


def test_replays_that_are_slower_are_given_up(monkeypatch):
    sizes, capture = run_with_clock(monkeypatch, eager=1.0, replay=2.0, per_row=1.0)
    assert all(how.replays.count <= TIMED_LOOKS for how in sizes.values())
    assert sizes[16].replays.count == TIMED_LOOKS and sizes[16].eager.count > EAGER_LOOKS


def test_replays_that_are_quicker_are_kept(monkeypatch):
    sizes, capture = run_with_clock(monkeypatch, eager=2.0, replay=1.0, per_row=1.0)
    assert sizes[16].eager.count == EAGER_LOOKS and sizes[16].replays.count > TIMED_LOOKS
    assert min(sizes) <= 2, "points that are done drop out"


def test_a_smaller_size_that_is_no_quicker_is_left(monkeypatch):
    sizes, _ = run_with_clock(monkeypatch, eager=1.0, replay=1.0, per_row=0.0)
    looks = {size: how.eager.count + how.replays.count for size, how in sizes.items()}
    assert looks[16] > 3 * max(count for size, count in looks.items() if size < 16)


def test_a_model_that_cannot_be_captured_is_looked_at_without(monkeypatch):
    class Refusing:
        def __init__(self, *args, **settings):
            pass

        def __enter__(self):
            raise RuntimeError("operation not permitted when stream is capturing")

        def __exit__(self, *error):
            return False

    monkeypatch.setattr(torch.cuda, "graph", Refusing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(device_index=0, device="cpu"))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    model, mine = classifier(), GraphedLooks(classifier())
    with pytest.warns(RuntimeWarning, match="cannot be captured in a CUDA graph.*not permitted") as told:
        for seed in range(10):
            x, candidates = batch(seed)
            compare(closest_boundary_by(mine, x, candidates), closest_boundary(model, x, candidates))
    assert len(told) == 1


def test_under_autocast_nothing_is_captured(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    assert module._Capture()(lambda: pytest.fail("captured")) is None


def test_on_a_cpu_looks_are_plain():
    assert type(looks_for(classifier(), torch.zeros(1))) is Looks
