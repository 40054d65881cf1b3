"""Model evaluations before the training pass (selection of MRT, ascent of MAT, attacks) leave the model unchanged."""

import weakref
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional

import robustperf as rp
from robustperf.attacks import PGD
from robustperf.nets import RobeyCNN
from robustperf.nets.dropout import Dropout
from robustperf.nuisance import Brightness, Compose, GaussianNoise, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, GaussianAugmentation

KEY, INDEX = 5, torch.tensor([4, 0, 2**33, 1, 9, 7])
Y = torch.tensor([2, 0, 1, 2, 1, 1])
X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
KERNEL = Compose([Rotation(), Brightness()])

OBJECTIVES = {
    "erm": ERM(), "mda": MDA(KERNEL, 2), "gaussian": GaussianAugmentation(),
    "mrt": MRT(KERNEL, 4, selection="sample"), "mrt-clean": MRT(KERNEL, 4, 0, chunk=1), "mrt-1": MRT(KERNEL, 1),
    "mrt-batch": MRT(KERNEL, 4, chunk=3),
    "mrt-bfloat16": MRT(KERNEL, 4, selection_dtype=torch.bfloat16),
    "mrt-float16": MRT(KERNEL, 4, selection_dtype=torch.float16), "mat": MAT(KERNEL, 2),
    "adversarial": AdversarialTraining(PGD(steps=2)),
    "adversarial-l2": AdversarialTraining(PGD(2, eps=1.0, steps=2, early_stop=True), 1.0),
}  # fmt: skip
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
EVALUATING = {name: each for name, each in OBJECTIVES.items() if name not in ("erm", "mda", "gaussian", "mrt-1")}
those_that_evaluate = pytest.mark.parametrize("objective", EVALUATING.values(), ids=EVALUATING)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return RobeyCNN(1, size=12, width=2, classes=3, batch_norm=True).train()


def mix(net, modes):
    """Modes, requires_grad and gradients of several kinds."""
    if modes == "eval":
        net.eval()
    elif modes == "mixed":
        net.features[1].eval()  # a batch norm
        net.head[3].eval()  # a dropout
    net.features[0].weight.requires_grad_(modes != "mixed")
    for parameter in list(net.parameters())[::2]:
        parameter.grad = torch.randn_like(parameter)


def state(net):
    """Everything of the network that a pass could change but batch-norm statistics."""
    return (
        [module.training for module in net.modules()],
        [parameter.requires_grad for parameter in net.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in net.parameters()],
        [parameter.tolist() for parameter in net.parameters()],
        torch.get_rng_state().tolist(),
    )


def buffers(net):
    return {name: value.clone() for name, value in net.named_buffers()}


def assert_same_buffers(net, expected):
    assert any(name.endswith("num_batches_tracked") for name in expected)
    for name, value in net.named_buffers():
        assert torch.equal(value, expected[name]), name


@every_objective
@pytest.mark.parametrize("modes", ["train", "eval", "mixed"])
def test_the_network_is_as_after_one_training_pass(net, objective, modes):
    mix(net, modes)
    given, trained_on = [module.training for module in net.modules()], []

    def record(module, inputs):
        now = [each.training for each in module.modules()]
        if torch.is_grad_enabled() and now == given and not inputs[0].requires_grad:
            trained_on.append(inputs[0])
        else:
            assert not any(now)

    before, copy = state(net), deepcopy(net)
    net.register_forward_pre_hook(record)
    loss = objective(net, X, Y, key=KEY, index=INDEX)
    assert state(net) == before
    (images,) = trained_on
    copy(images)
    assert_same_buffers(net, buffers(copy))
    loss.backward()


class Broken(Exception):
    pass


@those_that_evaluate
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_network_is_as_before_after_an_error(net, objective, passes):
    mix(net, "mixed")
    before, statistics, done = state(net), buffers(net), []

    def fail(module, inputs):
        if len(done) == passes:
            raise Broken
        done.append(inputs)

    hook = net.features[4].register_forward_pre_hook(fail)
    with pytest.raises(Broken):
        objective(net, X, Y, key=KEY, index=INDEX)
    assert state(net) == before
    if passes == 0:
        assert_same_buffers(net, statistics)
    dropout = Dropout(0.5)
    torch.manual_seed(1)
    dropped = dropout(X)
    torch.manual_seed(1)
    assert torch.equal(dropped, functional.dropout(X))  # dropout is torch's again
    hook.remove()
    net.eval()
    expected = objective(deepcopy(net), X, Y, key=KEY, index=INDEX)
    torch.testing.assert_close(objective(net, X, Y, key=KEY, index=INDEX), expected)


@every_objective
@pytest.mark.parametrize("outer", [None, torch.bfloat16])
def test_every_parameter_gets_a_gradient_within_autocast_too(net, objective, outer):
    for _ in range(2):  # the first time that a network is seen, and later
        net.zero_grad()
        with torch.autocast("cpu", outer, enabled=outer is not None):
            loss = objective(net, X, Y, key=KEY, index=INDEX)
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
        assert net.head[-1].weight.grad.any() and net.features[0].weight.grad.any()


