"""AugMix: each operation against Pillow's or SciPy's, and the mixture against a loop over images."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from robustperf.expression import build_sum
from robustperf.nuisance import KERNELS, AugMix, Brightness, Compose
from robustperf.nuisance.augmix import OPERATIONS

KEY = 2**63 + 5
INDEX = torch.tensor([7, 0, 2**40, 3, 12])


def images(*shape, levels=236):
    """Bytes with `levels` values from 20."""
    return torch.randint(20, 20 + levels, shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.uint8)


def delta_of(operation, level, sign=0.0, severity=3.0):
    """The delta [34] of one step of one operation at a level of the paper's, unmixed: m and the first weight as near to
    1 as delta allows, and the other weights near 0."""
    delta = torch.zeros(34, dtype=torch.float64)
    delta[[0, 3]] = 1 - 2**-24
    place = (OPERATIONS.index(operation) + 0.5) / len(OPERATIONS)
    delta[5], delta[6], delta[7] = place, (level - 0.1) / (severity - 0.1), sign
    return delta


def alone(x, operation, level=1.0, sign=0.0, severity=3.0):
    return AugMix(severity)(x, delta_of(operation, level, sign, severity).expand(len(x), -1))


def pillow(picture, change):
    """`change` of a uint8 picture [C, H, W] as Pillow has it."""
    array = picture.permute(1, 2, 0).numpy()
    changed = np.asarray(change(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)))
    return torch.tensor(changed).reshape(array.shape).permute(2, 0, 1)


def pillow_operation(operation, level):
    """Pillow's operation at a level, as the paper's code calls it."""
    return {
        "autocontrast": ImageOps.autocontrast,
        "equalise": ImageOps.equalize,
        "posterise": lambda picture: ImageOps.posterize(picture, 4 - int(level * 4 / 10)),
        "solarise": lambda picture: ImageOps.solarize(picture, 256 - int(level * 256 / 10)),
    }.get(operation)


def warped(x, operation, level, width, height):
    """SciPy's warp of a float64 image [C, H, W] at a level, as the paper's code calls Pillow's."""
    turn = math.radians(int(level * 30 / 10)) if operation == "rotate" else 0
    shear = {"shear_x": np.array([[1, 0], [level * 0.3 / 10, 1]]), "shear_y": np.array([[1, level * 0.3 / 10], [0, 1]])}
    offset = {"translate_x": (0, int(level * (width / 3) / 10)), "translate_y": (int(level * (height / 3) / 10), 0)}
    turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    matrix = shear.get(operation, turned)  # of (row, column)
    # shears leave the outer corner of the first pixel where it is, turns the centre
    fixed = (np.array([height, width]) - 1) / 2 if operation == "rotate" else np.array([-0.5, -0.5])
    offset = fixed - matrix @ fixed + offset.get(operation, (0, 0))
    planes = [ndimage.affine_transform(plane, matrix, offset, order=1, mode="grid-constant") for plane in x.numpy()]
    return torch.tensor(np.stack(planes))


@pytest.mark.parametrize("operation", ["autocontrast", "equalise", "posterise", "solarise"])
@pytest.mark.parametrize("levels", [1, 2, 100, 236])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operations_on_levels_equal_pillows(operation, levels, dtype):
    for shape in ((4, 3, 32, 32), (4, 1, 28, 28), (4, 3, 9, 5)):  # equalise does nothing to fewer than 255 pixels
        pictures = images(*shape, levels=levels)
        for level in (0.2, 3, 9.9):
            ours = alone(pictures.to(dtype) / 255, operation, level, severity=10.0)
            expected = torch.stack([pillow(picture, pillow_operation(operation, level)) for picture in pictures])
            # the operation has all of the weight but 1e-6
            assert torch.equal((255 * ours).round().to(torch.uint8), expected)
            torch.testing.assert_close(ours, expected.to(dtype) / 255, atol=3e-6, rtol=0)


def test_posterise_and_solarise_at_the_ends_of_their_levels():
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    for level, bits, threshold in ((0.1, 4, 254), (2.49, 4, 193), (2.51, 3, 192), (9.999, 1, 1)):
        step = 2 ** (8 - bits)
        levels = torch.arange(256).view(1, 1, 16, 16)
        torch.testing.assert_close(
            255 * alone(x, "posterise", level, severity=10.0),
            levels // step * step,
            atol=1e-3,
            rtol=0,
            check_dtype=False,
        )
        torch.testing.assert_close(
            255 * alone(x, "solarise", level, severity=10.0),
            torch.where(levels < threshold, levels, 255 - levels),
            atol=1e-3,
            rtol=0,
            check_dtype=False,
        )


