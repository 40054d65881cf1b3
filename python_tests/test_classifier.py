"""The model under test: eval mode for a while, logits that are what they should be, images in the layout it likes."""

import functools
import gc
import math
import weakref

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import robustperf as rp
from robustperf.attacks import BG, FGSM, PGD
from robustperf.classifier import check_no_nan, evaluating, laid_out, logits_of, modules_of, without_wrapper
from robustperf.training import MRT


def modes(model):
    return [module.training for module in model.modules()]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)), nn.Linear(4, 2))


def test_eval_mode_within_and_the_modes_of_before_afterwards(model):
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


def test_the_modes_of_before_also_after_an_error(model):
    model.train()
    model[1].eval()
    before = modes(model)
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert modes(model) == before


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
def test_what_cannot_be_called_is_no_classifier(wrong):
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
    ("answer", "error", "match"),
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
def test_wrong_logits(answer, error, match):
    with pytest.raises(error, match=match):
        logits_of(answer, torch.rand(5, 3))


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


IMAGES = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))


class Looked(nn.Module):
    """Convolutions that keep what they were shown; with `view`, which no channels-last layout takes, if it is asked."""

    def __init__(self, view=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.view, self.seen = view, []

    def forward(self, x):
        self.seen.append((len(x), x.is_contiguous(), self.body[2].training, torch.is_grad_enabled(), x.requires_grad))
        hidden = self.body(x)
        return hidden.view(len(x), -1)[:, :5] if self.view else hidden.flatten(1)[:, :5]


def test_a_convolution_gets_its_images_channels_last():
    net, x = Looked(), IMAGES.clone().requires_grad_()
    net.body[1].eval()
    before = modes(net), {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(2):
        out = laid_out(net, x)
        assert out.is_contiguous(memory_format=torch.channels_last) and torch.equal(out, x)
    # one look at two images, in eval mode and without gradients
    assert net.seen == [(2, False, False, False, False)]
    assert modes(net) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in net.state_dict().items())
    (gradient,) = torch.autograd.grad((out * IMAGES).sum(), x)
    assert torch.equal(gradient, IMAGES)
    one = laid_out(Looked(), x[:1])
    assert torch.equal(one, x[:1])


def test_a_model_that_cannot_take_channels_last_gets_its_images_as_they_are():
    net = Looked(view=True)
    for _ in range(2):
        assert laid_out(net, IMAGES) is IMAGES
    assert len(net.seen) == 1 and net.training and net.body[2].training
    assert logits_of(net, laid_out(net, IMAGES)).shape == (5, 5)


def test_an_error_of_the_models_own_is_not_hidden():
    class Picky(Looked):
        def forward(self, x):
            raise ValueError("x: expected images of another size")

    net = Picky()
    with pytest.raises(ValueError, match="another size"):
        laid_out(net, IMAGES)
    assert net.training and net.body[2].training


@pytest.mark.parametrize("net, x", [
    (nn.Sequential(nn.Flatten(), nn.Linear(126, 2)), IMAGES), (lambda x: x, IMAGES), (nn.Conv1d(3, 2, 3), IMAGES[:, 0]),
    (Looked(), IMAGES[0]), (Looked(), IMAGES.to("meta")), (nn.Sequential(), IMAGES),
], ids=["linear", "function", "conv1d", "one image", "elsewhere", "empty"])  # fmt: skip
def test_other_images_are_left_as_they_are(net, x):
    assert laid_out(net, x) is x
    if isinstance(net, Looked):  # nothing was learned from them
        assert not net.seen and laid_out(net, IMAGES).is_contiguous(memory_format=torch.channels_last)


def test_a_wrapped_convolution_is_tried_inside():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(Looked())
        calls = []
        wrapped.register_forward_pre_hook(lambda *arguments: calls.append(arguments))
        assert laid_out(wrapped, IMAGES).is_contiguous(memory_format=torch.channels_last)
        assert len(wrapped.module.seen) == 1 and not calls
    finally:
        distributed.destroy_process_group()


def test_what_torch_compile_traces_keeps_its_layout():
    net = Looked()
    compiled = torch.compile(lambda x: laid_out(net, x) * 1, backend="eager", fullgraph=True)
    assert compiled(IMAGES).is_contiguous() and not net.seen


def test_a_model_is_not_kept_alive():
    net = Looked()
    laid_out(net, IMAGES)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


class Wrapper:
    """A callable that is no module."""

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)

    def forward(self, x):
        return self.net(x)


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
    """They too are in eval mode for a while, and left as they were."""
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


