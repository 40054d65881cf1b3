"""What only a GPU shows: streams, CUDA graphs, no wait for the device, torch.library's checks on CUDA tensors. The
operations' values are tested in their own files, on every backend that is here."""

import pytest
import torch
from torch.utils._pytree import tree_map

from python_tests.ops.test_dispatch import samples
from robustperf import ops, random
from robustperf.nuisance import Affine, Compose, Contrast, Fog, GaussianNoise, Hue
from robustperf.ops import registry

GPU = torch.device("cuda")
BACKENDS = ("cuda", "triton")
KERNEL = Compose([Affine(), Contrast(), Hue(), GaussianNoise(), Fog()])
PROGRAM = KERNEL.parts[0].program
SHAPE = (3, 33, 31)

pytestmark = pytest.mark.gpu


@pytest.fixture(params=BACKENDS)
def name(request):
    reason = registry.missing(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def inputs(seed=0):
    """What the calls below work on, on the GPU; all of it may change in place."""
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(6, *SHAPE, generator=g)
    layout = PROGRAM.layout(SHAPE)
    delta = KERNEL.sample(seed, torch.arange(6), 2, shape=SHAPE)
    values = {
        "logits": torch.randn(5, 64, 10, generator=g), "target": torch.randint(10, (64,), generator=g),
        "x": torch.rand(7, 300, generator=g), "w": torch.randn(7, 300, generator=g),
        "c": torch.rand(7, generator=g, dtype=torch.float64), "index": torch.arange(6) + 100 * seed,
        "draw": torch.arange(2) + seed, "images": images, "delta": delta,
        "grad": torch.randn(2, *images.shape, generator=g), "dual": torch.randn(3, 7, generator=g),
        "intercept": torch.randn(3, generator=g), "key": torch.tensor(2**40 + seed),
        "codes": layout.codes, "numbers": layout.parameters,
    }  # fmt: skip
    return {what: value.to(GPU) if isinstance(value, torch.Tensor) else value for what, value in values.items()}


def calls(v, name):
    """Each operation but the search's step on inputs `v`; what they return is flat."""
    backward = registry.implementation("nuisance_backward", name)
    return {
        "best_of_k": lambda: ops.best_of_k(v["logits"], v["target"], backend=name),
        "best_of_k, batch": lambda: ops.best_of_k(v["logits"], v["target"], selection="batch", backend=name),
        "logit_gap": lambda: [ops.logit_gap(v["logits"][0], v["target"], backend=name)],
        **{f"projection, {norm}": lambda norm=norm: ops.halfspace_box_projection(v["x"], v["w"], v["c"], norm=norm,
                                                                                 backend=name)
           for norm in (1, 2, float("inf"))},
        **{f"ball, {norm}": lambda norm=norm: [ops.ball_box_projection(v["x"], v["w"], v["c"], norm=norm, backend=name)]
           for norm in (1, 2, float("inf"))},
        "rbf_decision": lambda: [ops.rbf_decision(v["x"], v["w"], v["dual"], v["intercept"], 0.01, backend=name)],
        "draws": lambda: [ops.draws(v["key"], v["index"], v["draw"], 70, normal=True, backend=name)],
        "nuisance_sample": lambda: [ops.nuisance_sample(v["key"], v["index"], v["draw"], PROGRAM, SHAPE, backend=name)],
        "nuisance_draw": lambda: [ops.nuisance_draw(v["images"], v["key"], v["index"], v["draw"], PROGRAM,
                                                    backend=name)],
        "nuisance": lambda: [ops.nuisance(v["images"], v["delta"], PROGRAM, backend=name)],
        "nuisance_backward": lambda: backward(v["grad"], v["images"], v["delta"], v["codes"], v["numbers"]),
        "fold_in": lambda: [random.fold_in(v["key"], 3)],
    }  # fmt: skip


CALLS = list(calls(dict.fromkeys(("codes",)), "reference"))


def clones(outputs):
    return [value.clone() for value in outputs]


def same(got, want, exact=True):
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-4, equal_nan=True)


# sums that Triton's backward pass adds by atomics, in an arbitrary order
INEXACT = ("triton", "nuisance_backward")


@pytest.mark.parametrize("call", CALLS)
def test_on_a_stream_of_its_own(name, call):
    v = inputs()
    want = clones(calls(v, name)[call]())
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    late = {what: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for what, value in v.items()}
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # whoever does not wait for this stream sees zeros
        for what, value in v.items():
            if isinstance(value, torch.Tensor):
                late[what].copy_(value)
        got = clones(calls(late, name)[call]())
    stream.synchronize()
    same(got, want, (name, call) != INEXACT)


@pytest.mark.parametrize("call", CALLS)
def test_a_replayed_graph_equals_the_eager_call(name, call):
    v = inputs()
    run = calls(v, name)[call]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = run()
    for seed in (1, 2):  # other data, other keys and other draws in the same places
        for what, value in inputs(seed).items():
            if isinstance(value, torch.Tensor):
                v[what].copy_(value)
        want = clones(calls(inputs(seed), name)[call]())
        graph.replay()
        same(clones(held), want, (name, call) != INEXACT)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "fold_in"])
def test_nothing_waits_for_the_device(name, call):
    run = calls(inputs(), name)[call]
    run()  # compiled, and the registry knows what is there
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_keys_below_and_above_two_to_the_63_draw_what_the_cpu_draws(name):
    index, draw = torch.tensor([0, 2**33 + 1]), torch.tensor([0, 2**32 - 1])
    for key in (1, 2**63 + 7):
        want = ops.draws(key, index, draw, 37, normal=True)
        assert torch.equal(ops.draws(key, index.to(GPU), draw.to(GPU), 37, normal=True, backend=name).cpu(), want)


@pytest.mark.parametrize("op", registry.ops())
def test_opcheck(op, name):
    for operation, args in samples(name):
        if operation is getattr(torch.ops.robustperf, op):
            args = tree_map(lambda value: value.to(GPU) if isinstance(value, torch.Tensor) else value, args)
            torch.library.opcheck(operation.default, args)


def test_the_best_backend_serves_a_gpu():
    if registry.missing("cuda") is not None:
        pytest.skip(f"cuda: {registry.missing('cuda')}")
    assert all(registry.default(op, "cuda") == "cuda" for op in registry.ops())


def test_tensors_on_two_gpus_are_refused():
    if torch.cuda.device_count() < 2:
        pytest.skip("two GPUs: there are not so many")
    logits, target = torch.zeros(2, 3, 4, device="cuda:0"), torch.zeros(3, dtype=torch.int64, device="cuda:1")
    with pytest.raises(ValueError, match="target: expected a tensor on cuda:0, got one on cuda:1"):
        ops.best_of_k(logits, target)


def test_the_last_of_many_logits(name):
    classes = 2**31 // 8 + 16
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("memory: 12 GiB are not free on this GPU")
    logits = torch.zeros(2, 4, classes, dtype=torch.bfloat16, device=GPU)
    logits[1, 3, -1] = 60.0
    loss, index = ops.best_of_k(logits, torch.tensor([0, 1, 2, classes - 2], device=GPU), backend=name)
    assert index.tolist() == [0, 0, 0, 1] and loss[3].item() == pytest.approx(60.0, rel=1e-4)