@pytest.mark.parametrize("operation", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 30, 45)])
def test_warps_equal_scipys(operation, shape):
    x = images(*shape).double() / 255
    for level in (0.3, 2.9, 9.9):
        for sign in (0.0, 0.4999, 0.5, 0.999):
            signed = level if sign < 0.5 else -level
            expected = torch.stack([warped(image, operation, signed, shape[3], shape[2]) for image in x])
            torch.testing.assert_close(alone(x, operation, level, sign, 10.0), expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize(
    "operation, change",
    [
        ("rotate", lambda p: p.rotate(21, Image.BILINEAR)),
        ("shear_x", lambda p: p.transform(p.size, Image.AFFINE, (1, 0.21, 0, 0, 1, 0), Image.BILINEAR)),
        ("shear_y", lambda p: p.transform(p.size, Image.AFFINE, (1, 0, 0, 0.21, 1, 0), Image.BILINEAR)),
        ("translate_x", lambda p: p.transform(p.size, Image.AFFINE, (1, 0, 7, 0, 1, 0), Image.BILINEAR)),
        ("translate_y", lambda p: p.transform(p.size, Image.AFFINE, (1, 0, 0, 0, 1, 7), Image.BILINEAR)),
    ],
)
def test_warps_equal_pillows_except_at_the_edge(operation, change):
    picture = images(3, 32, 32)
    ours = alone(picture[None].double() / 255, operation, 7.0 + 1e-9, severity=10.0)[0]
    inner = pillow(torch.full_like(picture, 255), change) == 255
    inner &= alone(torch.ones(1, 3, 32, 32, dtype=torch.float64), operation, 7.0 + 1e-9, severity=10.0)[0] > 1 - 1e-5
    assert inner.double().mean() > 0.6
    assert (255 * ours - pillow(picture, change).double()).abs()[inner].max() < 1.01  # Pillow truncates to bytes


def one_by_one(x, delta, severity, width):
    """The paper's loop for an image [C, H, W]: bytes go to Pillow, warps to SciPy."""
    exponentials = [-math.log1p(-u) for u in delta[:width]]
    mixed = torch.zeros_like(x)
    for part in range(width):
        chain = x
        depth, *steps = delta[width + 1 + 10 * part :][:10]
        for step in range(1 + int(3 * depth)):
            which, level, sign = steps[3 * step : 3 * step + 3]
            operation, level = OPERATIONS[int(9 * which)], 0.1 + (severity - 0.1) * level
            if change := pillow_operation(operation, level):
                chain = pillow((255 * chain).round().to(torch.uint8), change).double() / 255
            else:
                chain = warped(chain, operation, -level if sign >= 0.5 else level, x.shape[2], x.shape[1])
        mixed += exponentials[part] / sum(exponentials) * chain
    return (1 - delta[width]) * x + delta[width] * mixed


@pytest.mark.parametrize("channels, severity, width", [(3, 3.0, 3), (1, 10.0, 3), (3, 1.5, 1), (3, 5, 4)])
def test_the_mixture_equals_the_papers_loop(channels, severity, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, channels, 20, 24, generator=generator, dtype=torch.float64)
    kernel = AugMix(severity, width)
    delta = kernel.sample(KEY, INDEX, 6)
    expected = torch.stack(
        [
            torch.stack([one_by_one(image, row.tolist(), severity, width) for image, row in zip(x, rows, strict=True)])
            for rows in delta
        ]
    )
    torch.testing.assert_close(kernel(x, delta), expected, atol=1e-12, rtol=0)
    # float32 may round to another level
    torch.testing.assert_close(kernel(x.float(), delta).double(), expected, atol=1 / 255, rtol=0)


def test_delta_is_uniform():
    kernel = AugMix()
    assert kernel.dim == kernel.dim_for((3, 8, 8)) == 34 and AugMix(width=1).dim == 12
    delta = kernel.sample(KEY, torch.arange(300), 10)
    assert delta.shape == (10, 300, 34)
    # the mean of 3,000 uniforms: 5 standard deviations
    assert ((delta.double().mean((0, 1)) - 0.5).abs() < 5 / math.sqrt(12 * 3000)).all()
    kernel.check_delta(delta, (3, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_draw_depends_on_key_id_and_draw_index_only(dtype, channels):
    kernel, x = AugMix(width=5), images(5, channels, 9, 11).to(dtype) / 255
    full = kernel.draw(x, key=KEY, index=INDEX, draws=8)
    assert full.shape == (8, 5, channels, 9, 11) and full.dtype == dtype
    assert torch.equal(full, kernel(x, kernel.sample(KEY, INDEX, 8)))
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(kernel.draw(x[order], key=KEY, index=INDEX[order], draws=8), full[:, order])
    for b in range(5):
        for k in range(8):
            one = kernel.draw(x[b : b + 1], key=KEY, index=INDEX[b : b + 1], draws=torch.tensor([k]))
            assert torch.equal(one[0, 0], full[k, b])
    channels_last = kernel.draw(x.to(memory_format=torch.channels_last), key=KEY, index=INDEX, draws=8)
    assert torch.equal(channels_last, full)


def test_backends_agree():
    x = images(5, 3, 9, 11).double() / 255
    delta = AugMix().sample(KEY, INDEX, 4)
    torch.testing.assert_close(
        AugMix()(x, delta, backend="reference"), AugMix()(x, delta, backend="native"), atol=1e-9, rtol=0
    )


def test_the_result_is_an_image():
    """What is drawn is within [0, 1], and so another kernel takes it."""
    for x in (torch.zeros(5, 1, 4, 4), torch.ones(5, 1, 4, 4), images(5, 1, 4, 4) / 255):
        drawn = AugMix(10).draw(x, key=KEY, index=INDEX, draws=1000)
        assert drawn.min() >= 0 and drawn.max() <= 1
    assert Compose([AugMix(), Brightness()]).draw(x, key=KEY, index=INDEX, draws=50).isfinite().all()


def test_inputs_are_unchanged_and_there_is_no_gradient():
    x = (images(5, 3, 8, 8) / 255).requires_grad_()
    before, delta = x.detach().clone(), AugMix().sample(KEY, INDEX, 2).requires_grad_()
    assert not AugMix()(x, delta).requires_grad
    assert not AugMix().draw(x, key=KEY, index=INDEX).requires_grad
    assert torch.equal(x, before)


def test_the_corners_of_delta():
    x = images(2, 3, 8, 8) / 255
    assert torch.equal(AugMix()(x, torch.zeros(2, 34)), x)  # m = 0
    delta = torch.zeros(2, 34)
    delta[:, 3] = 0.5  # three weights of 0 count as equal; the first operation is autocontrast
    torch.testing.assert_close(AugMix()(x, delta), (x + alone(x, "autocontrast")) / 2, atol=1e-5, rtol=0)
    nearly = torch.full((2, 34), 1 - 1e-12, dtype=torch.float64)  # one in float32
    last = AugMix()(x, torch.full((2, 34), 1 - 2**-24))
    assert torch.equal(AugMix()(x, nearly), last) and last.isfinite().all()


def test_delta_out_of_its_range():
    kernel, x = AugMix(), torch.zeros(2, 1, 8, 8)
    for wrong in (-0.1, 1.0, math.nan, math.inf):
        delta = torch.full((2, 34), 0.5)
        delta[1, 5] = wrong
        with pytest.raises(ValueError, match=rf"delta: expected values in \[0, 1\), got {wrong:g}"):
            kernel(x, delta)
    far = torch.tensor([-1.0, 0.3, 1.0, 7.0]).repeat(17).view(2, 34)
    kernel(x, kernel.project(far))
    assert torch.equal(kernel.project(far)[0, :4], torch.tensor([0, 0.3, 1 - 2**-24, 1 - 2**-24]))
    assert (kernel.radius_for(None) == torch.full((34,), 0.5)).all()
    with pytest.raises(ValueError, match=r"delta: expected shape \[B, 34\], got \[2, 33\]"):
        kernel.project(torch.zeros(2, 33))


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.full((2, 1, 8, 8), 1.5), r"x: expected pixels within \[0, 1\], got 1.5"),
        (torch.full((2, 1, 8, 8), math.nan), "x: expected finite pixels, got nan"),
        (torch.zeros(2, 8, 8), r"x: expected shape \[B, C, H, W\], got \[2, 8, 8\]"),
        (torch.zeros(2, 1, 0, 8), r"x: expected images with pixels, got shape \[2, 1, 0, 8\]"),
    ],
)
def test_images_that_it_cannot_take(x, message):
    with pytest.raises(ValueError, match=message):
        AugMix().draw(x, key=0, index=torch.arange(2))


def test_an_empty_batch():
    assert AugMix().draw(torch.zeros(0, 3, 8, 8), key=0, index=INDEX[:0], draws=2).shape == (2, 0, 3, 8, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"severity": 0.1}, r"severity: expected a number in \(0.1, 10\], got 0.1"),
        ({"severity": 11}, r"severity: expected a number in \(0.1, 10\], got 11"),
        ({"severity": math.nan}, r"severity: expected a number in \(0.1, 10\], got nan"),
        ({"severity": "3"}, r"severity: expected a number in \(0.1, 10\], got '3'"),
        ({"width": 0}, "width: expected an integer above 0, got 0"),
        ({"width": 2.0}, "width: expected an integer above 0, got 2.0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        AugMix(**arguments)


def test_repr_is_valid_on_the_command_line():
    for kernel, text in ((AugMix(), "augmix(3.0, 3)"), (AugMix(1 / 3, 2), "augmix(0.3333333333333333, 2)")):
        assert repr(kernel) == text
        (same,) = build_sum(text, KERNELS)
        assert isinstance(same, AugMix) and (same.severity, same.width) == (kernel.severity, kernel.width)