class InPlace(nn.Module):
    """Normalises its input where it lies."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x.sub_(0.5).div_(0.25))


class InPlaceUncounted(InPlace):
    """By way of NumPy's view of the memory, of which torch's count of in-place operations knows nothing."""

    def forward(self, x):
        x.detach().numpy()[...] = (x.detach().numpy() - 0.5) / 0.25
        return self.net(x)


class OutOfPlace(InPlace):
    def forward(self, x):
        return self.net((x - 0.5) / 0.25)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: lambda x: net(x), lambda net: net.forward])
def test_a_model_that_writes_into_its_input_sees_copies(wrap):
    torch.manual_seed(0)
    net, plain, x = InPlace(), OutOfPlace(), torch.rand(20, 1, 4, 4)
    plain.load_state_dict(net.state_dict())
    before, y = x.clone(), plain(x).argmax(1)
    model = wrap(net)
    for _ in range(3):
        assert torch.equal(logits_of(model, x), plain(before)) and torch.equal(x, before)
    attacks = [FGSM(), PGD(norm=2, steps=5), BG()]
    found = rp.margins(model, x, attacks=attacks, keep_points=True)
    expected = rp.margins(plain, x, attacks=attacks, keep_points=True)
    torch.testing.assert_close(found.distance, expected.distance)
    torch.testing.assert_close(found.point, expected.point)
    kernel = rp.nuisance.Brightness(0.3)
    rho = rp.basic_robustness(model, x, kernel, samples=20).rho
    assert torch.equal(rho, rp.basic_robustness(plain, x, kernel, samples=20).rho) and torch.equal(x, before)
    loss = MRT(kernel, 3, weight=1.0)(model, x, y, key=0, index=torch.arange(20))
    torch.testing.assert_close(loss, MRT(kernel, 3, weight=1.0)(plain, x, y, key=0, index=torch.arange(20)))
    assert torch.equal(x, before) and loss.requires_grad


def test_a_model_that_writes_by_way_of_numpy_sees_copies():
    torch.manual_seed(0)
    net, plain, x = InPlaceUncounted(), OutOfPlace(), torch.rand(20, 1, 4, 4)
    plain.load_state_dict(net.state_dict())
    before = x.clone()
    for _ in range(3):
        torch.testing.assert_close(logits_of(net, x), plain(before))
        assert torch.equal(x, before)


def test_a_model_that_begins_to_write_is_an_error():
    calls = []

    def model(x):
        calls.append(1)
        return (x.mul_(2) if len(calls) > 1 else x).flatten(1)

    logits_of(model, IMAGES)
    with pytest.raises(RuntimeError, match="model: expected one that leaves its input as it is, .* wrote into x"):
        logits_of(model, IMAGES.clone())


def test_copies_where_writing_cannot_be_told():
    class Unhashable(Wrapper):
        __hash__ = None

    torch.manual_seed(0)
    net, x = InPlace(), torch.rand(5, 1, 4, 4)
    before = x.clone()
    logits_of(Unhashable(net), x)
    assert torch.equal(x, before)
    with torch.inference_mode():
        inside = torch.rand(5, 1, 4, 4)
        before = inside.clone()
        logits_of(net, inside), logits_of(InPlace(), inside)
        assert torch.equal(inside, before)


@pytest.mark.parametrize("attack", [FGSM(), PGD(norm=2, steps=3), BG()], ids=["FGSM", "PGD", "BG"])
def test_images_from_inference_mode(attack):
    torch.manual_seed(0)
    net = OutOfPlace()
    with torch.inference_mode():
        x = torch.rand(6, 1, 4, 4)
    label = net(x.clone()).argmax(1)
    assert torch.equal(attack(net, x, label).point, attack(net, x.clone(), label).point)
    found = rp.margins(net, x, attacks=[attack], keep_points=True)
    assert torch.equal(found.distance, rp.margins(net, x.clone(), attacks=[attack]).distance)
    assert rp.closest_boundary(net, x, found.point[None].nan_to_num(0)).distance.shape == (6,)
    with torch.inference_mode():
        assert rp.basic_robustness(net, x, rp.nuisance.Brightness(0.3), samples=5).rho.shape == (6,)
