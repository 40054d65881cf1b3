"""Label-aware and on-manifold kernels against plain loops, their distributions, and where they are undefined."""

import math

import pytest
import torch

import robustperf as rp
from robustperf.nuisance import BackgroundColour, Brightness, Compose, L2Ball, LabelAware, LinfBall, OnManifold
from robustperf.training import MAT

INDEX = torch.arange(6) + 2**40
X = torch.rand(6, 1, 2, 3, generator=torch.Generator().manual_seed(0))
REFERENCE = torch.rand(200, 1, 2, 3, generator=torch.Generator().manual_seed(1))


def halves(x):
    """Label 1 where the first pixel is at least one half."""
    return (x[:, 0, 0, 0] >= 0.5).long()


NORMS = {1: lambda d: d.abs().sum(), 2: lambda d: d.square().sum().sqrt(), math.inf: lambda d: d.abs().max()}


def near_by_hand(x, eps, norm):
    return [i for i, r in enumerate(REFERENCE) if NORMS[norm](r.double() - x.double()) < eps]


@pytest.fixture(params=["label-aware", "on-manifold"])
def kernel(request):
    return LabelAware(LinfBall(0.6), halves) if request.param == "label-aware" else OnManifold(REFERENCE, 0.9)


def test_a_draw_depends_on_key_id_and_draw_index_only(kernel):
    full = kernel.draw(X, key=3, index=INDEX, draws=20)
    assert full.shape == (20, 6, 1, 2, 3) and full.dtype == X.dtype
    assert torch.equal(full, kernel(X, kernel.sample(3, INDEX, 20)))
    for rows in (torch.tensor([4]), torch.tensor([5, 0, 2])):
        part = kernel.draw(X[rows], key=3, index=INDEX[rows], draws=torch.tensor([7, 2]))
        assert torch.equal(part, full[[7, 2]][:, rows])
    assert not torch.equal(full, kernel.draw(X, key=4, index=INDEX, draws=20))
    assert kernel.draw(X[:0], key=3, index=INDEX[:0], draws=2).shape == (2, 0, 1, 2, 3)
    assert kernel.draw(X.double(), key=3, index=INDEX).dtype == torch.float64


def test_delta_is_of_the_unit_cube(kernel):
    delta = kernel.sample(0, INDEX, 5)
    assert delta.shape == (5, 6, kernel.dim) and torch.equal(kernel.project(delta), delta)
    kernel(X, kernel.project(7 * torch.randn(6, kernel.dim)))
    for wrong in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"delta: expected values in \[0, 1\), got"):
            kernel(X, torch.full((6, kernel.dim), wrong))
    with pytest.raises(ValueError, match="delta: expected shape"):
        kernel(X, delta[..., :1])


def test_label_aware_draws_keep_the_label_and_are_uniform_where_they_do():
    x = torch.full((500, 1, 1, 1), 0.6)
    drawn = LabelAware(LinfBall(0.4), halves).draw(x, key=0, index=torch.arange(500), draws=10).flatten().double()
    assert drawn.min() >= 0.5 and drawn.max() <= 1 + 1e-6  # of [0.2, 1] the part that has the label
    fraction = ((drawn - 0.5) / 0.5).sort().values
    # Kolmogorov and Smirnov: 2 / sqrt(n) has a probability below 1e-3
    assert (fraction - torch.linspace(0, 1, 5000)).abs().max() < 2 / math.sqrt(5000)


def test_label_aware_draws_are_the_first_that_are_accepted():
    inner, kernel = LinfBall(0.9), LabelAware(LinfBall(0.9), halves)
    delta = kernel.sample(1, INDEX, 8)
    drawn = kernel(X, delta)
    for k in range(8):
        for b in range(6):
            words = [int(value * 2**24) for value in delta[k, b].tolist()]
            sequence = words[0] + words[1] * 2**24 + words[2] // 2**9 * 2**48
            for trial in range(1000):
                tried = inner.draw(X[b : b + 1], key=0, index=torch.tensor([sequence]), draws=torch.tensor([trial]))[0]
                if halves(tried) == halves(X[b : b + 1]):
                    break
            assert torch.equal(drawn[k, b], tried[0])
            assert trial < 100


