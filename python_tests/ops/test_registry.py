"""Which operations and backends there are, which backend a call takes and why another one is missing."""

import ast
import json
import threading
import warnings
from pathlib import Path

import pytest
import torch

import robustperf
from robustperf import _native, ops
from robustperf.ops import registry
from robustperf.ops.cuda.launch import launch

FOLDER = Path(robustperf.__file__).parent / "ops"

on_every_op = pytest.mark.parametrize("op", registry.ops())


# ---- what there is


def test_the_operations_are_those_that_registered_themselves():
    assert list(registry.ops()) == sorted(registry.ops())
    assert all(hasattr(torch.ops.robustperf, op) for op in registry.ops())
    public = set(ops.__all__) - {"preferring"}
    assert set(registry.ops()) == public | {"nuisance_backward", "rbf_decision_backward"}  # autograd's alone


def test_each_operation_has_its_file_in_every_backend():
    for op in registry.ops():
        assert registry.implemented(op) == registry.BACKENDS, op
    for op in set(ops.__all__) - {"preferring"}:
        assert (FOLDER / f"{op}.py").is_file() and getattr(ops, op).__module__ == f"robustperf.ops.{op}"


def test_backends_do_not_import_from_each_other():
    for name in registry.BACKENDS:
        for path in (FOLDER / name).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("robustperf.ops."):
                    *_, folder = node.module.split(".")[:3]
                    assert folder == name or folder not in registry.BACKENDS, f"{path} imports from {node.module}"


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
    for function in (registry.missing_op, registry.default, registry._warn_of_a_substitute):
        function.cache_clear()


@pytest.fixture
def clear_caches():
    yield
    for function in (registry.missing_op, registry.default, registry._warn_of_a_substitute):
        function.cache_clear()


def test_a_gpu_without_a_gpu_backend_is_served_by_the_reference_and_a_warning_says_why(monkeypatch, clear_caches):
    gpu_with(monkeypatch, cuda="no CUDA compiler (nvcc) was found", triton="pip install 'robustperf[triton]'")
    with pytest.warns(
        RuntimeWarning,
        match=r"on the reference backend.*cuda: no CUDA compiler \(nvcc\) was found; "
        r"triton: pip install 'robustperf\[triton\]'",
    ):
        assert registry.default("best_of_k", "cuda") == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning is enough
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


def test_a_driver_older_than_the_runtime_is_reported():
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


# ---- a preferred backend


CPU, META = torch.device("cpu"), torch.device("meta")
LOGITS, LABEL = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([0])


@pytest.fixture
def native_calls(monkeypatch):
    """The arguments of each call of the compiled logit_gap."""
    calls, compiled = [], _native.logit_gap
    monkeypatch.setattr(_native, "logit_gap", lambda *args: calls.append(args) or compiled(*args))
    return calls


def test_the_preferred_backend_serves_calls_without_one(native_calls):
    ops.logit_gap(LOGITS, LABEL)
    assert len(native_calls) == 1
    with ops.preferring("reference"):
        ops.logit_gap(LOGITS, LABEL)
        assert len(native_calls) == 1
        ops.logit_gap(LOGITS, LABEL, backend="native")
        assert len(native_calls) == 2, "an explicit backend wins"
    ops.logit_gap(LOGITS, LABEL)
    assert len(native_calls) == 3


def test_preferences_nest_and_end_with_an_error():
    with ops.preferring("reference"):
        with ops.preferring("native"):
            assert registry.choose("draws", None, CPU) == "native"
        assert registry.choose("draws", None, CPU) == "reference"
        with pytest.raises(KeyError), ops.preferring("native"):
            raise KeyError
        assert registry.choose("draws", None, CPU) == "reference"
    assert registry.choose("draws", None, CPU) == "native"


def test_a_device_that_the_preferred_backend_does_not_serve_takes_its_default():
    with ops.preferring("native"):
        assert registry.choose("draws", None, META) == "reference"


def test_each_thread_has_a_preference_of_its_own():
    chosen, both = {}, threading.Barrier(2)

    def choose(name):
        with ops.preferring(name):
            both.wait()
            chosen[name] = registry.choose("draws", None, CPU)
            both.wait()

    threads = [threading.Thread(target=choose, args=(name,)) for name in ("reference", "native")]
    with ops.preferring("reference"):
        new = threading.Thread(target=lambda: chosen.update(new=registry.choose("draws", None, CPU)))
        for thread in (*threads, new):
            thread.start()
        for thread in (*threads, new):
            thread.join()
    assert chosen == {"reference": "reference", "native": "native", "new": "native"}


def test_a_preferred_backend_that_is_unknown_or_missing_is_an_error():
    with pytest.raises(ValueError, match="backend: expected one of .* got 'fast'"), ops.preferring("fast"):
        pass
    if reason := registry.missing("cuda"):
        with pytest.raises(ValueError) as error, ops.preferring("cuda"):
            pass
        assert str(error.value) == f"backend: 'cuda' is missing here: {reason}"


def test_a_compiled_function_keeps_the_backend_that_it_was_traced_with(native_calls):
    torch.compiler.reset()
    compiled = torch.compile(lambda logits: ops.logit_gap(logits, LABEL), fullgraph=True, backend="aot_eager")
    with ops.preferring("reference"):
        compiled(LOGITS)
    compiled(LOGITS)
    assert not native_calls
