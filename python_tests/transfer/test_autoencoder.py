"""E, D1 and D2 against appendix B, and their training against a plain loop."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional

import robustperf as rp
from python_tests.support import processes
from robustperf.training import ERM, batches, fit
from robustperf.transfer import PairedAutoencoder, Reconstruction

SMALL = {"code": 8, "width": 4, "hidden": 16}


@pytest.fixture(scope="module")
def x():
    return rp.data.load("digits", "train").x[:60]


def small(shape=(1, 8, 8), seed=0):
    torch.manual_seed(seed)
    return PairedAutoencoder(shape, **SMALL)


def train(model, *arguments, **options):
    return model.fit(*arguments, **{"epochs": 2, "batch_size": 16, "progress": False, **options})


def test_it_is_appendix_b():
    model = PairedAutoencoder()
    layers = [layer for layer in model.encoder if not isinstance(layer, (nn.ReLU, nn.Flatten))]
    assert [tuple(layer.weight.shape) for layer in layers] == [
        (32, 1, 3, 3),
        (64, 32, 3, 3),
        (128, 64, 3, 3),
        (128, 128 * 4 * 4),
    ]
    value, sides = torch.zeros(1, 1, 28, 28), []
    for layer in model.encoder[:6]:
        value = layer(value)
        sides.append(value.shape[-1])
    assert sides == [14, 14, 7, 7, 4, 4]
    for decoder in (model.clean, model.shifted):
        layers = [layer for layer in decoder if next(layer.parameters(), None) is not None]
        assert [tuple(layer.weight.shape) for layer in layers] == [
            (2048, 128), (7 * 7 * 64, 2048), (64, 64, 3, 3), (64, 32, 3, 3), (32, 1, 3, 3)]  # fmt: skip
        assert [layer.stride for layer in layers[2:]] == [(2, 2), (2, 2), (1, 1)]
        assert isinstance(decoder[-1], nn.Sigmoid)
        value, sides = torch.zeros(1, 128), []
        for layer in decoder:
            value = layer(value)
            sides.append(tuple(value.shape[1:]))
        assert sides[4] == (64, 7, 7) and sides[5] == (64, 14, 14) and sides[-1] == (1, 28, 28)
    assert model.clean[0] is not model.shifted[0]


def test_the_reshape_is_rows_columns_channels():
    code = torch.rand(3, 8)
    decoder = small((1, 8, 12)).clean
    flat = decoder[:4](code)
    torch.testing.assert_close(decoder[4](flat), flat.view(3, 2, 3, 8).permute(0, 3, 1, 2), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20), (2, 4, 28), (1, 32, 4)])
def test_any_size_divisible_by_four(shape):
    made = small(shape)(torch.rand(5, *shape))
    assert made.shape == (5, *shape) and 0 <= made.min() and made.max() <= 1


@pytest.mark.parametrize("source", [[0, 1, 1, 0, 1], [0] * 5, [1] * 5])
def test_each_image_has_the_decoder_of_its_source(x, source):
    model = small()
    made = model(x[:5], torch.tensor(source))
    for row, label in enumerate(source):
        decoder = model.shifted if label else model.clean
        torch.testing.assert_close(made[row], decoder(model.encoder(x[row : row + 1]))[0])
    torch.testing.assert_close(model(x[:5]), model.clean(model.encoder(x[:5])), rtol=0, atol=0)


def test_the_loss_is_the_mean_square_and_so_are_its_gradients(x):
    model, source = small().double(), torch.tensor([0, 1, 0, 0])
    own = small().double()
    loss = Reconstruction()(model, x[:4].double(), source, key=0, index=torch.arange(4))
    loss.backward()
    total = torch.zeros((), dtype=torch.float64)
    for image, label in zip(x[:4].double(), source.tolist(), strict=True):
        decoder = own.shifted if label else own.clean
        total = total + ((decoder(own.encoder(image[None]))[0] - image) ** 2).sum()
    (total / (4 * 64)).backward()
    torch.testing.assert_close(loss, total / (4 * 64))
    for (name, parameter), other in zip(model.named_parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


def test_a_plain_loop_finds_the_same_weights(x):
    """Many more clean images, so that some batches have no shifted image."""
    clean, shifted, model, own = x[:50], 1 - x[50:54], small(), small()
    fitted = train(model, clean, shifted, seed=3)
    both, source = torch.cat([clean, shifted]), torch.tensor([0] * 50 + [1] * 4)
    optimizer, losses, lacking = torch.optim.Adam(own.parameters(), lr=1e-3), [], 0
    for epoch in range(2):
        for rows in batches(54, 16, key=rp.random.key(3), epoch=epoch):
            images, here = both[rows], source[rows] == 1
            code, lacking = own.encoder(images), lacking + (not here.any())
            first, second = own.clean(code[~here]), own.shifted(code[here])
            loss = torch.cat([(first - images[~here]) ** 2, (second - images[here]) ** 2]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert lacking
    torch.testing.assert_close(fitted.steps[:, 0].tolist(), losses)
    assert fitted.steps[:, 1].isnan().all()  # there is no accuracy
    for (name, parameter), other in zip(model.named_parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("shifted", [None, torch.zeros(0, 1, 8, 8)])
def test_without_shifted_images_one_auto_encoder_is_trained(x, shifted):
    model, before = small(), small()
    train(model, x, shifted)
    assert not torch.equal(model.encoder[0].weight, before.encoder[0].weight)
    assert not torch.equal(model.clean[0].weight, before.clean[0].weight)
    for now, then in zip(model.shifted.parameters(), before.shifted.parameters(), strict=True):
        assert now.requires_grad and torch.equal(now, then)


def test_it_learns_to_reconstruct_both():
    x = rp.data.load("digits", "train").x
    clean, shifted = x[:400], 1 - x[400:800]
    torch.manual_seed(0)
    model = PairedAutoencoder((1, 8, 8), code=32, width=16, hidden=128)
    train(model, clean, shifted, epochs=12, batch_size=32, lr=3e-3)
    for images, label in ((clean, 0), (shifted, 1)):
        with torch.no_grad():
            error = functional.mse_loss(model(images, torch.full((400,), label)), images)
        assert error < 0.6 * images.var(0, correction=0).mean()  # of what the mean image leaves


def test_transfer_is_d1_of_e_in_parts_and_leaves_the_model_as_it_was(x, monkeypatch):
    model = small().train()
    expected = model(x)
    monkeypatch.setattr("robustperf.transfer.autoencoder._BATCH", 7)
    made = model.transfer(x.double())
    assert model.training and made.dtype == torch.float32 and not made.requires_grad
    torch.testing.assert_close(made, expected.detach())
    assert model.transfer(x[:0]).shape == (0, 1, 8, 8)


def test_training_resumes_where_it_stopped(x, tmp_path):
    uninterrupted, parts = small(), small()
    train(uninterrupted, x, 1 - x, epochs=3, out=tmp_path / "uninterrupted")
    train(parts, x, 1 - x, epochs=1, out=tmp_path / "parts")
    train(parts, x, 1 - x, epochs=3, out=tmp_path / "parts", resume=True)
    for now, then in zip(uninterrupted.parameters(), parts.parameters(), strict=True):
        assert torch.equal(now, then)


def losses():
    """Losses where most batches have no shifted image, and some processes' parts none of the others'."""
    x = rp.data.load("digits", "train").x[:60]
    return train(small(), x[:57], 1 - x[57:]).steps[:, 0], train(small(), x).steps[:, 0]


def save_losses(folder):
    torch.save(losses(), folder / f"{os.environ['RANK']}.pt")


def test_two_processes_agree_with_one(tmp_path):
    processes.on_two_processes(save_losses, tmp_path, log=tmp_path / "log")
    one = losses()
    for rank in range(2):
        for mine, theirs in zip(torch.load(tmp_path / f"{rank}.pt"), one, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_an_objective_that_does_not_classify_has_no_validation(x):
    data = rp.data.Dataset("x", x, torch.zeros(len(x), dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=r"validation: expected None for Reconstruction\(\).*got 0.1"):
        fit(small(), Reconstruction(), data, progress=False)
    with pytest.raises(ValueError, match=r"model\(x\): expected shape"):  # and one that does needs logits
        fit(small(), ERM(), data, batch_size=16, progress=False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_shape": (1, 28, 30)}, "image_shape: expected sides divisible by 4, got 28 x 30"),
        ({"image_shape": (28, 28)}, r"image_shape: expected \(C, H, W\)"),
        ({"code": 0}, "code: expected an integer above 0, got 0"),
        ({"hidden": 1.5}, "hidden: expected"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairedAutoencoder(**arguments)


@pytest.mark.parametrize(
    "clean, shifted, error, message",
    [
        (torch.rand(9, 1, 8, 8) + 0.5, None, ValueError, r"clean: expected pixels within \[0, 1\]"),
        (torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 8) - 0.5, ValueError, r"shifted: expected pixels within \[0, 1\]"),
        (torch.rand(9, 1, 8, 8), torch.full((2, 1, 8, 8), torch.nan), ValueError, "shifted: expected finite pixels"),
        (torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 4), ValueError, r"shifted: expected shape \[N, 1, 8, 8\]"),
        (torch.rand(9, 64), None, ValueError, r"clean: expected shape \[N, 1, 8, 8\]"),
        (torch.rand(9, 1, 8, 8).double(), None, TypeError, "clean: expected torch.float32"),
        (torch.rand(0, 1, 8, 8), torch.rand(9, 1, 8, 8), ValueError, "clean: expected images, got none"),
    ],
)
def test_bad_images(clean, shifted, error, message):
    with pytest.raises(error, match=message):
        train(small(), clean, shifted)


def test_transfer_rejects_other_input(x):
    for wrong, message in ((2 * x, "within"), (x[:, 0], "expected shape"), (x.long(), "expected torch.float32")):
        with pytest.raises((ValueError, TypeError), match=message):
            small().transfer(wrong)
    with pytest.raises(ValueError, match=r"x: expected images \[B, 1, 8, 8\]"):
        small()(x[:, :, :4])
    with pytest.raises(ValueError, match=r"source: expected 0 or 1 for each image, got \[0, 2, 1\]"):
        small()(x[:3], torch.tensor([0, 2, 1]))
    with pytest.raises(ValueError, match=r"source: expected shape \[3\]"):
        small()(x[:3], torch.tensor([0, 1]))
