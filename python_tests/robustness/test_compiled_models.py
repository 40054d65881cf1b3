"""Models that torch.compile compiles: evaluated in batches of one size, so that they are compiled once."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import robustperf as rp
from robustperf.attacks import PGD
from robustperf.classifier import FixedBatches, in_fixed_batches
from robustperf.nuisance import LinfBall
from robustperf.robustness import basic_robustness, closest_boundary


class RowWise(nn.Module):
    """Three logits that are sums over the pixels of an image: the same bits in every batch."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 1, 4, 4, generator=generator))

    def forward(self, x):
        return ((x[:, None] - 0.5) * self.weight).tanh().sum((2, 3, 4))


class Inside(nn.Module):
    """A compiled part."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return 2 * self.part(x)


@pytest.fixture
def counter():
    torch.compiler.reset()
    yield CompileCounter()
    torch.compiler.reset()


@pytest.fixture(scope="module")
def x():
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def same(one, other):
    """Whether all fields of two results are equal."""
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, name)), name
        else:
            assert value == getattr(other, name), name


@pytest.mark.parametrize("settings", [
    {"attacks": "tibo"}, {"norm": torch.inf, "lattice": 1 / 255, "attacks": [PGD(norm=2, steps=5)]},
    {"norm": 0, "attacks": ["sigma_zero(steps=10)"]}, {"attacks": [PGD(norm=2, steps=5)], "probes": 3},
], ids=["tibo", "lattice", "L0", "probes"])  # fmt: skip
def test_margins_compile_a_model_once_for_each_mode(counter, x, settings):
    """One graph without gradients, one with: 40 points in batches of 16, 16 and 8, which finish one by one."""
    model = RowWise()
    expected = rp.margins(model, x, batch_size=16, keep_points=True, **settings)
    found = rp.margins(torch.compile(model, backend=counter), x, batch_size=16, keep_points=True, **settings)
    same(found, expected)
    assert counter.frame_count == 2


def test_a_compiled_part_and_a_module_compiled_in_place(counter, x):
    model, settings = RowWise(), {"attacks": [PGD(norm=2, steps=3)], "batch_size": 8}
    expected = rp.margins(Inside(model), x[:20], **settings)
    same(rp.margins(Inside(torch.compile(model, backend=counter)), x[:20], **settings), expected)
    assert counter.frame_count == 2
    torch.compiler.reset()
    model.compile(backend=counter)
    same(rp.margins(Inside(model), x[:20], **settings), expected)
    assert counter.frame_count == 4


def test_attacks_lines_and_basic_robustness_compile_once(counter, x):
    model, attack = RowWise(), PGD(norm=2, eps=1.0, steps=5)
    labels = model(x).argmax(1)
    compiled = torch.compile(model, backend=counter)
    found = attack(compiled, x, labels)
    same(found, attack(model, x, labels))
    assert counter.frame_count == 2
    torch.compiler.reset()
    counter.frame_count = 0
    lines = x, found.point[None]
    same(closest_boundary(compiled, *lines), closest_boundary(model, *lines))
    torch.compiler.reset()
    settings = {"samples": 100, "width": 0.2, "batch_size": 32}
    kernel = LinfBall(0.3)
    same(basic_robustness(compiled, x, kernel, **settings), basic_robustness(model, x, kernel, **settings))
    assert counter.frame_count == 2


class Noting(RowWise):
    """In the place of torch.compile's wrapper: notes the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self._orig_mod, self.sizes = nn.Identity(), []

    def forward(self, x):
        self.sizes.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_batches_are_filled_and_split_and_rows_keep_their_gradients(x, layout):
    noting, plain = Noting(), RowWise()
    model = in_fixed_batches(noting, 4)
    for count in (4, 1, 10, 0):
        leaf = x[:count].contiguous(memory_format=layout).requires_grad_()
        found, expected = model(leaf), plain(leaf)
        assert torch.equal(found, expected)
        gradients = (torch.autograd.grad(logits[:, 0].sum(), leaf)[0] for logits in (found, expected))
        assert torch.equal(*gradients)
    assert noting.sizes == [4, 4, 4, 4, 4, 4]


def test_the_first_batch_sets_the_size_and_other_models_are_returned_as_they_are(x):
    noting = Noting()
    model = in_fixed_batches(noting)
    for count in (3, 2, 7):
        model(x[:count])
    assert noting.sizes == [3, 3, 3, 3, 3]
    assert isinstance(model, FixedBatches) and in_fixed_batches(model) is model
    plain = RowWise()
    assert in_fixed_batches(plain) is plain and in_fixed_batches(plain.forward) == plain.forward


def test_what_is_not_logits_is_refused_as_for_other_models(x):
    class Wrong(Noting):
        def forward(self, x):
            return {"logits": x}

    with pytest.raises(TypeError, match=r"model\(x\): expected a tensor, got dict"):
        PGD(norm=2, eps=1.0)(Wrong(), x, torch.zeros(40, dtype=torch.int64))
