"""Learned kernels: draws against the network itself, gradients in delta, what is kept, files, and use in training."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import robustperf as rp
from python_tests.support.learned import INDEX, generator, images, kernel
from robustperf import nets
from robustperf.nuisance import Brightness, Compose, LearnedKernel
from robustperf.training import MAT, MDA, MRT

X = images()


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("sizes", [{}, {"style_dim": 8, "downsamplings": 2, "residual_blocks": 4}], ids=["32", "64"])
def test_a_draw_is_the_network_style_by_style(distribution, sizes):
    made = kernel(distribution=distribution, **sizes)
    network = generator(**sizes).eval()
    delta = made.sample(3, INDEX, 4)
    words = rp.random.uniform(3, INDEX, 4, made.dim) if distribution == "uniform" else None
    expected = 2 * words - 1 if words is not None else rp.random.normal(3, INDEX, 4, made.dim)
    assert torch.equal(delta, expected) and made.dim == sizes.get("style_dim", 2)
    drawn = made.draw(X, key=3, index=INDEX, draws=4)
    assert torch.equal(drawn, made(X, delta)) and 0 <= drawn.min() and drawn.max() <= 1
    with torch.no_grad():
        for draw, row in np.ndindex(4, 5):
            alone = network(X[row : row + 1], delta[draw, row : row + 1])
            torch.testing.assert_close(drawn[draw, row], alone[0], rtol=1e-4, atol=1e-5)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3 and (drawn[:, 0] - drawn[:, 1]).abs().max() > 1e-3


def test_a_draw_does_not_depend_on_the_batch_the_order_or_the_chunk(monkeypatch):
    full = kernel().draw(X, key=3, index=INDEX, draws=20)
    for rows in (torch.tensor([4]), torch.tensor([2, 0, 3])):
        part = kernel().draw(X[rows], key=3, index=INDEX[rows], draws=torch.tensor([7, 19]))
        torch.testing.assert_close(part, full[[7, 19]][:, rows], rtol=1e-4, atol=1e-5)
    for at_once in (1, 2, 12):  # fewer than the batch, and several draws of it
        monkeypatch.setattr("robustperf.nuisance.learned.kernel.IMAGES_AT_ONCE", at_once)
        torch.testing.assert_close(kernel().draw(X, key=3, index=INDEX, draws=20), full, rtol=1e-4, atol=1e-5)


def test_the_gradient_in_delta_and_in_x_against_finite_differences():
    made, x = kernel(width=2), X[:2, :, :4, :4].double()
    delta = made.sample(0, INDEX[:2], 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda delta: made(x, delta), delta)
    pixels = (0.1 + 0.8 * x[:1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda pixels: made(pixels, delta[:, :1].detach()), pixels, fast_mode=True)
    made(x, delta).sum().backward()
    assert all(parameter.grad is None for parameter in made.generator.parameters())


def counted(made, monkeypatch):
    """A list to which each call of the content encoder adds the number of its images."""
    calls = []
    encode = type(made.generator).encode
    monkeypatch.setattr(type(made.generator), "encode", lambda self, x: calls.append(len(x)) or encode(self, x))
    return calls


def test_the_content_is_encoded_once_for_all_draws_and_calls(monkeypatch):
    made = kernel()
    calls = counted(made, monkeypatch)
    for draw in range(3):
        made.draw(X, key=0, index=INDEX, draws=torch.tensor([draw]))
    made(X, torch.zeros(5, 2, requires_grad=True)).sum().backward()
    assert calls == [5]
    with torch.inference_mode():
        made.draw(X, key=0, index=INDEX)
    assert calls == [5, 5]  # a tensor of inference mode must not reach the next gradient
    made(X, torch.zeros(5, 2, requires_grad=True)).sum().backward()
    made(X.clone().requires_grad_(), torch.zeros(5, 2)).sum().backward()
    assert calls == [5, 5, 5]


def test_images_that_were_written_over_are_encoded_again():
    made, fresh = kernel(), kernel()
    array = X.numpy().copy()
    x = torch.from_numpy(array)
    made.draw(x, key=0, index=INDEX)
    array[:] = images(seed=9).numpy()  # torch counts no such write
    assert torch.equal(made.draw(x, key=0, index=INDEX), fresh.draw(images(seed=9), key=0, index=INDEX))
    torch.testing.assert_close(
        made.draw(x.double(), key=0, index=INDEX), made.draw(x, key=0, index=INDEX).double(), rtol=1e-4, atol=1e-5
    )


def test_equality_copies_and_pickles():
    made = kernel()
    made.draw(X, key=0, index=INDEX)
    for other in (kernel(), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other == made and repr(other) == repr(made) and hash(other) == hash(made)
        assert torch.equal(other.draw(X, key=0, index=INDEX), made.draw(X, key=0, index=INDEX))
    assert kernel(seed=1) != made and kernel(distribution="normal") != made and repr(kernel(seed=1)) != repr(made)
    source = generator()
    made = LearnedKernel(source)
    before = made.draw(X, key=0, index=INDEX)
    torch.nn.init.zeros_(source.decoder.last.weight)  # it has weights of its own
    assert torch.equal(made.draw(X + 0, key=0, index=INDEX), before)


def test_a_saved_kernel_is_the_same(tmp_path):
    made = LearnedKernel(generator(), distribution="normal", facts={"iterations": 7, "a": "dark"})
    made.save(tmp_path / "runs" / "g")
    for path in (tmp_path / "runs" / "g", tmp_path / "runs" / "g" / "kernel.safetensors"):
        loaded = LearnedKernel.load(path)
        assert loaded == made and loaded.facts == made.facts
        assert torch.equal(loaded.draw(X, key=0, index=INDEX, draws=3), made.draw(X, key=0, index=INDEX, draws=3))
    first = (tmp_path / "runs" / "g" / "kernel.safetensors").read_bytes()
    made.save(tmp_path)
    assert (tmp_path / "kernel.safetensors").read_bytes() == first


def rewritten(path, **settings):
    """The file with other settings of the generator in its header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata()
    found = json.loads(header["settings"])
    found["generator"] |= settings
    save_file(load_file(path), path, {**header, "settings": json.dumps(found)})