@pytest.mark.parametrize("dtype, rounding", [(None, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.01)])
@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("selection", ["sample", "batch"])
def test_selection_in_half_precision(dtype, rounding, chunk, selection):
    """The selected draws are the worst within the rounding, and the training pass is in float32."""
    torch.manual_seed(0)
    net, k, passes = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, 3)), 9, []
    net[-1].weight.data *= 20
    drawn = KERNEL.draw(X, key=KEY, index=INDEX, draws=k)
    losses = torch.stack([functional.cross_entropy(net(each), Y, reduction="none") for each in drawn]).detach()
    objective = MRT(KERNEL, k, 0, selection, dtype, chunk)
    objective(net, X, Y, key=KEY, index=INDEX)  # the first time, the layout is tried

    def record(module, inputs, logits):
        passes.append((inputs[0], logits.dtype))

    with net.register_forward_hook(record):
        loss = objective(net, X, Y, key=KEY, index=INDEX)
    assert [each for _, each in passes] == [dtype or torch.float32] * -(-k // (chunk or k)) + [torch.float32]
    images = passes[-1][0]
    found = torch.tensor([(drawn[:, j] == images[j]).flatten(1).all(1).int().argmax() for j in range(6)])
    own = losses.gather(0, found[None])[0]
    torch.testing.assert_close(loss.detach(), own.mean())
    if selection == "batch":
        assert found.unique().numel() == 1
        own, losses = own.mean(), losses.mean(1)
    assert (own >= losses.amax(0) - rounding).all()
    assert (losses.amax(0) - losses.mean(0)).mean() > 4 * rounding  # otherwise any draw would pass


class Counted(rp.Kernel):
    """x delta / 100 for the draw's number delta; counts the images it has made that are alive."""

    def __init__(self):
        self.made, self.most = [], 0

    def dim_for(self, shape):
        return 1

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return draws[:, None, None].expand(-1, len(index), 1).float()

    def transform(self, x, delta, *, backend=None):
        alive = sum(draws for memory, draws in self.made if memory() is not None)
        out = x * delta[..., None, None] / 100
        self.made.append((weakref.ref(out.untyped_storage()), len(delta) * x.shape[0] / len(X)))
        self.most = max(self.most, alive + self.made[-1][1])
        return out


@pytest.mark.parametrize("selection", ["sample", "batch"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_no_more_draws_are_alive_than_a_chunk(net, selection, dtype, chunk):
    for k in (2, 20):
        kernel = Counted()
        MRT(kernel, k, selection=selection, selection_dtype=dtype, chunk=chunk)(net, X, Y, key=KEY, index=INDEX)
        assert kernel.most == min(chunk, k)


class Numbered(rp.Kernel):
    """Images whose pixels are the draw's number, with a NaN among them where `bad` [K, B] says so."""

    def __init__(self, bad):
        self.bad = torch.tensor(bad)

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return torch.stack([draws[:, None].expand(-1, len(index)), index.expand(len(draws), -1)], 2).float()

    def transform(self, x, delta, *, backend=None):
        number, row = delta.long().unbind(2)
        out = number[..., None, None, None].expand(*number.shape, *x.shape[1:]).to(x.dtype).clone()
        out[..., 0, 0, 0] = torch.where(self.bad[number, row], torch.nan, out[..., 0, 0, 0])
        return out


def slope(x):
    """A loss for label 0 that grows with the pixels."""
    return functional.pad(x.flatten(1).sum(1, keepdim=True), (1, 0))


def selected(kernel, draws, samples, **settings):
    """(the indices of the selected draws [B], the loss)."""
    objective = MRT(kernel, draws, 0, **settings)
    arguments = torch.zeros(samples, 1, 2, 2), torch.zeros(samples, dtype=torch.int64)
    worst = objective.worst(slope, *arguments, key=0, index=torch.arange(samples))
    return worst[:, 0, 1, 1].int().tolist(), objective(slope, *arguments, key=0, index=torch.arange(samples)).item()


every_chunk = pytest.mark.parametrize("chunk", [None, 1, 2])


@every_chunk
def test_a_nan_loss_is_not_selected_for_a_sample_that_has_another(chunk):
    bad = [[True, False, True, False], [False, False, True, False], [False, True, False, False],
           [True, True, True, False]]  # fmt: skip
    indices, loss = selected(Numbered(bad), 4, 4, selection="sample", chunk=chunk)
    assert indices == [2, 1, 2, 3]
    # four pixels of each number; log(1 + e^z)
    assert loss == pytest.approx(torch.tensor([8.0, 4, 8, 12]).exp().log1p().mean().item(), rel=1e-6)


@every_chunk
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_sample_of_nan_losses_only(chunk, dtype):
    indices, loss = selected(
        Numbered([[False, True], [False, True], [False, True]]),
        3,
        2,
        selection="sample",
        chunk=chunk,
        selection_dtype=dtype,
    )
    assert indices == [2, 0] and loss != loss


@every_chunk
def test_a_draw_with_a_nan_loss_is_not_selected_for_a_batch_that_has_another(chunk):
    bad = [[False, True], [False, False], [False, False], [True, False]]
    indices, loss = selected(Numbered(bad), 4, 2, chunk=chunk, selection="batch")
    assert indices == [2, 2] and loss == pytest.approx(torch.tensor(8.0).exp().log1p().item(), rel=1e-6)


@every_chunk
def test_a_batch_with_a_nan_loss_in_each_draw(chunk):
    indices, loss = selected(
        Numbered([[False, True], [True, False], [True, True]]), 3, 2, chunk=chunk, selection="batch"
    )
    assert indices == [0, 0] and loss != loss


@every_chunk
@pytest.mark.parametrize("selection", ["sample", "batch"])
def test_of_equal_draws_the_first_is_selected(chunk, selection):
    objective = MRT(Numbered([[False] * 3] * 4), 4, 0, selection, chunk=chunk)
    worst = objective.worst(
        lambda x: torch.zeros(len(x), 2),
        torch.zeros(3, 1, 2, 2),
        torch.zeros(3, dtype=torch.int64),
        key=0,
        index=torch.arange(3),
    )
    assert not worst.any()


@pytest.mark.parametrize("chunk", [None, 1, 2, 20])
@pytest.mark.parametrize("selection", ["sample", "batch"])
def test_the_worst_images_are_those_of_the_draw_itself(net, chunk, selection):
    """To the bit, from one chunk or drawn again."""
    kernel, objective = GaussianNoise(0.3), MRT(GaussianNoise(0.3), 6, 0, selection, chunk=chunk)
    worst = objective.worst(net, X, Y, key=KEY, index=INDEX)
    drawn = kernel.draw(X, key=KEY, index=INDEX, draws=6)
    same = (drawn == worst).flatten(2).all(2)
    assert (same.sum(0) == 1).all() and not worst.requires_grad
    assert (same.int().argmax(0).unique().numel() == 1) == (selection == "batch")
    with torch.no_grad():
        for other in net.modules():
            other.training = False
        losses = torch.stack([functional.cross_entropy(net(each), Y, reduction="none") for each in drawn])
    expected = losses.argmax(0) if selection == "sample" else losses.sum(1).argmax().expand(6)
    assert torch.equal(same.int().argmax(0), expected)


def test_a_kernel_without_gradients_and_a_plain_function():
    weight = nn.Parameter(torch.randn(3, 144, generator=torch.Generator().manual_seed(0)))
    objective = MRT(rp.nuisance.ShotNoise(), 3)
    objective(lambda x: x.flatten(1) @ weight.T, X, Y, key=KEY, index=INDEX).backward()
    assert weight.grad.any()


@pytest.mark.parametrize("chunk, together", [(None, 6), (4, 4), (1, 1)])
@pytest.mark.parametrize("selection", ["sample", "batch"])
def test_draws_are_evaluated_in_chunks_and_an_error_names_a_smaller_one(net, selection, chunk, together, monkeypatch):
    """By default as many as make 64 images, which is six of 8 draws with 10 images; an error changes no setting."""
    x, y, index, k, sizes = torch.rand(10, 1, 12, 12), torch.arange(10) % 3, torch.arange(10), 8, []

    def count(module, inputs):
        if not module.training:
            sizes.append(len(inputs[0]) // len(x))

    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    objective = MRT(KERNEL, k, selection=selection, chunk=chunk)
    objective(net, x, y, key=KEY, index=index)  # the first time, the layout is tried
    hook = net.register_forward_pre_hook(count)
    objective(net, x, y, key=KEY, index=index)
    assert sizes == [min(together, k - first) for first in range(0, k, together)]
    hook.remove()
    net.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. Tried to allocate 1 GiB") as caught:
        objective(net, x, y, key=KEY, index=index)
    assert (f"chunk={together}" in str(caught.value) and f"chunk={together // 2})" in str(caught.value)) == (
        together > 1
    )


def test_a_compiled_selection_selects_the_same(net, monkeypatch):
    modes, compiling = [], torch.compile

    def compile_quickly(model, mode):
        modes.append(mode)
        return compiling(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    objective = MRT(KERNEL, 4, selection_compile="reduce-overhead")
    plain = MRT(KERNEL, 4)
    for _ in range(2):
        found, want = (each.worst(net, X, Y, key=KEY, index=INDEX) for each in (objective, plain))
        assert torch.equal(found, want)
    assert modes == ["reduce-overhead"]
    assert objective == MRT(KERNEL, 4, selection_compile="reduce-overhead") and "_compiled" not in repr(objective)
    with pytest.raises(ValueError, match="selection_compile: expected None or one of default, .* got 'quick'"):
        MRT(KERNEL, 4, selection_compile="quick")
