"""What the loss of an objective depends on, its dtype, and errors of a call."""

import math

import pytest
import torch

from python_tests.support.objectives import INDEX, KEY, OBJECTIVES, X, Y, network
from robustperf.nets import RobeyCNN
from robustperf.nuisance import BackgroundColour, Brightness
from robustperf.training import MAT, MDA, MRT

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@pytest.fixture
def dropping():
    """A network in training mode whose every pass drops."""
    torch.manual_seed(0)
    return RobeyCNN(1, size=12, width=4, classes=3).double().train()


BATCH = torch.rand(4, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@every_objective
def test_draws_and_dropout_depend_on_key_and_index_only(objective, dropping):
    def loss(rows, key=KEY):
        return objective(dropping, BATCH[rows], Y[rows], key=key, index=INDEX[rows])

    whole = loss([0, 1, 2, 3])
    torch.testing.assert_close(loss([3, 1, 0, 2]), whole)
    assert not torch.allclose(loss([0, 1, 2, 3], KEY + 1), whole)
    if getattr(objective, "selection", None) != "batch":
        torch.testing.assert_close((loss([0, 1]) + loss([2, 3])) / 2, whole)
    other = objective(dropping, BATCH, Y, key=KEY, index=INDEX + 1)
    assert not torch.allclose(other, whole)


@every_objective
def test_any_layout_of_the_images(objective, dropping):
    expected = objective(dropping, BATCH, Y, key=KEY, index=INDEX)
    for x in (BATCH.to(memory_format=torch.channels_last), BATCH.mT.contiguous().mT, BATCH.repeat(1, 2, 1, 1)[:, ::2]):
        torch.testing.assert_close(objective(dropping, x, Y, key=KEY, index=INDEX), expected)


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_float32_at_least(objective, dtype):
    model = network().float().to(dtype)
    loss = objective(lambda x: model(x.to(dtype)), X.float(), Y, key=KEY, index=INDEX)
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_objective
def test_the_callers_gradient_in_x(objective):
    x = X.clone().requires_grad_()
    objective(network(), x, Y, key=KEY, index=INDEX).backward()
    assert getattr(objective, "weight", 1) == 0 or x.grad.any()


@every_objective
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": X[:0], "y": Y[:0], "index": INDEX[:0]}, ValueError, "x: expected at least one image, got shape"),
        ({"x": X.long()}, TypeError, "x: expected torch.float32 or torch.float64, got torch.int64"),
        ({"x": X.half()}, TypeError, "x: expected .*, got torch.float16"),
        ({"x": X.tolist()}, TypeError, "x: expected a tensor, got list"),
        ({"x": X.to("meta")}, ValueError, "y: expected a tensor on meta, got one on cpu"),
        ({"y": Y.int()}, TypeError, "y: expected torch.int64, got torch.int32"),
        ({"y": Y.double()}, TypeError, "y: expected torch.int64, got torch.float64"),
        ({"y": Y[:3]}, ValueError, r"y: expected shape \[4\], got \[3\]"),
        ({"y": Y[:1]}, ValueError, r"y: expected shape \[4\], got \[1\]"),
        ({"y": Y[:, None]}, ValueError, r"y: expected shape \[4\], got \[4, 1\]"),
        ({"y": Y + 1}, ValueError, "(y|labels): expected labels in 0..2, got 3"),
        ({"y": Y - 1}, ValueError, "(y|labels): expected labels in 0..2, got -1"),
        ({"y": Y.where(Y != 0, -100)}, ValueError, "(y|labels): expected labels in 0..2, got -100"),
        ({"y": None}, TypeError, "y: expected a tensor, got NoneType"),
        ({"index": INDEX[:3]}, ValueError, r"index: expected shape \[4\], got \[3\]"),
        ({"index": INDEX.int()}, TypeError, "index: expected torch.int64, got torch.int32"),
        ({"index": -INDEX}, ValueError, "index: expected numbers in 0.."),
        ({"index": range(4)}, TypeError, "index: expected a tensor, got range"),
        ({"key": -1}, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
        ({"key": 2**64}, ValueError, "key: expected an integer in"),
        ({"key": 0.5}, ValueError, "key: expected an integer in"),
        ({"model": "net"}, TypeError, "'str' object is not callable|model: expected a module or a callable, got str"),
        ({"model": lambda x: x.flatten(1)[:, 0]}, ValueError, r"model\(x\): expected shape"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, ValueError, r"model\(x\): expected logits of at least two classes"),
        ({"model": lambda x: x.flatten(1)[:1, :3]}, ValueError, r"model\(x\): expected shape"),
        ({"model": lambda x: x.flatten(1).tolist()}, TypeError, r"model\(x\): expected a tensor, got list"),
    ],
)
def test_errors_of_a_call(objective, change, error, message):
    arguments = {"model": network(), "x": X, "y": Y, "key": KEY, "index": INDEX} | change
    with pytest.raises(error, match=message):
        objective(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize("make", [MRT, MDA, MAT])
def test_a_weight_wants_clean_images_of_the_drawn_ones_shape(make):
    with pytest.raises(ValueError, match=r"weight: .* \[B, 1, 6, 7\] .* \[3, 6, 7\]: expected 0, got 0.5"):
        make(BackgroundColour(), 2, weight=0.5)(network(3), X, Y, key=KEY, index=INDEX)


@pytest.mark.parametrize("make", [MRT, MDA, MAT])
def test_images_that_the_kernel_cannot_take(make):
    for kernel, x in (
        (BackgroundColour(), X.expand(4, 3, 6, 7)),
        (Brightness(), X + 1),
        (Brightness(), X[:, 0]),
        (Brightness(), X * math.nan),
    ):
        with pytest.raises(ValueError, match="^x: "):
            make(kernel, 2, weight=0)(network(3), x, Y, key=KEY, index=INDEX)
