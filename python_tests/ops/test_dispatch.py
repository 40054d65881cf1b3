"""The operations in torch.library, torch.compile and torch's transforms, and the direct call past the dispatcher."""

import copy
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robustperf import _native, ops
from robustperf.nuisance import Compose, Contrast, Gamma, GaussianNoise, Hue, Rotation
from robustperf.ops import registry
from robustperf.ops.search_state import new_search

HERE = [name for name in ("reference", "native") if registry.missing(name) is None]

on_every_op = pytest.mark.parametrize("op", registry.ops())
on_every_cpu_backend = pytest.mark.parametrize("name", HERE)


# ---- torch.library


def line_search_arguments(dtype, logits):
    g = torch.Generator().manual_seed(0)
    points, ensemble, dim = 4, 2, 6
    active = 3
    lines, state = new_search(
        torch.ones(points, dtype=torch.float64),
        torch.ones(points, ensemble, dtype=torch.float64),
        torch.full((points, ensemble), math.nan, dtype=torch.float64),
    )
    rows, label = torch.tensor([2, 0, 1]), torch.zeros(points, dtype=torch.int64)
    x = torch.rand(points, dim, generator=g).to(dtype)
    candidates = torch.rand(ensemble, points, dim, generator=g).to(dtype)
    args = (
        None,
        rows,
        label,
        x,
        candidates,
        lines,
        state,
        torch.zeros(active, dim, dtype=dtype),
        torch.zeros(points, dim, dtype=dtype),
    )
    if logits is None:
        return args
    ops.line_search_step(*args, tol=2.0**-6)
    return (torch.randn(active, 3, generator=g).to(logits), *args[1:])


def samples(name):
    """(operation, arguments) of torch.ops.robustperf: each dtype, each layout, empty batches and each option; opcheck
    takes too long for all combinations."""
    library = torch.ops.robustperf
    g = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        logits = torch.randn(4, 6, generator=g).to(dtype)
        for z in (logits, logits[:, ::2], logits[:0]) if dtype == torch.float32 else (logits,):
            yield library.logit_gap, (z, torch.zeros(len(z), dtype=torch.int64), 1e-7, name)
    for dtype in (torch.float32, torch.float64):
        x, w = torch.rand(3, 5, generator=g).to(dtype), torch.randn(3, 5, generator=g).to(dtype)
        c = torch.rand(3, generator=g, dtype=torch.float64)
        for code in (1, 2, 3) if dtype == torch.float32 else (2,):
            yield library.halfspace_box_projection, (x, w, c, code, 0.0, 1.0, name)
        box = torch.zeros_like(x[0]), torch.ones_like(x[0])
        for code in (1, 2, 3) if dtype == torch.float32 else (2,):
            yield library.ball_box_projection, (x, w, c, *box, code, name)
    yield library.halfspace_box_projection, (x.t().contiguous().t(), w, c, 2, 0.0, 1.0, name)
    yield library.halfspace_box_projection, (x[:0], w[:0], c[:0], 2, 0.0, 1.0, name)
    yield library.ball_box_projection, (x.t().contiguous().t(), w, c, *box, 2, name)
    yield library.ball_box_projection, (x[:0], w[:0], c[:0], *box, 2, name)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        logits, target = torch.randn(3, 4, 6, generator=g).to(dtype), torch.arange(4)
        loss = torch.zeros(4, dtype=dtype if dtype == torch.float64 else torch.float32)
        for whole_batch in (False, True) if dtype == torch.float32 else (False,):
            yield library.best_of_k, (logits, target, loss, target.clone(), 2, True, whole_batch, 0.1, -100, name)
    for z, y in ((logits[:, ::2], target[::2]), (logits[:, :0], target[:0])):
        yield library.best_of_k, (z, y, loss[: len(y)], y.clone(), 0, False, False, 0.0, -100, name)
    # test_nuisance_compile.py has other programs and layouts.
    for dtype, kernels in (
        (torch.float32, [Rotation(30), Contrast(0.4), Gamma(0.3)]), (torch.float64, [Hue(0.1), GaussianNoise(0.1)]),
    ):  # fmt: skip
        x, index, draw = torch.rand(2, 3, 5, 4, generator=g).to(dtype), torch.arange(2), torch.arange(3)
        program = Compose(kernels).parts[0].program
        layout = program.layout((3, 5, 4))
        how = layout.codes, layout.parameters
        delta = ops.nuisance_sample(1, index, draw, program, (3, 5, 4)).to(dtype)
        yield library.nuisance, (x, delta, *how, name)
        yield library.nuisance_backward, (torch.rand(3, 2, 3, 5, 4, generator=g).to(dtype), x, delta, *how, name)
        out = torch.zeros(3, 2, 3, 5, 4, dtype=dtype)
        for key in ((7, None), (0, torch.tensor(7))):
            yield library.nuisance_draw, (out, x, index, draw, *how, *key, name)
            yield library.nuisance_sample, (index, draw, *how, *key, name)
    for normal in (False, True):
        for key in ((7, None), (-7, None), (0, torch.tensor(-7))):
            yield library.draws, (*key, torch.arange(3), torch.arange(2), 5, normal, name)
        yield library.draws, (7, None, torch.arange(6)[::2], torch.arange(0), 5, normal, name)
    for dtype in (torch.float32, torch.float64):
        x, support, dual = (torch.randn(size, generator=g).to(dtype) for size in ((4, 3), (6, 3), (2, 6)))
        for points in (x, x.t().contiguous().t(), x[:0]) if dtype == torch.float32 else (x,):
            yield library.rbf_decision, (points, support, dual, dual[:, 0], 0.5, name)
            yield library.rbf_decision, (points.clone().requires_grad_(), support, dual, dual[:, 0], 0.5, name)
            yield library.rbf_decision_backward, (points[:, :2], points, support, dual, 0.5, name)
    for dtype, logits in (
        (torch.float32, None), (torch.float32, torch.bfloat16), (torch.float64, torch.float32),
        (torch.float64, torch.float64),
    ):  # fmt: skip
        args = line_search_arguments(dtype, logits)
        yield library.line_search_step, (*args, 1e-7, 2.0**-6, False, 0, 12, name)


