"""Any generator as a kernel: its calls, its mode and gradients, and what it returns."""

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.support.learned import INDEX, images
from robustperf.nuisance import Compose, ModuleKernel, Rotation
from robustperf.training import MAT

X = images()


class Shade(nn.Module):
    """x (3 + w delta_1) / 4, with a batch norm and a dropout that must not act."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.norm, self.dropout = nn.BatchNorm2d(3, affine=False, eps=0), nn.Dropout(0.5)
        self.calls = []

    def forward(self, x, delta):
        self.calls.append(len(x))
        return self.dropout(self.norm(x)) * (0.75 + 0.25 * self.weight * delta[:, :1, None, None])


def test_draws_call_the_generator_in_eval_mode_on_pairs_of_image_and_delta():
    module = Shade().train()
    kernel = ModuleKernel(module, dim=3)
    drawn = kernel.draw(X, key=2, index=INDEX, draws=4)
    delta = 2 * rp.random.uniform(2, INDEX, 4, 3) - 1
    torch.testing.assert_close(drawn, X * (0.75 + 0.25 * delta[..., :1, None, None]), rtol=1e-5, atol=1e-6)
    assert module.training and module.norm.num_batches_tracked == 0 and kernel.dim == 3
    assert torch.equal(drawn, kernel(X, delta))
    assert torch.equal(kernel.draw(X[2:3], key=2, index=INDEX[2:3], draws=torch.tensor([3])), drawn[3:, 2:3])


def test_the_images_of_one_call():
    module = Shade()
    ModuleKernel(module, images_at_once=10).draw(X, key=0, index=INDEX, draws=5)
    ModuleKernel(module, images_at_once=1).draw(X, key=0, index=INDEX, draws=2)
    ModuleKernel(module).draw(X, key=0, index=INDEX, draws=14)
    assert module.calls == [10, 10, 5, 5, 5, 60, 10]


def test_gradients_in_x_and_delta_and_none_in_the_generator():
    module = Shade().double()
    kernel = ModuleKernel(module, dim=1)
    x, delta = X.double().requires_grad_(), torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
    kernel(x, delta).sum().backward()
    torch.testing.assert_close(delta.grad[:, 0], x.detach().sum((1, 2, 3)) / 4, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.75), rtol=1e-5, atol=1e-6)
    assert module.weight.grad is None and module.weight.requires_grad
    module, model = Shade(), rp.nets.SmallCNN(in_channels=3, size=8, classes=4, width=4)
    MAT(ModuleKernel(module, dim=1), k=2)(model, X, torch.zeros(5).long(), key=0, index=INDEX).backward()
    assert module.weight.grad is None


def test_a_function_that_writes_into_its_arguments_and_one_that_changes_the_shape():
    def writes(x, delta):
        x.mul_(delta[:, :1, None, None].abs_())
        return x

    before = X.clone()
    kernel = ModuleKernel(writes, dim=1, distribution="normal")
    delta = rp.random.normal(0, INDEX, 2, 1)
    assert torch.equal(kernel.draw(X, key=0, index=INDEX, draws=2), X * delta.abs()[..., None, None])
    assert torch.equal(X, before)
    half = ModuleKernel(lambda x, delta: x[:, :1, ::2, ::2], dim=1, image_shape=(1, 4, 4))
    assert half.draw(X, key=0, index=INDEX, draws=2).shape == (2, 5, 1, 4, 4)
    assert half.draw(X[:0], key=0, index=INDEX[:0], draws=2).shape == (2, 0, 1, 4, 4)
    assert Compose([half, Rotation(30)]).draw(X, key=0, index=INDEX).shape == (1, 5, 1, 4, 4)


@pytest.mark.parametrize("generator, message", [
    (lambda x, delta: x[:, :1], r"generator\(x, delta\): expected shape \[5, 3, 8, 8\], got \[5, 1, 8, 8\]"),
    (lambda x, delta: x / 0, r"generator\(x, delta\): expected finite numbers, got (nan|inf)"),
])  # fmt: skip
def test_images_that_are_refused(generator, message):
    with pytest.raises(ValueError, match=message):
        ModuleKernel(generator).draw(X, key=0, index=INDEX)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"generator\(x, delta\): expected torch.float32, got torch.float64"):
        ModuleKernel(lambda x, delta: x.double()).draw(X, key=0, index=INDEX)
    with pytest.raises(TypeError, match=r"generator: expected a module or a function of \(x, delta\), got int"):
        ModuleKernel(3)
    for name, value in (("dim", 0), ("images_at_once", 0), ("image_shape", (3, 8)), ("distribution", "gauss")):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            ModuleKernel(Shade(), **{name: value})
    with pytest.raises(ValueError, match=r"x: expected pixels within \[0, 1\]"):
        ModuleKernel(Shade()).draw(X + 1, key=0, index=INDEX)
    with pytest.raises(ValueError, match=r"delta: generator\(Shade, dim=8.* expected values in \[-1, 1\], got 2"):
        ModuleKernel(Shade())(X, torch.full((5, 8), 2.0))
