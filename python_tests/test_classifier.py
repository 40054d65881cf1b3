"""The model under test: eval mode within a block, checked logits, and the modules inside a callable."""

import functools
import math

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from python_tests.support.classifier import Wrapper, modes
from robustperf.classifier import check_no_nan, evaluating, logits_of, modules_of, without_wrapper


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)), nn.Linear(4, 2))


def test_eval_mode_within_the_block_and_modes_restored_afterwards(model):
    model.train()
    model[1][0].eval()
    before = modes(model)
    assert True in before and False in before
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == before
    with evaluating(model.eval()):
        assert not any(modes(model))
    assert not any(modes(model))


def test_modes_are_restored_after_an_error(model):
    model.train()
    model[1].eval()
    before = modes(model)
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert modes(model) == before


def test_blocks_that_overlap_in_two_threads(model):
    """The first to enter leaves first: the other one stays in eval mode until it ends."""
    model.train()
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes(model))
    second.__exit__(None, None, None)
    assert all(modes(model))


def test_nested_blocks(model):
    model.train()
    with evaluating(model):
        with evaluating(model):
            pass
        assert not any(modes(model))
    assert all(modes(model))


def test_a_module_that_is_used_twice():
    shared = nn.Dropout()
    model = nn.Sequential(shared, nn.Linear(2, 2), shared)
    shared.eval()
    with evaluating(model):
        assert not shared.training
    assert model.training and not shared.training


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module(model):
    scripted = torch.jit.script(model.train())
    with evaluating(scripted):
        x = torch.rand(6, 3)
        assert torch.equal(scripted(x), scripted(x)) and not scripted.training
    assert scripted.training


def test_a_plain_function_is_a_classifier_too():
    with evaluating(lambda x: x):
        pass


@pytest.mark.parametrize("wrong", [None, "net", 3, torch.zeros(2)])
def test_a_classifier_must_be_callable(wrong):
    with pytest.raises(TypeError, match=f"model: expected a module or a callable, got {type(wrong).__name__}"):
        with evaluating(wrong):
            pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_logits(dtype):
    x = torch.rand(5, 1, 2, 2)
    logits = logits_of(lambda images: images.flatten(1)[:, :3].to(dtype), x)
    assert logits.shape == (5, 3) and logits.dtype == dtype
    assert torch.equal(logits, x.flatten(1)[:, :3].to(dtype))
    assert logits_of(lambda images: images.flatten(1), x[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x.tolist(), TypeError, r"model\(x\): expected a tensor, got list"),
        (lambda x: (x, x), TypeError, r"model\(x\): expected a tensor, got tuple"),
        (lambda x: x.long(), TypeError, r"model\(x\): .*got torch.int64"),
        (lambda x: x.to(torch.complex64), TypeError, r"model\(x\): .*got torch.complex64"),
        (lambda x: x[:, 0], ValueError, r"model\(x\): expected shape \[5, C\], got \[5\]"),
        (lambda x: x[:4], ValueError, r"model\(x\): expected shape \[5, C\], got \[4, 3\]"),
        (lambda x: x[..., None], ValueError, r"model\(x\): expected shape \[5, C\], got \[5, 3, 1\]"),
        (lambda x: x[:, :1], ValueError, r"model\(x\): .*at least two classes, got shape \[5, 1\]"),
        (lambda x: x[:, :0], ValueError, r"model\(x\): .*at least two classes, got shape \[5, 0\]"),
        (lambda x: x.to("meta"), ValueError, r"model\(x\): expected a tensor on cpu, got one on meta"),
    ],
)
def test_wrong_logits(change, error, match):
    with pytest.raises(error, match=match):
        logits_of(change, torch.rand(5, 3))


def test_nan_logits():
    logits = torch.zeros(9, 3)
    logits[0, 0], logits[1, 1] = math.inf, -math.inf
    check_no_nan(logits)
    check_no_nan(logits[:0])
    logits[[1, 3, 4, 5, 6, 8], 2] = math.nan
    with pytest.raises(ValueError, match=r"NaN logits for 6 of 9 points, the first at \[1, 3, 4, 5, 6\]"):
        check_no_nan(logits)
    with pytest.raises(ValueError, match=r"NaN logits for 6 of 9 points, the first at \[101, 103, 104, 105, 106\]"):
        check_no_nan(logits, torch.arange(100, 109))


def test_without_wrapper(model):
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert without_wrapper(DistributedDataParallel(model)) is model
    finally:
        distributed.destroy_process_group()
    assert without_wrapper(model) is model and without_wrapper(nn.Sequential(model))[0] is model
    assert without_wrapper(modes) is modes


def with_default(x, net=None):
    return net(x)


GLOBAL = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))


def of_a_global(x):
    return GLOBAL(x)


@pytest.mark.parametrize(
    "hide",
    [
        lambda net: lambda x: net(x),
        lambda net: functools.partial(with_default, net=net),
        Wrapper,
        lambda net: Wrapper(net).forward,
        lambda net: net.forward,
        lambda net: lambda x, net=net: net(x),
        lambda net: lambda x: (lambda images: net(images))(x),
        lambda net: functools.partial(Wrapper(lambda x: net(x))),
        lambda net: (lambda nets: lambda x: sum(one(x) for one in nets) / len(nets))([net, net]),
        lambda net: (lambda nets: lambda x: nets["a"][0](x))({"a": (net,)}),
    ],
    ids=[
        "closure",
        "partial",
        "object",
        "bound method",
        "forward",
        "default",
        "nested",
        "partial of an object",
        "ensemble",
        "dict of tuples",
    ],
)
def test_modules_in_other_callables(model, hide):
    """They too are in eval mode within the block, and their modes are restored."""
    hidden = hide(model.train())
    assert set(modules_of(hidden)) == set(model.modules())
    x = torch.rand(50, 3)
    with evaluating(hidden):
        assert not any(modes(model)) and torch.equal(logits_of(hidden, x), logits_of(hidden, x))
    assert all(modes(model))


def of_a_global_inside(x):
    return sum((lambda images: GLOBAL(images))(x) for _ in range(2))


def test_modules_in_globals_and_recursion():
    assert modules_of(of_a_global) == modules_of(of_a_global_inside) == list(GLOBAL.modules())

    def forever(x):
        return forever(x)

    assert modules_of(forever) == [] and modules_of(torch.flatten) == [] and modules_of(lambda x: x.softmax(1)) == []