QUICK_CHECKS = "test_schema", "test_autograd_registration", "test_faketensor"


@on_every_cpu_backend
@on_every_op
def test_opcheck(op, name):
    mine = [(operation, args) for operation, args in samples(name) if operation is getattr(torch.ops.robustperf, op)]
    assert len(mine) >= 2
    for number, (operation, args) in enumerate(mine):
        # the slow one, which compiles, for the first arguments only
        further = ["test_aot_dispatch_dynamic"] if number == 0 else []
        torch.library.opcheck(operation.default, args, test_utils=[*QUICK_CHECKS, *further])


def test_the_arguments_that_an_operation_writes_to():
    written = {
        op: [
            argument.name
            for argument in getattr(torch.ops.robustperf, op).default._schema.arguments
            if argument.is_write
        ]
        for op in registry.ops()
    }
    want = {op: [] for op in registry.ops()}
    want |= {"best_of_k": ["loss", "index"], "line_search_step": ["lines", "state", "next", "closest"],
             "nuisance_draw": ["out"]}  # fmt: skip
    assert written == want


@on_every_cpu_backend
@pytest.mark.parametrize("op", ["logit_gap", "ball_box_projection", "halfspace_box_projection"])
def test_opcheck_where_an_input_asks_for_gradients(op, name):
    operation = getattr(torch.ops.robustperf, op)
    args = next(args for one, args in samples(name) if one is operation)
    args = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
    torch.library.opcheck(operation.default, tuple(args))
    outputs = operation(*args)
    assert not any(out.requires_grad for out in (outputs if isinstance(outputs, tuple) else [outputs]))


# ---- torch.compile


def gap(logits, label, name):
    return ops.logit_gap(logits * 2, label, backend=name) + 1


def step_into_the_halfspace(x, w, c, name):
    delta, feasible = ops.halfspace_box_projection(x, -w, c, norm=1, backend=name)
    return x + delta, feasible


def step_into_the_ball(x, delta, radius, name):
    return x + ops.ball_box_projection(x, 2 * delta, radius, norm=1, upper=1.5, backend=name)


def worst(logits, target, name):
    return ops.best_of_k(logits * 2, target, selection="batch", backend=name)


def jitter(index, numbers, name):
    return ops.draws(2**63 + 5, index, numbers, 7, normal=True, backend=name) * 0.1