@pytest.mark.parametrize(
    "settings", [{"style_dim": 8}, {"width": 8}, {"residual_blocks": 2}, {"width": 10**9}, {"depth": 3}, {"width": "4"}]
)
def test_a_kernel_of_other_sizes_than_its_weights(tmp_path, settings):
    kernel().save(tmp_path)
    rewritten(tmp_path / "kernel.safetensors", **settings)
    with pytest.raises(ValueError, match=r"kernel: .*kernel\.safetensors cannot be loaded: "):
        LearnedKernel.load(tmp_path)


def test_files_that_are_no_kernel(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"kernel: no file .*kernel\.safetensors; `learn` and `save` write one"):
        LearnedKernel.load(tmp_path)
    nets.weights_file.save(tmp_path / "model.safetensors", nets.build("small-cnn", size=8))
    with pytest.raises(ValueError, match=r"expected a file of robustperf's LearnedKernel\.save, got another"):
        LearnedKernel.load(tmp_path / "model.safetensors")
    (tmp_path / "kernel.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        LearnedKernel.load(tmp_path)
    broken = generator()
    torch.nn.init.constant_(broken.decoder.last.bias, torch.nan)
    with pytest.raises(ValueError, match="expected finite numbers, got nan"):
        LearnedKernel(broken).save(tmp_path)


@pytest.mark.parametrize(
    "x, message",
    [
        (X[:, :1], r"x: expected images with 3 channels for learned\(dim=2.*, got shape \[1, 8, 8\]"),
        (X[..., :7], r"x: expected images with sides of at least 4 pixels that are divisible by 2 .* \[3, 8, 7\]"),
        (X + 0.5, r"x: expected pixels within \[0, 1\], got 1\.4"),
        (X * torch.nan, "x: expected finite pixels, got nan"),
    ],
)
def test_images_that_it_does_not_take(x, message):
    with pytest.raises(ValueError, match=message):
        kernel().draw(x, key=0, index=INDEX)


def test_delta_outside_of_Delta():
    made = kernel()
    for wrong in (1.01, -1.5, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="delta: "):
            made(X, torch.full((5, 2), wrong))
    with pytest.raises(ValueError, match=r"delta: learned.* expected values in \[-1, 1\], got 1\.01 in component 0"):
        made(X, torch.full((5, 2), 1.01))
    normal = kernel(distribution="normal")
    assert normal(X, torch.full((5, 2), 7.0)).isfinite().all()
    with pytest.raises(ValueError, match="delta: expected finite numbers, got inf"):
        normal(X, torch.full((5, 2), torch.inf))
    assert torch.equal(made.project(torch.tensor([[3.0, -2.0]])), torch.tensor([[1.0, -1.0]]))
    assert torch.equal(normal.project(torch.tensor([[3.0, -2.0]])), torch.tensor([[3.0, -2.0]]))
    with pytest.raises(ValueError, match="distribution: expected one of uniform, normal, ball, got 'gauss'"):
        LearnedKernel(generator(), distribution="gauss")
    with pytest.raises(TypeError, match="generator: expected a MunitGenerator or a PairedGenerator, got Linear"):
        LearnedKernel(torch.nn.Linear(2, 2))


def test_no_images_and_other_sizes_than_it_was_learned_on():
    made = kernel()
    assert made.draw(X[:0], key=0, index=INDEX[:0], draws=3).shape == (3, 0, 3, 8, 8)
    assert made.draw(torch.rand(5, 3, 6, 10), key=0, index=INDEX, draws=3).shape == (3, 5, 3, 6, 10)


def test_compositions_with_known_and_learned_kernels():
    learned, other, known = kernel(), kernel(seed=1), Brightness(0.2)
    both = Compose([known, learned, other])
    delta = both.sample(0, INDEX, 3)
    assert both.dim == 5 and delta.shape == (3, 5, 5)
    expected = [
        other(learned(known(X, each[:, :1]), each[:, 1:3]), each[:, 3:]) for each in delta
    ]  # fmt: skip
    torch.testing.assert_close(both.draw(X, key=0, index=INDEX, draws=3), torch.stack(expected), rtol=1e-4, atol=1e-5)
    shared = Compose([learned, other], shared=True)  # R equation 6.1
    delta = shared.sample(0, INDEX, 1)[0]
    assert shared.dim == 2 and both.differentiable_in_delta
    torch.testing.assert_close(shared(X, delta), other(learned(X, delta), delta), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [
    lambda made: MRT(made, k=4), lambda made: MRT(made, k=4, selection="sample", chunk=3),
    lambda made: MDA(made, k=2), lambda made: MAT(made, k=3),
], ids=["MRT", "MRT by sample", "MDA", "MAT"])  # fmt: skip
def test_a_step_of_training_is_that_with_the_bare_network(make):
    """The same objective on a kernel that calls the whole network for each draw."""
    network = generator().eval().requires_grad_(False)
    plain = rp.nuisance.ModuleKernel(network, dim=2)
    x, y = images(5, size=8), torch.tensor([0, 3, 1, 1, 2])
    losses, gradients = [], []
    for made in (kernel(), plain):
        torch.manual_seed(0)
        model = nets.SmallCNN(in_channels=3, size=8, classes=4, width=4)
        loss = make(made)(model, x, y, key=rp.random.key(5), index=INDEX)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_autocast_around_a_draw_does_not_change_it():
    made = kernel()
    with torch.autocast("cpu", torch.bfloat16):
        inside = made.draw(X, key=0, index=INDEX, draws=2)
    assert inside.dtype == torch.float32 and torch.equal(inside, kernel().draw(X, key=0, index=INDEX, draws=2))
    model = nets.SmallCNN(in_channels=3, size=8, classes=4, width=4)
    objective = MRT(made, k=4, selection_dtype=torch.bfloat16)
    assert objective(model, X, torch.tensor([0, 3, 1, 1, 2]), key=1, index=INDEX).isfinite()


def test_a_step_of_training_encodes_the_content_once(monkeypatch):
    made = kernel()
    calls = counted(made, monkeypatch)
    model = nets.SmallCNN(in_channels=3, size=8, classes=4, width=4)
    y = torch.tensor([0, 3, 1, 1, 2])
    MRT(made, k=6, chunk=1)(model, X, y, key=1, index=INDEX)
    MAT(made, k=6)(model, X, y, key=1, index=INDEX)
    assert calls == [5]