def test_label_aware_has_the_gradient_in_x():
    x = X.double().requires_grad_()
    kernel = LabelAware(Brightness(0.05), lambda x: (x.mean((1, 2, 3)) > 0.5).long())
    kernel.draw(x, key=0, index=INDEX).sum().backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="kernel: expected one with a gradient in delta"):
        MAT(LabelAware(L2Ball(0.1), halves))(torch.nn.Flatten(), X, halves(X), key=0, index=INDEX)


def test_label_aware_of_other_kernels():
    # other channels out than in
    kernel = LabelAware(BackgroundColour(), lambda x: torch.zeros(len(x), dtype=torch.int64))
    assert kernel.draw(X, key=0, index=INDEX).shape == (1, 6, 3, 2, 3) and kernel.shape_after((1, 2, 3)) == (3, 2, 3)
    kernel = LabelAware(OnManifold(REFERENCE, 0.9), halves)
    drawn = kernel.draw(X, key=0, index=INDEX, draws=9)
    assert (halves(drawn.flatten(0, 1)).view(9, 6) == halves(X)).all()
    assert LabelAware(OnManifold(X[:1], 0.1), halves).defined(X).tolist() == [True] + 5 * [False]


def test_a_label_that_never_comes():
    seen = []

    def once(x):
        seen.append(len(x))
        return torch.full((len(x),), len(seen)).where(torch.arange(len(x)) > 0, 0)

    with pytest.raises(
        ValueError,
        match=r"labeller: expected the label of x in at least one of 7 draws of l2_ball\(0.5\), got it in none "
        r"for 5 of 6 images, the first at \[1, 2, 3, 4, 5\]",
    ):
        LabelAware(L2Ball(0.5), once, tries=7).draw(X, key=0, index=INDEX)
    with pytest.raises(ValueError, match="labeller: expected the label of x in at least one of 1 draws"):
        LabelAware(LinfBall(0.9), halves, tries=1).draw(X, key=0, index=INDEX, draws=9)


def test_label_aware_errors():
    with pytest.raises(TypeError, match="kernel: expected a Kernel, got int"):
        LabelAware(3, halves)
    with pytest.raises(TypeError, match="labeller: expected a callable, got int"):
        LabelAware(L2Ball(1), 3)
    with pytest.raises(ValueError, match="tries: expected an integer above 0"):
        LabelAware(L2Ball(1), halves, tries=0)
    for labeller, error in ((lambda x: x, "torch.int64, got torch.float32"), (lambda x: 3, "a tensor, got int")):
        with pytest.raises(TypeError, match=rf"labeller\(x\): expected {error}"):
            LabelAware(L2Ball(1), labeller).draw(X, key=0, index=INDEX)
    with pytest.raises(ValueError, match=r"labeller\(x\): expected shape \[6\], got \[6, 1\]"):
        LabelAware(L2Ball(1), lambda x: halves(x)[:, None]).draw(X, key=0, index=INDEX)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_manifold_draws_are_those_in_the_ball(norm, dtype):
    eps = {1: 1.4, 2: 0.7, math.inf: 0.5}[norm]
    kernel = OnManifold(REFERENCE.to(dtype), eps, norm)
    drawn = kernel.draw(X, key=0, index=INDEX, draws=4000)
    for b in range(6):
        near = near_by_hand(X[b], eps, norm)
        assert len(near) > 1
        which = (drawn[:, b, None] == REFERENCE[near]).flatten(2).all(2)
        assert (which.sum(1) == 1).all()
        fraction = which.double().mean(0)
        assert (fraction - 1 / len(near)).abs().max() < 5 / math.sqrt(4000 * len(near))


