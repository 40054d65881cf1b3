"""Warps: quarter turns, integer shifts and the order of an affine map's parts, where the result is known exactly."""

import math

import pytest
import torch

from robustperf.nuisance import Affine, Compose, Rotation, Scale, Shear, Translation


def noise(*shape, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def under(kernel, x, *delta):
    return kernel(x, torch.tensor(delta, dtype=torch.float64).expand(len(x), -1))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("size", [8, 9])
def test_quarter_turns_are_counter_clockwise(outside, quarters, size):
    x = noise(2, 3, size, size)
    close(under(Rotation(270, outside), x, 90 * quarters), x.rot90(quarters, (2, 3)))


def test_half_a_turn_of_an_image_that_is_not_square():
    x = noise(2, 1, 5, 8)
    close(under(Rotation(180), x, 180), x.flip(2, 3))


def test_pixels_rotated_out_of_the_image_are_lost():
    x = torch.ones(1, 1, 9, 9)
    assert under(Rotation(45), x, 45)[0, 0, 0, 0] == 0
    assert under(Rotation(45, "border"), x, 45).min() == 1


def test_translation_is_to_the_right_and_down_in_fractions():
    x = noise(2, 3, 4, 8)
    moved = under(Translation(0.5, 0.5), x, 2 / 8, 1 / 4)
    close(moved[..., 1:, 2:], x[..., :-1, :-2])
    assert (moved[..., 0, :] == 0).all() and (moved[..., :2] == 0).all()
    edge = under(Translation(0.5, 0.5, "border"), x, 2 / 8, 1 / 4)
    close(edge[..., 1:, 2:], x[..., :-1, :-2])
    close(edge[..., 1:, 0], x[..., :-1, 0])
    close(edge[..., 0, 2:], x[..., 0, :-2])


def test_translation_by_half_a_pixel_takes_the_mean():
    x = noise(1, 1, 4, 8)
    moved = under(Translation(0.5, None), x, 0.5 / 8)
    close(moved[..., 1:], (x[..., 1:] + x[..., :-1]) / 2)
    close(moved[..., 0], x[..., 0] / 2)  # black comes in


def test_an_axis_may_be_omitted():
    x = noise(1, 1, 4, 8)
    assert Translation(None, 0.5).dim == Translation(0.5, None).dim == 1
    close(under(Translation(None, 0.5), x, 1 / 4)[..., 1:, :], x[..., :-1, :])


def test_scale_is_a_zoom_about_the_centre():
    x = noise(2, 1, 9, 9)
    large = under(Scale(1), x, 1)
    close(large[..., ::2, ::2], x[..., 2:7, 2:7])
    small = under(Scale((-0.5, 0)), x, -0.5)
    close(small[..., 2:7, 2:7], x[..., ::2, ::2])
    assert (small[..., 0, :] == 0).all()


def test_shear_moves_rows_by_their_height_and_columns_by_their_width():
    x = noise(1, 1, 5, 5)
    along_x = under(Shear(45), x, 45)
    for row, steps in enumerate((-2, -1, 0, 1, 2)):  # from the centre down, y grows and so does x
        kept = slice(max(steps, 0), 5 + min(steps, 0))
        came = slice(max(-steps, 0), 5 + min(-steps, 0))
        close(along_x[0, 0, row, kept], x[0, 0, row, came])
    close(under(Shear(None, 45), x, 45), under(Shear(45), x.transpose(2, 3), 45).transpose(2, 3))


def test_the_parts_of_an_affine_map_and_their_order():
    kernel = Affine(90, 0.5, 1, 45)
    assert kernel.dim == 6
    x = noise(1, 1, 9, 9)
    quarter = under(kernel, x, 90, 1 / 9, 0, 0, 0, 0)  # turned first, then moved to the right
    close(quarter[..., 1:], x.rot90(1, (2, 3))[..., :-1])
    sheared = under(kernel, x, 90, 0, 0, 0, 45, 0)  # sheared before it is turned
    close(sheared, under(Rotation(90), under(Shear(45), x, 45), 90))
    one_by_one = under(Shear(45, 45), x, 45, 0)
    close(under(kernel, x, 0, 0, 0, 0, 45, 0), one_by_one)
    large = under(kernel, x, 0, 0, 1 / 9, 1, 0, 0)  # zoomed, then moved by a fraction of the unscaled image
    close(large[..., 1:, :], under(Scale(1), x, 1)[..., :-1, :])


def test_parts_of_an_affine_map_may_be_omitted():
    x = noise(2, 1, 7, 6)
    close(under(Affine(None, None, 0.5, None), x, 0.3), under(Scale(0.5), x, 0.3))
    close(under(Affine(40, None, None, None, "border"), x, 33), under(Rotation(40, "border"), x, 33))
    assert Affine(translation=None).dim == 4
    with pytest.raises(ValueError, match="rotation, translation, scale, shear: expected at least one range"):
        Affine(None, None, None, None)


def test_a_rotation_and_its_inverse():
    x = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    y, across = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    x[0, 0] = torch.exp(-8 * ((y - 0.1) ** 2 + (across + 0.2) ** 2))
    back = under(Compose([Rotation(), Rotation()]), x, 25, -25)
    assert (back - x).abs().max() < 0.03


def test_float32_agrees_with_float64():
    x = noise(4, 3, 32, 32)
    kernel = Affine()
    delta = kernel.sample(0, torch.arange(4), 8)
    torch.testing.assert_close(kernel(x.float(), delta).double(), kernel(x, delta), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "create, message",
    [
        (lambda: Rotation(0), "expected a number above 0 or finite bounds with lower < upper, got 0"),
        (
            lambda: Rotation((10, -10)),
            r"expected a number above 0 or finite bounds with lower < upper, got \(10, -10\)",
        ),
        (lambda: Rotation(math.inf), "expected a number above 0 or finite bounds"),
        (lambda: Rotation((0, math.nan)), "expected a number above 0 or finite bounds"),
        (lambda: Rotation(outside="mirror"), "outside: expected 'zeros' or 'border', got 'mirror'"),
        (lambda: Scale((-1, 0)), r"expected bounds within \[-0.99, 99\], got \(-1, 0\)"),
        (lambda: Scale(100), r"expected bounds within \[-0.99, 99\], got 100"),
        (lambda: Shear(81), r"expected bounds within \[-80, 80\], got 81"),
        (lambda: Shear(None, (-90, 0)), r"expected bounds within \[-80, 80\], got \(-90, 0\)"),
        (lambda: Translation(None, None), "x, y: expected at least one range, got none"),
        (lambda: Affine(shear=85), r"expected bounds within \[-80, 80\], got 85"),
    ],
)
def test_errors(create, message):
    with pytest.raises(ValueError, match=message):
        create()


@pytest.mark.parametrize("wrong", ["30", "05", True, (1, 2, 3), {}, (1, "a")])
def test_a_range_of_another_type(wrong):
    for kernel in (Rotation, Translation, Scale, Shear, Affine):
        with pytest.raises(TypeError, match="expected a number or bounds"):
            kernel(wrong)
