"""Which backend a call takes and why another one is missing; the operations inside torch.library and torch.compile."""

import copy
import json
import math
import warnings
from pathlib import Path

import pytest
import torch

import robustperf
from robustperf import ops
from robustperf.nuisance import Compose, Contrast, Gamma, GaussianNoise, Hue, Rotation
from robustperf.ops import registry
from robustperf.ops.cuda.launch import launch
from robustperf.ops.line_search_step import new_search

HERE = [name for name in ("reference", "native") if registry.missing(name) is None]
FOLDER = Path(robustperf.__file__).parent / "ops"

on_every_op = pytest.mark.parametrize("op", registry.OPS)
on_every_cpu_backend = pytest.mark.parametrize("name", HERE)


# ---- what there is


HELPERS = {"__init__", "elementary", "launch", "philox", "transforms", "transforms_backward"}


def test_the_folders_are_the_backends_and_the_files_are_the_operations():
    public = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "program", "registry"}
    backward = {"nuisance_backward", "rbf_decision_backward"}  # autograd's alone
    assert public == set(ops.__all__) == set(registry.OPS) - backward
    public |= backward
    for name in registry.BACKENDS:
        assert {path.stem for path in (FOLDER / name).glob("*.py")} - HELPERS <= public
    assert {path.stem for path in (FOLDER / "reference").glob("*.py")} >= public


@on_every_op
def test_the_reference_has_every_operation(op):
    assert registry.missing("reference") is None and registry.missing_op(op, "reference") is None
    assert registry.implementation(op, "reference").__module__ == f"robustperf.ops.reference.{op}"


@on_every_op
def test_native_is_there_and_is_the_default_on_the_cpu(op):
    assert registry.missing("native") is None, "the native module is always built"
    assert registry.default(op, "cpu") == "native"
    assert registry.choose(op, None, torch.device("cpu")) == "native"
    assert registry.implementation(op, "native").__module__ == f"robustperf.ops.native.{op}"


@on_every_op
def test_a_missing_backend_has_a_reason_and_a_present_one_is_callable(op):
    for name in registry.BACKENDS:
        reason = registry.missing_op(op, name)
        assert reason is None or (isinstance(reason, str) and len(reason) > 10)
        if reason is None:
            assert callable(registry.implementation(op, name))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@on_every_op
def test_without_a_gpu_its_backends_are_refused_with_the_reason(op):
    for name in ("cuda", "triton"):
        reason = registry.missing_op(op, name)
        assert reason
        with pytest.raises(ValueError) as error:
            registry.choose(op, name, torch.device("cpu"))
        assert str(error.value) == f"backend: {name!r} cannot run {op} here: {reason}"


def test_an_operation_that_a_backend_lacks_is_named():
    assert registry.missing_op("nonsense", "native") == "the native backend has no nonsense"
    with pytest.raises(ValueError, match="backend: 'native' cannot run nonsense here: the native backend has no"):
        registry.choose("nonsense", "native", torch.device("cpu"))


