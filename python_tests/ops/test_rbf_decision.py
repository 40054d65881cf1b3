"""The decision function of RBF support vector machines on every backend against plain loops in float64 and against
scikit-learn."""

import math
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.svm import SVC

from robustperf.ops import rbf_decision, registry

OP = "rbf_decision"
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}  # relative to the sum of |dual|

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def loops(x, support, dual, intercept, gamma):
    """(decision [B, P], its gradient [B, P, D]) by the formula, number by number."""
    x, support, dual, intercept = (t.double().tolist() for t in (x, support, dual, intercept))
    decision, gradient = [], []
    for point in x:
        decision.append([]), gradient.append([])
        for row, constant in zip(dual, intercept, strict=True):
            total, slope = constant, [0.0] * len(point)
            for weight, vector in zip(row, support, strict=True):
                difference = [a - b for a, b in zip(point, vector, strict=True)]
                value = weight * math.exp(-gamma * math.fsum(d * d for d in difference))
                total += value
                slope = [s - 2 * gamma * value * d for s, d in zip(slope, difference, strict=True)]
            decision[-1].append(total), gradient[-1].append(slope)
    return torch.tensor(decision, dtype=torch.float64), torch.tensor(gradient, dtype=torch.float64)


def sample(batch, supports, dim, classifiers, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = (batch, dim), (supports, dim), (classifiers, supports), (classifiers,)
    return [torch.randn(size, generator=g, dtype=torch.float64).to(dtype) for size in sizes]


def run(x, support, dual, intercept, gamma, backend, device, grad=None):
    """(decision, its gradient for `grad` or None), on the CPU."""
    x = x.detach().to(device).clone().requires_grad_(grad is not None)
    decision = rbf_decision(x, support.to(device), dual.to(device), intercept.to(device), gamma, backend=backend)
    assert decision.shape == (x.shape[0], dual.shape[0])
    assert (decision.dtype, decision.device) == (x.dtype, x.device)
    if grad is not None:
        decision.backward(grad.to(device))
    return decision.detach().cpu(), None if grad is None else x.grad.cpu()


def scale(dual):
    return dual.double().abs().sum(1).amax().item() if dual.numel() else 1.0


# ---- against the formula


@every_dtype
@pytest.mark.parametrize("batch, supports, dim, classifiers", [
    (1, 1, 1, 1), (5, 7, 3, 1), (3, 16, 2, 45), (2, 15, 9, 3), (4, 17, 5, 2), (7, 33, 4, 6), (3, 40, 0, 2),
])  # fmt: skip
@pytest.mark.parametrize("gamma", [0.05, 1, 7.5])
def test_the_formula_and_its_gradient(backend, device, batch, supports, dim, classifiers, gamma, dtype):
    operands = sample(batch, supports, dim, classifiers, dtype)
    want, slopes = loops(*operands, gamma)
    grad = sample(batch, 1, classifiers, 1, dtype, seed=1)[0]
    decision, gradient = run(*operands, gamma, backend, device, grad)
    tolerance = TOLERANCE[dtype] * scale(operands[2])
    torch.testing.assert_close(decision.double(), want, rtol=0, atol=tolerance)
    want = (grad.double()[..., None] * slopes.view(batch, classifiers, dim)).sum(1)
    torch.testing.assert_close(gradient.double(), want, rtol=0, atol=10 * (1 + gamma) * tolerance)


@every_dtype
@pytest.mark.parametrize("batch, supports", [(513, 3), (3, 4100), (257, 2049)])
def test_more_than_one_block(backend, device, batch, supports, dtype):
    x, support, dual, intercept = sample(batch, supports, 6, 4, dtype)
    grad = sample(batch, 1, 4, 1, dtype, seed=1)[0]
    decision, gradient = run(x, support, dual, intercept, 0.2, backend, device, grad)
    kernel = torch.exp(-0.2 * (x[:, None].double() - support.double()).square().sum(2))
    tolerance = TOLERANCE[dtype] * scale(dual)
    torch.testing.assert_close(decision.double(), kernel @ dual.double().T + intercept.double(), rtol=0, atol=tolerance)
    weight = kernel * (grad.double() @ dual.double())
    want = 0.4 * torch.einsum("bs,bsd->bd", weight, support.double() - x[:, None].double())
    torch.testing.assert_close(gradient.double(), want, rtol=0, atol=10 * tolerance)


@every_dtype
def test_scikit_learns_own(backend, device, dtype):
    points, labels = make_blobs(120, n_features=5, centers=2, cluster_std=4.0, random_state=0)
    svc = SVC(gamma=0.03, C=3).fit(points, labels)
    operands = [torch.tensor(v, dtype=dtype) for v in (points, svc.support_vectors_, svc.dual_coef_, svc.intercept_)]
    decision, _ = run(*operands, 0.03, backend, device)
    want = torch.tensor(svc.decision_function(points))
    torch.testing.assert_close(decision[:, 0].double(), want, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


few_and_many = pytest.mark.parametrize("batch", [6, 40])  # of few points the native backend takes differences


@every_dtype
@few_and_many
def test_points_far_from_the_origin_are_as_exact(backend, device, batch, dtype):
    """|x|^2 + |s|^2 - 2 <x, s> as it stands would leave no digit in float32."""
    x, support, dual, intercept = sample(batch, 30, 8, 3, dtype)
    x, support = ((64 * t).round() / 64 + 4096 for t in (x, support))  # exact in float32
    grad = torch.ones(batch, 3, dtype=dtype)
    far = run(x, support, dual, intercept, 0.3, backend, device, grad)
    near = run(x - 4096, support - 4096, dual, intercept, 0.3, backend, device, grad)
    for one, other in zip(far, near, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=20 * TOLERANCE[dtype] * scale(dual))


def test_a_point_on_a_support_vector(backend, device):
    for size in (1e-3, 1.0, 1e3):
        support = size * sample(20, 1, 50, 1)[0]
        decision, _ = run(support, support, torch.eye(20), torch.zeros(20), 1e-3 / size**2, backend, device)
        assert decision.diagonal().sub(1).abs().max() < 1e-6
        assert decision.max() <= 1 + 1e-6


def test_gradients_against_finite_differences(backend, device):
    x, *rest = (t.to(device) for t in sample(3, 11, 4, 5, torch.float64))
    assert torch.autograd.gradcheck(lambda x: rbf_decision(x, *rest, 0.4, backend=backend), x.requires_grad_())


@pytest.mark.parametrize("setting", [("allow_tf32", True), ("fp32_precision", "tf32")], ids=lambda s: s[0])
def test_a_gpu_that_may_use_tf32_does_not(backend, device, setting):
    if device.type != "cuda":
        pytest.skip("TensorFloat-32 is a GPU's")
    settings = torch.backends.cuda.matmul
    if not hasattr(settings, setting[0]):
        pytest.skip(f"torch has no {setting[0]} yet")
    operands = sample(64, 500, 784, 3)
    operands[0], operands[1] = operands[0] / 8, operands[1] / 8
    grad = torch.ones(64, 3)
    want = run(*(t.double() for t in operands), 0.05, "reference", "cpu", grad.double())
    try:
        setattr(settings, *setting)
        got = run(*operands, 0.05, backend, device, grad)
        assert getattr(settings, setting[0]) == setting[1], "as it was"
    finally:
        settings.allow_tf32 = False
    for one, other in zip(got, want, strict=True):  # a tenth of what such products would be off by
        torch.testing.assert_close(one.double(), other, rtol=0, atol=4e-8 * scale(operands[2]))


def test_products_have_full_precision_and_the_setting_is_restored():
    from robustperf.ops.rbf_blocks import full_precision_products

    settings, on_gpu = torch.backends.cuda.matmul, SimpleNamespace(is_cuda=True)
    try:
        for name, value in (("allow_tf32", True), ("allow_tf32", False), ("fp32_precision", "tf32")):
            if name == "fp32_precision" and not hasattr(settings, name):
                continue
            setattr(settings, name, value)
            with full_precision_products(torch.zeros(1)):
                assert getattr(settings, name) == value, "on a CPU"
            with pytest.raises(ZeroDivisionError), full_precision_products(on_gpu):
                assert not settings.allow_tf32
                raise ZeroDivisionError
            assert getattr(settings, name) == value
    finally:
        settings.allow_tf32 = False


# ---- what is odd


@every_dtype
def test_nothing_to_look_at(backend, device, dtype):
    for sizes in ((0, 3, 2, 2), (3, 0, 2, 2), (3, 2, 2, 0), (0, 0, 0, 0)):
        operands, grad = sample(*sizes, dtype), torch.ones(sizes[0], sizes[3], dtype=dtype)
        decision, gradient = run(*operands, 1.0, backend, device, grad)
        if sizes[1] == 0:
            assert torch.equal(decision, operands[3].expand_as(decision)) and not gradient.any()


@every_dtype
@few_and_many
def test_rows_that_are_not_finite_give_nan_and_the_others_what_they_gave(backend, device, batch, dtype):
    x, support, dual, intercept = sample(batch, 20, 5, 3, dtype)
    want, _ = run(x, support, dual, intercept, 0.5, backend, device)
    spoilt = x.clone()
    spoilt[1, 2], spoilt[3, 0], spoilt[4, 4] = math.nan, math.inf, -math.inf
    decision, gradient = run(spoilt, support, dual, intercept, 0.5, backend, device, torch.ones(batch, 3, dtype=dtype))
    assert decision[[1, 3, 4]].isnan().all() and gradient[[1, 3, 4]].isnan().all()
    assert torch.equal(decision[[0, 2, 5]], want[[0, 2, 5]]) and gradient[[0, 2, 5]].isfinite().all()


def test_operands_that_are_not_numbers_spoil_what_they_touch(backend, device):
    x, support, dual, intercept = sample(4, 20, 5, 3)
    for place, value in ((1, math.nan), (1, math.inf)):
        wrong = [x, support.clone(), dual, intercept]
        wrong[place][0, 0] = value
        if (backend, value) != ("reference", math.inf):  # there exp(-inf) is 0, as it should be
            assert run(*wrong, 0.5, backend, device)[0].isnan().all()
    wrong = dual.clone()
    wrong[1, 2] = math.nan
    decision, _ = run(x, support, wrong, intercept, 0.5, backend, device)
    assert decision[:, 1].isnan().all() and decision[:, [0, 2]].isfinite().all()


@every_dtype
@pytest.mark.parametrize("batch", [3, 200])
def test_columns_without_a_support_and_machines_without_a_vector_count(backend, device, batch, dtype):
    """Zeros are left out of the sums; x may be anything there, and is NaN for every classifier where it is NaN."""
    x, support, dual, intercept = sample(batch, 600, 12, 4, dtype)
    support[:, ::3] = 0
    dual[:, :300], dual[2] = dual[:, :300] * torch.tensor([[0.0], [1.0], [0.0], [1.0]], dtype=dtype), 0
    decision, gradient = run(x, support, dual, intercept, 0.05, backend, device, torch.ones(batch, 4, dtype=dtype))
    want, slopes = run(x, support, dual, intercept, 0.05, "reference", "cpu", torch.ones(batch, 4, dtype=dtype))
    torch.testing.assert_close(decision, want, rtol=0, atol=TOLERANCE[dtype] * scale(dual))
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=20 * TOLERANCE[dtype] * scale(dual))
    assert torch.equal(decision[:, 2], intercept[2].expand(batch))
    x[1, 0] = math.nan
    decision, _ = run(x, support, dual, intercept, 0.05, backend, device)
    assert decision[1].isnan().all() and decision[[0, 2]].isfinite().all()


def test_far_away_only_the_intercept_is_left(backend, device):
    x, support, dual, intercept = sample(4, 20, 5, 3)
    for distance in (1e2, 1e6, 1e15):
        decision, gradient = run(x + distance, support, dual, intercept, 1.0, backend, device, torch.ones(4, 3))
        torch.testing.assert_close(decision, intercept.expand(4, 3), rtol=0, atol=1e-30)
        assert gradient.abs().max() < 1e-15


@every_dtype
def test_layout_does_not_matter(backend, device, dtype):
    x, support, dual, intercept = (t.to(device) for t in sample(6, 40, 10, 4, dtype))
    views = x.t().contiguous().t(), support[:, ::2], dual.t().contiguous().t()[:, :40], intercept
    views = (x[:, ::2], *views[1:])
    got = rbf_decision(*views, 0.5, backend=backend)
    want = rbf_decision(*(v.contiguous() for v in views), 0.5, backend=backend)
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE[dtype] * 40)


