"""Single transforms where the result is known: turns, shifts, colours, noise, blur and fog."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from python_tests.support.nuisance import (
    STEPS,
    T,
    affine,
    both_dtypes,
    close,
    fitted,
    images,
    plain,
    program_of,
    run,
    step,
)
from robustperf.ops import nuisance
from robustperf.ops.program import (
    FOG_NODES,
    Outside,
    Program,
    Source,
)

OP = "nuisance"


@pytest.mark.parametrize("dtype, near", [(torch.float32, 2e-6), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
@pytest.mark.parametrize("outside", list(Outside))
def test_quarter_turns_are_counter_clockwise(backend, device, degrees, outside, dtype, near):
    turn = Program((affine(1, outside),))
    for size in (1, 2, 5, 24):
        x = images((2, 3, size, size))
        got = run(backend, device, turn, x, torch.full((1, 2, 1), float(degrees)), dtype)[0]
        close(got, torch.rot90(x.double(), degrees // 90, (2, 3)), near * size)


@both_dtypes
def test_whole_pixels_are_moved_right_and_down(backend, device, dtype):
    x = images((1, 2, 8, 16)).to(dtype)  # sizes that divide without rounding
    move = [Program((affine(0b110, outside),)) for outside in Outside]
    for right, down in ((0, 0), (3, 0), (-3, 0), (0, 2), (0, -2), (5, -7), (16, 8), (-20, 30)):
        delta = torch.tensor([[[right / 16, down / 8]]])
        rows, columns = torch.arange(8) - down, torch.arange(16) - right
        within = ((rows >= 0) & (rows < 8))[:, None] & ((columns >= 0) & (columns < 16))
        shifted = x[..., rows.clamp(0, 7), :][..., columns.clamp(0, 15)]
        zeros, border = (run(backend, device, program, x, delta, dtype)[0] for program in move)
        assert torch.equal(border, shifted)
        assert torch.equal(zeros, torch.where(within, shifted, 0))


@both_dtypes
def test_half_a_pixel_outside_is_half_black(backend, device, dtype):
    x = torch.ones(1, 1, 2, 4)
    out = run(backend, device, Program((affine(2, Outside.ZEROS),)), x, torch.tensor([[[0.125]]]), dtype)
    assert out[0, 0, 0].tolist() == [[0.5, 1, 1, 1]] * 2
    out = run(backend, device, Program((affine(2, Outside.BORDER),)), x, torch.tensor([[[0.125]]]), dtype)
    assert out.eq(1).all()


@both_dtypes
def test_a_scale_of_one_shows_everything_twice_as_large(backend, device, dtype):
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2], x[..., 2, 1], x[..., 0, 0] = 1, 0.5, 1
    out = run(backend, device, Program((affine(8, Outside.ZEROS),)), x, torch.ones(1, 1, 1), dtype)[0, 0, 0]
    assert out.tolist() == [[0.0] * 5, [0.25, 0.375, 0.5, 0.25, 0], [0.5, 0.75, 1, 0.5, 0],
                            [0.25, 0.375, 0.5, 0.25, 0], [0.0] * 5]  # fmt: skip


@both_dtypes
def test_shears_move_x_by_y_and_y_by_x(backend, device, dtype):
    x = torch.zeros(1, 1, 5, 5)
    x[..., 4, 2], x[..., 2, 4] = 0.25, 0.75
    by_y = run(backend, device, Program((affine(16, Outside.ZEROS),)), x, torch.full((1, 1, 1), 45.0), dtype)[0, 0, 0]
    by_x = run(backend, device, Program((affine(32, Outside.ZEROS),)), x, torch.full((1, 1, 1), 45.0), dtype)[0, 0, 0]
    want = torch.zeros(5, 5, dtype=torch.float64)
    want[2, 4] = 0.75  # below the centre by nothing: it stays
    close(by_y, want.index_put((torch.tensor(4), torch.tensor(4)), torch.tensor(0.25).double()), 1e-6)
    want = want.zero_().index_put((torch.tensor(4), torch.tensor(2)), torch.tensor(0.25).double())
    close(by_x, want.index_put((torch.tensor(4), torch.tensor(4)), torch.tensor(0.75).double()), 1e-6)


UNTOUCHED = [name for name, one in STEPS.items() if one.transform not in (T.BACKGROUND, T.IMPULSE, T.SHOT)]


@both_dtypes
@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_delta_of_zero_changes_nothing(backend, device, name, dtype):
    warps_or_adds = STEPS[name].transform in (T.AFFINE, T.ADD, T.BLUR, T.BRIGHTNESS)
    for shape in ((2, 3, 1, 1), (2, 3, 7, 5), (1, 3, 33, 21)):
        x = images(shape).to(dtype)
        program = fitted(program_of(name), *shape[2:])
        out = run(backend, device, program, x, torch.zeros(1, shape[0], program.layout(shape[1:]).dim), dtype)[0]
        if warps_or_adds:
            assert torch.equal(out, x)
        else:
            close(out, x.double(), 1e-6 if dtype == torch.float32 else 1e-14)


@both_dtypes
def test_hue_turns_red_into_green_at_a_third(backend, device, dtype):
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1]])
    x = colours.T[None, :, None]
    for turns, places in ((1 / 3, (2, 0, 1)), (-1 / 3, (1, 2, 0)), (0.0, (0, 1, 2))):
        out = run(backend, device, program_of("hue"), x, torch.full((1, 1, 1), turns), dtype)[0]
        close(out, x[:, places].double(), 1e-6)
    for turns in (0.5, -0.5):  # the complement
        out = run(backend, device, program_of("hue"), x, torch.full((1, 1, 1), turns), dtype)[0, 0, :, 0].T
        close(out[:4], 1 - colours[:4].double(), 1e-6)
        close(out[4:], colours[4:].double(), 0)


@both_dtypes
def test_gamma_at_the_ends_of_its_range(backend, device, dtype):
    x = torch.tensor([[[[0.0, 1e-45, 1e-40, 2.0**-126, 1e-30, 0.25, 1.0]]]])
    out = run(backend, device, program_of("gamma"), x, torch.tensor([[[-1.0]], [[0.0]], [[1.0]], [[-0.5]]]), dtype)
    assert out[0].eq(1).all(), "x^0 is 1, that of 0 too"
    assert out[1:, ..., 0].eq(0).all() and out[..., -1].eq(1).all()
    close(out[1:, 0, 0, 0, 5], torch.tensor([0.25, 0.0625, 0.5]).double(), 1e-7)
    close(out[:, 0, 0, 0, 3:], x[0, 0, 0, 3:].double() ** torch.tensor([[0.0], [1], [2], [0.5]]).double(), 1e-7)


@both_dtypes
def test_a_background_of_white_shows_no_foreground(backend, device, dtype):
    x = torch.ones(1, 3, 2, 2)
    x[..., 1, 1] = 0.5
    delta = torch.tensor([[[0.25, 0.5, 0.75]]])
    for one in (STEPS["background of a corner"],
                step(T.BACKGROUND, (0,) * 3, (1,) * 3, Source.COLOUR, 1, 1, 1)):  # fmt: skip
        out = run(backend, device, Program((one,)), x, delta, dtype)
        assert out[0, 0].flatten(1).T.tolist() == [[0.25, 0.5, 0.75]] * 4


@both_dtypes
def test_impulses_at_the_bounds(backend, device, dtype):
    x = torch.full((1, 1, 1, 6), 0.5)
    u = torch.tensor([[[0.0, 0.25 - 2.0**-24, 0.25, 0.75 - 2.0**-24, 0.75, 1.0]]])
    out = run(backend, device, program_of("impulse"), x, u, dtype)
    assert out.flatten().tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_backends_agree_where_impulses_begin(backend, device):
    """In float32, for fractions whose bounds are rounded."""
    for fraction in (0.1, 0.2, 0.3, 0.05, 0.707819864399788, 0.45938294312745087, 0.9207476841219603):
        u = 1 - torch.tensor(fraction).div(2) + torch.arange(-3, 4) * 2.0**-24
        program = Program((step(T.IMPULSE, (0,), (1,), fraction),))
        x = torch.full((1, 1, 1, 7), 0.5)
        want = nuisance(x, u[None, None], program, backend="reference")
        assert torch.equal(run(backend, device, program, x, u[None, None], torch.float32), want), fraction


@both_dtypes
def test_shot_noise_counts_the_least_n_whose_probability_exceeds_u(backend, device, dtype):
    rate = 25.0
    means = torch.tensor([0.0, 0.04, 0.5, 1.0])
    x = means.view(1, 4, 1, 1).expand(1, 4, 50, 50).contiguous()
    u = torch.rand(1, 1, 4 * 2500, generator=torch.Generator().manual_seed(0))
    program = program_of("shot")
    counts = run(backend, device, program, x, u, dtype).flatten(3)[0, 0] * rate
    assert counts[0].eq(0).all()
    counts, u = counts.double().numpy().round(), u.view(4, 2500).double().numpy()
    for i in (1, 2):  # below the clamp
        mean = rate * x[0, i, 0, 0].item()
        below = np.where(counts[i] > 0, poisson.cdf(counts[i] - 1, mean), 0)
        seen = counts[i] < 25
        assert (poisson.cdf(counts[i], mean) > u[i])[seen].all() and (below <= u[i] + 1e-15).all()
        assert seen.mean() > 0.95 and len(set(counts[i])) > 4


def test_shot_noise_where_u_is_a_probability(backend, device):
    mean = math.log(2)
    assert math.exp(-mean) == 0.5  # P(n <= 0): not above u = 1/2, so the count is 1
    x = torch.full((1, 1, 1, 3), mean, dtype=torch.float64)
    u = torch.tensor([[[math.nextafter(0.5, 0), 0.5, 0.0]]], dtype=torch.float64)
    out = run(backend, device, Program((step(T.SHOT, (0,), (1,), 1),)), x, u, torch.float64)
    assert out.flatten().tolist() == [0, 1, 0]


@both_dtypes
def test_shot_noise_at_its_highest_rate_and_at_the_ends_of_u(backend, device, dtype):
    x = torch.tensor([[[[1.0, 0.5, 1.0, 0.5, 0.0]]]])
    u = torch.tensor([[[0.5, 0.5, 1 - 2.0**-24, 0.0, 1 - 2.0**-24]]])
    out = run(backend, device, Program((step(T.SHOT, (0,), (1,), 500),)), x, u, dtype).flatten()
    want = np.clip(poisson.ppf(u[0, 0].double().numpy(), 500 * x.flatten().double().numpy()) / 500, 0, 1)
    want[3] = 0  # scipy's least n for u = 0 is -1
    close(out, torch.from_numpy(want), 1e-7)


@both_dtypes
@pytest.mark.parametrize("radius, shape", [(0, (1, 1)), (0, (6, 4)), (1, (2, 2)), (3, (4, 4)), (3, (4, 31)),
                                           (6, (9, 40)), (20, (21, 33)), (64, (65, 66))])  # fmt: skip
def test_blurs_up_to_the_largest_radius(backend, device, radius, shape, dtype):
    program = Program((step(T.BLUR, (0,), (22,), radius),))
    sigma = torch.tensor([[[0.0], [0.01], [0.8], [max(radius / 3, 0.5)]], [[2.5], [1e-6], [radius + 1.0], [0.3]]])
    x = images((4, 2, *shape))
    out = run(backend, device, program, x, sigma, dtype)
    want = plain(program, x, sigma.clamp_min(1e-3))  # scipy divides by sigma; these three are the identity
    close(out, want, 2e-6 if dtype == torch.float32 else 1e-12)
    assert torch.equal(out[0, 0], x[0].to(dtype)) and torch.equal(out[1, 1], x[1].to(dtype))


@both_dtypes
def test_fog_of_black_of_no_strength_and_of_much(backend, device, dtype):
    x = images((3, 2, 6, 7))
    x[1] = 0
    delta = torch.rand(3, 3, 1 + FOG_NODES, generator=torch.Generator().manual_seed(0))
    delta[0, :, 0], delta[1, :, 0], delta[2, :, 0] = 0, 0.7, 30
    program = program_of("fog")
    out = run(backend, device, program, x, delta, dtype)
    assert torch.equal(out[0], x.to(dtype)) and out[:, 1].eq(0).all()
    close(out, plain(program, x, delta), 2e-6 if dtype == torch.float32 else 1e-12)