def test_modules_that_are_not_there_or_do_not_load_say_so(tmp_path, monkeypatch):
    (tmp_path / "robustperf_broken.py").write_text("raise ImportError('libnothing.so.1: cannot open shared object')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry._import_error("robustperf_broken") == "libnothing.so.1: cannot open shared object"
    assert "robustperf_absent" in registry._import_error("robustperf_absent")
    assert registry._import_error("robustperf_absent", "build it") == "build it"
    assert registry._import_error("json", "build it") is None


def test_what_setup_noted_is_read():
    noted = json.loads((FOLDER.parent / "_build_info.json").read_text())
    assert registry._build_info("cuda_missing") == noted["cuda_missing"]
    assert registry._build_info("nothing of the kind") is None


@on_every_op
def test_an_unknown_backend_is_named(op):
    for wrong in ("fast", "Native", "", 5):
        with pytest.raises(ValueError, match=f"backend: expected one of {', '.join(registry.BACKENDS)}, got {wrong!r}"):
            registry.choose(op, wrong, torch.device("cpu"))


@on_every_op
def test_a_device_that_is_no_ones_gets_the_reference_and_native_refuses_it(op):
    meta = torch.device("meta")
    assert registry.default(op, "meta") == "reference" == registry.choose(op, "reference", meta)
    with pytest.raises(ValueError, match="backend: 'native' does not run on tensors on meta"):
        registry.choose(op, "native", meta)
    with pytest.raises(ValueError, match="backend: 'native' does not run on tensors on cuda:1"):
        registry.choose(op, "native", torch.device("cuda", 1))


def test_native_asked_for_on_another_device_is_refused_by_the_operation():
    with pytest.raises(ValueError, match="backend: 'native' does not run on tensors on meta"):
        ops.logit_gap(
            torch.zeros(2, 3, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta"), backend="native"
        )
    x = torch.zeros(2, 3, device="meta")
    with pytest.raises(ValueError, match="backend: 'native' does not run on tensors on meta"):
        ops.halfspace_box_projection(x, x, x[:, 0], backend="native")


def test_on_the_meta_device_shapes_are_worked_out():
    x = torch.zeros(2, 3, device="meta")
    delta, feasible = ops.halfspace_box_projection(x, x, x[:, 0])
    assert (delta.shape, delta.dtype, delta.device.type) == (x.shape, x.dtype, "meta")
    assert (feasible.shape, feasible.dtype) == ((2,), torch.bool)
    gap = ops.logit_gap(x.bfloat16(), torch.zeros(2, dtype=torch.int64, device="meta"))
    assert (gap.shape, gap.dtype, gap.device.type) == ((2,), torch.float64, "meta")
    loss, index = ops.best_of_k(x.bfloat16()[None], torch.zeros(2, dtype=torch.int64, device="meta"))
    assert (loss.shape, loss.dtype, loss.device.type) == ((2,), torch.float32, "meta")
    assert (index.shape, index.dtype, index.device.type) == ((2,), torch.int64, "meta")
    index = torch.zeros(2, dtype=torch.int64, device="meta")
    out = ops.draws(0, index, torch.zeros(4, dtype=torch.int64, device="meta"), 5)
    assert (out.shape, out.dtype, out.device.type) == ((4, 2, 5), torch.float32, "meta")


# ---- a GPU that not every backend can use


def gpu_with(monkeypatch, **reasons):
    """The registry as it is on a machine with a GPU whose backends are missing for these reasons."""
    monkeypatch.setattr(registry, "missing", lambda backend: reasons.get(backend))
    for function in (registry.missing_op, registry.default, registry._tell_of_a_substitute):
        function.cache_clear()


@pytest.fixture
def clear_caches():
    yield
    for function in (registry.missing_op, registry.default, registry._tell_of_a_substitute):
        function.cache_clear()


def test_a_gpu_without_a_gpu_backend_is_served_by_the_reference_and_told_what_to_install(monkeypatch, clear_caches):
    gpu_with(monkeypatch, cuda="no CUDA compiler (nvcc) was found", triton="pip install 'robustperf[triton]'")
    with pytest.warns(
        RuntimeWarning,
        match=r"on the reference backend.*cuda: no CUDA compiler \(nvcc\) was found; "
        r"triton: pip install 'robustperf\[triton\]'",
    ):
        assert registry.default("best_of_k", "cuda") == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        assert registry.default("logit_gap", "cuda") == "reference"
    with pytest.raises(ValueError, match=r"backend: 'cuda' cannot run draws here: no CUDA compiler"):
        registry.choose("draws", "cuda", torch.device("cuda"))


@pytest.mark.parametrize("built", [True, False])
def test_triton_takes_over_with_a_warning_where_the_module_was_built(monkeypatch, clear_caches, built):
    gpu_with(monkeypatch, cuda="CUDA driver version is insufficient")
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: built or None)
    if built:
        with pytest.warns(RuntimeWarning, match="on the triton backend.*driver version is insufficient"):
            assert registry.default("best_of_k", "cuda") == "triton"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert registry.default("best_of_k", "cuda") == "triton"


def test_a_driver_older_than_the_runtime_is_found_out():
    pytest.importorskip("robustperf._native_cuda", reason="cuda: the GPU module was not built")
    reason = registry._no_driver()
    if torch.cuda.is_available():
        assert reason is None
    else:  # CUDA's own words where there is no driver at all
        assert "driver version is insufficient for CUDA runtime version: install a newer driver" in reason


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    module = pytest.importorskip("robustperf._native_cuda", reason="cuda: the GPU module was not built")
    monkeypatch.setattr(module, "devices", lambda: 1)
    for capability, reason in (((7, 5), "capability below 8.0"), ((8, 0), None), ((12, 0), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert reason is None is registry._no_driver() or reason in registry._no_driver()


def test_tensors_on_two_devices_are_refused():
    here, there = torch.zeros(2), torch.zeros(2, device="meta")
    with pytest.raises(ValueError, match="expected all tensors on cpu, got one on meta"):
        launch(None, here.device, here, 1, None, there)


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
    """(operation, arguments) of torch.ops.robustperf, over dtypes, layouts and empty batches."""
    library = torch.ops.robustperf
    g = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        logits = torch.randn(4, 6, generator=g).to(dtype)
        for z in (logits, logits[:, ::2], logits[:0]):
            yield library.logit_gap, (z, torch.zeros(len(z), dtype=torch.int64), 1e-7, name)
    for dtype in (torch.float32, torch.float64):
        x, w = torch.rand(3, 5, generator=g).to(dtype), torch.randn(3, 5, generator=g).to(dtype)
        c = torch.rand(3, generator=g, dtype=torch.float64)
        for code in (1, 2, 3):
            yield library.halfspace_box_projection, (x, w, c, code, 0.0, 1.0, name)
        yield library.halfspace_box_projection, (x.t().contiguous().t(), w, c, 2, 0.0, 1.0, name)
        yield library.halfspace_box_projection, (x[:0], w[:0], c[:0], 2, 0.0, 1.0, name)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        logits, target = torch.randn(3, 4, 6, generator=g).to(dtype), torch.arange(4)
        loss = torch.zeros(4, dtype=dtype if dtype == torch.float64 else torch.float32)
        for whole_batch in (False, True):
            yield library.best_of_k, (logits, target, loss, target.clone(), 2, True, whole_batch, 0.1, -100, name)
        yield library.best_of_k, (logits[:, :0], target[:0], loss[:0], target[:0], 0, False, False, 0.0, -100, name)
    for dtype in (torch.float32, torch.float64):
        x, index, draw = torch.rand(2, 3, 5, 4, generator=g).to(dtype), torch.arange(2), torch.arange(3)
        for kernels in ([Rotation(30), Contrast(0.4)], [Hue(0.1), GaussianNoise(0.1)], [Gamma(0.3)]):
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
        for points in (x, x.t().contiguous().t(), x[:0]):
            yield library.rbf_decision, (points, support, dual, dual[:, 0], 0.5, name)
            yield library.rbf_decision, (points.clone().requires_grad_(), support, dual, dual[:, 0], 0.5, name)
            yield library.rbf_decision_backward, (points[:, :2], points, support, dual, 0.5, name)
    for dtype in (torch.float32, torch.float64):
        for logits in (None, torch.float32, torch.float64, torch.bfloat16):
            args = line_search_arguments(dtype, logits)
            yield library.line_search_step, (*args, 1e-7, 2.0**-6, False, 0, 12, name)


@on_every_cpu_backend
@on_every_op
def test_opcheck(op, name):
    mine = [(operation, args) for operation, args in samples(name) if operation is getattr(torch.ops.robustperf, op)]
    assert len(mine) >= 6
    for operation, args in mine:
        torch.library.opcheck(operation.default, args)


def test_the_arguments_that_an_operation_writes_to():
    written = {
        op: [
            argument.name
            for argument in getattr(torch.ops.robustperf, op).default._schema.arguments
            if argument.is_write
        ]
        for op in registry.OPS
    }
    want = {op: [] for op in registry.OPS}
    want |= {"best_of_k": ["loss", "index"], "line_search_step": ["lines", "state", "next", "closest"],
             "nuisance_draw": ["out"]}  # fmt: skip
    assert written == want


@on_every_cpu_backend
@pytest.mark.parametrize("op", ["logit_gap", "halfspace_box_projection"])
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
    (worst, (torch.randn(5, 4, 3), torch.tensor([0, 1, 2, 0]))),
    (jitter, (torch.arange(3), torch.arange(2))),
    (search_step, line_search_arguments(torch.float32, torch.float32)),
], ids=["logit_gap", "halfspace_box_projection", "best_of_k", "draws", "line_search_step"])  # fmt: skip
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