def test_the_ball_is_open_and_a_reference_image_is_in_its_own():
    reference = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None]
    drawn = OnManifold(reference, 0.5).draw(reference, key=0, index=torch.arange(3), draws=50)
    assert torch.equal(drawn, reference.expand(50, 3, 1, 1, 1))
    drawn = OnManifold(reference, 0.51).draw(reference[:1], key=0, index=torch.arange(1), draws=50)
    assert drawn.unique().tolist() == [0, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_features(dtype):
    reference = torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for eps in (1e-9, 1e-7, 1e-3):
        kernel = OnManifold(reference, eps)
        assert kernel.defined(reference).all() and not kernel._cached
        assert torch.equal(kernel.draw(reference, key=0, index=torch.arange(300))[0], reference)
        assert not kernel.defined(1 - reference).any()
    shifted = reference.clone()
    shifted[:, 0, 3, 4] += 2**-20  # without rounding
    for eps, there in ((2**-20, False), (2**-20 * 1.001, True)):
        kernel = OnManifold(reference[:1], eps)
        distance = (shifted[0].double() - reference[0].double()).norm().item()
        assert kernel.defined(shifted[:1]).tolist() == [distance < eps] and (distance < eps) == there
    distance = (reference[1].double() - reference[0].double()).norm().item()
    with pytest.raises(ValueError, match=rf"distance {distance:g} of the nearest .* \(image 0 and 0 more\)"):
        OnManifold(reference[:1], 1e-7).draw(reference[1:2], key=0, index=torch.arange(1))


def test_neighbours_do_not_depend_on_the_batch():
    reference = torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    kernel, x = OnManifold(reference, 11.4), torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    distances = (x.double()[:, None] - reference.double()).flatten(2).norm(dim=2)
    inside = distances < 11.4
    assert 0 < inside.double().mean() < 1 and inside.any(1).all()
    assert torch.equal(kernel.defined(x), inside.any(1)) and kernel.defined(x[:0]).shape == (0,)
    full = kernel._neighbours(x)
    for b in range(9):
        assert torch.equal(full[b], inside[b].nonzero()[:, 0])
        assert torch.equal(OnManifold(reference, 11.4)._neighbours(x[b : b + 1])[0], full[b])


def test_the_reference_is_a_copy():
    reference = REFERENCE.clone()
    kernel = OnManifold(reference, 0.9)
    before = kernel.draw(X, key=0, index=INDEX, draws=5)
    reference.zero_()
    assert torch.equal(kernel.draw(X, key=0, index=INDEX, draws=5), before)
    kernel._cached = {}
    assert torch.equal(kernel.draw(X, key=0, index=INDEX, draws=5), before)


def test_an_empty_ball():
    near = [near_by_hand(x, 0.45, 2) for x in X]
    kernel = OnManifold(REFERENCE, 0.45)
    there = torch.tensor([len(indices) > 0 for indices in near])
    assert torch.equal(kernel.defined(X), there) and 0 < there.sum() < 6
    row = int(there.int().argmin())
    distance = (REFERENCE - X[row]).flatten(1).norm(dim=1).min()
    others = int((~there).sum()) - 1
    with pytest.raises(
        ValueError,
        match=f"eps: expected more than the distance {distance:.4f}.* of the nearest "
        rf"reference image to x, got 0.45 \(image {row} and {others} more\)",
    ):
        kernel.draw(X, key=0, index=INDEX)
    found = rp.basic_robustness(lambda x: torch.stack([halves(x), 1 - halves(x)], 1).double(), X, kernel, samples=60)
    assert torch.equal(found.rho.isnan(), ~there) and (found.draws[~there] == 0).all()
    for b in there.nonzero()[:, 0].tolist():
        same = (halves(REFERENCE[near[b]]) == halves(X[b : b + 1])).double().mean()
        assert found.lower[b] <= same <= found.upper[b]


def test_on_manifold_in_a_composition():
    kernel = Compose([OnManifold(REFERENCE, 0.9), Brightness(0.1)])
    assert kernel.draw(X, key=0, index=INDEX, draws=3).shape == (3, 6, 1, 2, 3)


def test_on_manifold_errors():
    with pytest.raises(ValueError, match="reference: expected images, got none"):
        OnManifold(REFERENCE[:0], 1)
    with pytest.raises(ValueError, match="reference: expected finite pixels"):
        OnManifold(REFERENCE * math.inf, 1)
    with pytest.raises(ValueError, match="reference: expected shape"):
        OnManifold(REFERENCE[:, 0], 1)
    with pytest.raises(TypeError, match="reference: expected a tensor"):
        OnManifold([1], 1)
    for eps in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="eps: expected a finite number above 0"):
            OnManifold(REFERENCE, eps)
    with pytest.raises(ValueError, match="norm: expected 1, 2 or inf"):
        OnManifold(REFERENCE, 1, norm=3)
    with pytest.raises(ValueError, match=r"x: expected images like the reference, \[1, 2, 3\], got \[1, 3, 2\]"):
        OnManifold(REFERENCE, 1).draw(X.transpose(2, 3), key=0, index=INDEX)


def test_texts():
    assert repr(OnManifold(REFERENCE, 0.5)) == "on_manifold(200 images, 0.5, 2)"
    assert repr(LabelAware(L2Ball(0.5), halves)).startswith("label_aware(l2_ball(0.5), <function halves")