def test_inputs_are_left_as_they_were(backend, device):
    operands = [t.to(device) for t in sample(4, 20, 5, 3)]
    before = [t.clone() for t in operands]
    rbf_decision(operands[0].requires_grad_(), *operands[1:], 0.5, backend=backend).sum().backward()
    assert all(torch.equal(one, other) for one, other in zip(operands, before, strict=True))


def test_memory_does_not_grow_with_points_times_vectors():
    if registry.missing("native"):
        pytest.skip(registry.missing("native"))
    from robustperf.ops.native.rbf_decision import PRIMITIVES
    from robustperf.ops.rbf_blocks import kernel_blocks

    x, support, _, _ = sample(1000, 5000, 2, 1)
    blocks = [block for _, _, blocks in kernel_blocks(x, support, 1.0, PRIMITIVES) for block in blocks]
    sizes = [block.operands[0].numel() for block in blocks]
    assert sum(sizes) == 1000 * 5000 and max(sizes) <= 2**19


# ---- torch.compile, errors


def test_a_compiled_function_takes_other_batch_sizes_and_has_gradients(backend, device):
    torch.compiler.reset()
    _, *rest = (t.to(device) for t in sample(1, 11, 4, 3))

    def function(x):
        return rbf_decision(x * 2, *rest, 0.3, backend=backend).tanh()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5):
        x = sample(batch, 1, 4, 1)[0].to(device)
        results = []
        for call in (function, compiled):
            leaf = x.clone().requires_grad_()
            value = call(leaf)
            results.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_gradient_of_the_gradient_is_refused(backend, device):
    x, *rest = (t.to(device) for t in sample(2, 5, 3, 1))
    decision = rbf_decision(x.requires_grad_(), *rest, 0.5, backend=backend)
    with pytest.raises(NotImplementedError, match="rbf_decision: has no gradient of its gradient"):
        torch.autograd.grad(decision.sum(), x, create_graph=True)