def search_step(*args):
    ops.line_search_step(*args[:-1], tol=2.0**-6, backend=args[-1])
    return [args[i] + 0 for i in (5, 6, 7, 8)]


@pytest.mark.parametrize("name", [None, *HERE])
@pytest.mark.parametrize("function, arguments", [
    (gap, (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))),
    (step_into_the_halfspace, (torch.rand(3, 5), torch.randn(3, 5), torch.full((3,), 0.3))),
    (step_into_the_ball, (torch.rand(3, 2, 5), torch.randn(3, 2, 5), torch.full((3,), 0.3))),
    (worst, (torch.randn(5, 4, 3), torch.tensor([0, 1, 2, 0]))),
    (jitter, (torch.arange(3), torch.arange(2))),
    (search_step, line_search_arguments(torch.float32, torch.float32)),
], ids=["logit_gap", "halfspace_box_projection", "ball_box_projection", "best_of_k", "draws",
        "line_search_step"])  # fmt: skip
def test_a_compiled_function_equals_the_eager_one(function, arguments, name):
    torch.compiler.reset()
    want = function(*copy.deepcopy(arguments), name)
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(*copy.deepcopy(arguments), name)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_a_compiled_function_takes_other_batch_sizes():
    torch.compiler.reset()
    compiled = torch.compile(gap, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5, 9):
        logits, label = torch.randn(batch, 4), torch.arange(batch) % 4
        assert torch.equal(compiled(logits, label, None), gap(logits, label, None))


def test_a_compiled_call_refuses_an_unknown_backend():
    torch.compiler.reset()
    with pytest.raises(Exception, match="backend: expected one of"):
        torch.compile(gap, backend="aot_eager")(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), "fast")


# ---- the direct call


class Recorder(TorchDispatchMode):
    """The names of the operations that pass the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    """A tensor that names the operations on it."""

    names: list[str] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.names.append(str(func))
        return super().__torch_function__(func, types, args, kwargs or {})


def test_modes_profilers_and_tracers_see_every_call():
    logits, target = torch.randn(3, 4, 5), torch.arange(4)
    want = ops.best_of_k(logits, target)
    with Recorder() as recorder:
        got = ops.best_of_k(logits, target)
    assert "robustperf.best_of_k.default" in recorder.names and all(map(torch.equal, got, want))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ops.best_of_k(logits, target)
    assert "robustperf::best_of_k" in {event.name for event in profile.events()}
    traced = torch.jit.trace(lambda z: ops.logit_gap(z, target), logits[0], check_trace=False)
    assert "robustperf::logit_gap" in str(traced.graph)
    assert torch.equal(traced(logits[1]), ops.logit_gap(logits[1], target))


def test_a_subclass_sees_its_calls():
    logits, target = torch.randn(4, 5), torch.arange(4)
    Subclass.names.clear()
    got = ops.logit_gap(logits.as_subclass(Subclass), target)
    assert any("logit_gap" in name for name in Subclass.names)
    assert torch.equal(got.as_subclass(torch.Tensor), ops.logit_gap(logits, target))


def test_a_transform_gets_what_the_plain_call_gives():
    logits, target = torch.randn(6, 3, 4, 5), torch.arange(4)
    got = torch.func.vmap(lambda z: ops.logit_gap(z, target))(logits[:, 0])
    assert torch.equal(got, torch.stack([ops.logit_gap(z, target) for z in logits[:, 0]]))


def test_a_bad_label_is_reported_and_the_call_runs_once(monkeypatch):
    calls, compiled = [], _native.best_of_k
    monkeypatch.setattr(_native, "best_of_k", lambda *args: calls.append(args) or compiled(*args))
    with pytest.raises(ValueError, match=r"target: expected labels in 0\.\.2, got 3"):
        ops.best_of_k(torch.zeros(2, 4, 3), torch.arange(4))
    assert len(calls) == 1


@pytest.mark.parametrize("name", HERE)
def test_results_are_constants_where_an_operation_has_no_gradient(name):
    logits = torch.randn(4, 5, requires_grad=True)
    assert not ops.logit_gap(logits, torch.arange(4), backend=name).requires_grad
    x = torch.rand(3, 5, requires_grad=True)
    delta, _ = ops.halfspace_box_projection(x, torch.randn(3, 5, requires_grad=True), torch.ones(3), backend=name)
    assert not delta.requires_grad