@pytest.mark.parametrize("place, name", [(1, "support"), (2, "dual"), (3, "intercept")])
def test_only_x_has_a_gradient(backend, device, place, name):
    operands = [t.to(device) for t in sample(2, 5, 3, 1)]
    operands[place].requires_grad_()
    with pytest.raises(ValueError, match=f"{name}: expected a tensor without requires_grad, for only x has a gradient"):
        rbf_decision(*operands, 0.5, backend=backend)
    with torch.no_grad():
        rbf_decision(*operands, 0.5, backend=backend)


X, S, A, B = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(2, 5), torch.zeros(2)


@pytest.mark.parametrize("operands, gamma, error, message", [
    ((X.half(), S, A, B), 1, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    ((X.numpy(), S, A, B), 1, TypeError, r"x: expected a tensor, got ndarray"),
    ((X[0], S, A, B), 1, ValueError, r"x: expected shape \[B, D\], got \[3\]"),
    ((X, S.double(), A, B), 1, TypeError, r"support: expected torch.float32, got torch.float64"),
    ((X, S[:, :2], A, B), 1, ValueError, r"support: expected shape \[S, 3\], got \[5, 2\]"),
    ((X, S.to("meta"), A, B), 1, ValueError, r"support: expected a tensor on cpu, got one on meta"),
    ((X, S, A.T, B), 1, ValueError, r"dual: expected shape \[P, 5\], got \[5, 2\]"),
    ((X, S, A.double(), B), 1, TypeError, r"dual: expected torch.float32, got torch.float64"),
    ((X, S, A, B[:1]), 1, ValueError, r"intercept: expected shape \[2\], got \[1\]"),
    ((X, S, A, 0.0), 1, TypeError, r"intercept: expected a tensor, got float"),
    ((X, S, A, B), 0, ValueError, r"gamma: expected a finite number above 0, got 0"),
    ((X, S, A, B), -0.5, ValueError, r"gamma: expected a finite number above 0, got -0.5"),
    ((X, S, A, B), math.nan, ValueError, r"gamma: expected a finite number above 0, got nan"),
    ((X, S, A, B), math.inf, ValueError, r"gamma: expected a finite number above 0, got inf"),
    ((X, S, A, B), "scale", ValueError, r"gamma: expected a finite number above 0, got 'scale'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(operands, gamma, error, message):
    with pytest.raises(error, match=message):
        rbf_decision(*operands, gamma)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend: expected one of reference, native, cuda, triton, got 'fast'"):
        rbf_decision(X, S, A, B, 1.0, backend="fast")


def test_shapes_are_known_without_data():
    meta = [t.to("meta") for t in (X, S, A, B)]
    decision = rbf_decision(*meta, 1.0)
    assert (decision.shape, decision.dtype, decision.device.type) == ((4, 2), torch.float32, "meta")
