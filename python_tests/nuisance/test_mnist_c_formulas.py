"""Each corruption of MNIST-C against its definition, given the same delta: plain float64 loops over single images,
SciPy or scikit-image."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

import robustperf as rp
from python_tests.support.digit_images import INDEX, KEY, images
from robustperf.nuisance import ImpulseNoise, ShotNoise, mnist_c
from robustperf.nuisance.corruptions import fog


def given(name, x, draws=1, key=KEY):
    """delta [B, q] and what the kernel makes of it [B, H, W], for one draw of images of one channel."""
    kernel = mnist_c(name)
    delta = kernel.sample(key, torch.arange(len(x)), draws, shape=tuple(x.shape[1:])).double()
    return delta[0].numpy(), kernel(x, delta)[0, :, 0].numpy()


def assert_close(made, expected, atol=1e-12):
    np.testing.assert_allclose(made, np.stack(list(expected)), atol=atol, rtol=0)


def blurred(image, sigma):
    return ndimage.gaussian_filter(image, sigma, mode="nearest")


def sign(uniform):
    return 1 if uniform >= 0.5 else -1


def warped(image, matrix, offset=(0, 0)):
    """By a matrix of (row, column), from the result to the image, about the centre."""
    matrix, centre = np.array(matrix, float), (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, centre - matrix @ centre + offset, order=1, mode="grid-constant")


def test_identity():
    x = images()
    made = mnist_c("identity").draw(x, key=KEY, index=INDEX, draws=2)
    assert torch.equal(made, torch.stack([x, x])) and made.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("name, same", [("shot_noise", ShotNoise(3)), ("impulse_noise", ImpulseNoise(0.17))])
def test_the_noises_equal_the_known_kernels_bit_for_bit(name, same):
    x = images().float()
    assert torch.equal(
        mnist_c(name).draw(x, key=KEY, index=INDEX, draws=3), same.draw(x, key=KEY, index=INDEX, draws=3)
    )


def test_shot_noise_is_poisson_with_three_photons():
    level = torch.linspace(0, 1, 5)
    x = level.view(5, 1, 1, 1).expand(5, 1, 28, 28).contiguous()
    counts = 3 * mnist_c("shot_noise").draw(x, key=KEY, index=INDEX, draws=50)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-5)
    for place, rate in enumerate((3 * level).tolist()):
        seen = np.bincount(counts[:, place].round().long().flatten(), minlength=4) / (50 * 784)
        expected = [*stats.poisson.pmf([0, 1, 2], rate), stats.poisson.sf(2, rate)]  # clipped to 1
        np.testing.assert_allclose(seen, expected, atol=5 * math.sqrt(0.25 / (50 * 784)))


def test_impulse_noise_replaces_17_percent_half_of_it_white():
    x = torch.full((5, 1, 28, 28), 0.4)
    made = mnist_c("impulse_noise").draw(x, key=KEY, index=INDEX, draws=50)
    for value, fraction in ((0.0, 0.085), (1.0, 0.085), (0.4, 0.83)):
        spread = math.sqrt(fraction * (1 - fraction) / made.numel())
        assert abs((made == np.float32(value)).double().mean() - fraction) < 5 * spread


@pytest.mark.parametrize("height, width", [(28, 28), (9, 12)])
def test_glass_blur_equals_the_plain_loop(height, width):
    x = images(height=height, width=width)
    delta, made = given("glass_blur", x)

    def one(image, uniforms, rounded=lambda image: image):
        image, uniforms = rounded(blurred(image, (0.7, 0))), iter(uniforms)
        for _ in range(2):
            for row in range(height - 1, 1, -1):
                for column in range(width - 1, 1, -1):
                    swap, down, right = (int(bit) for bit in f"{int(8 * next(uniforms)):03b}")
                    if swap:
                        other = row - down, column - right
                        image[row, column], image[other] = image[other], image[row, column]
        return rounded(blurred(image, (0.7, 0)))

    def to_bytes(image):
        """The published sets are truncated to bytes, before their loop swaps pixels and after."""
        return np.floor(255 * image) / 255

    assert_close(made, map(one, x[:, 0].numpy(), delta))
    published = np.stack(
        [one(image, uniforms, to_bytes) for image, uniforms in zip(x[:, 0].numpy(), delta, strict=True)]
    )
    assert (made - published).min() > -1e-12 and (made - published).max() < 2 / 255  # truncated to bytes twice
    assert delta.shape[1] == 2 * (height - 2) * (width - 2)
    # the eight choices are equally likely: 5 standard deviations
    drawn = mnist_c("glass_blur").sample(KEY, INDEX, 20, shape=(1, 28, 28))
    fractions = np.bincount((8 * drawn).long().flatten(), minlength=8) / drawn.numel()
    np.testing.assert_allclose(fractions, 1 / 8, atol=5 * math.sqrt(7 / 64 / drawn.numel()))


def test_glass_blur_spreads_a_point_up_and_down_only():
    x = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
    x[0, 0, 15, 9] = 1
    kernel = mnist_c("glass_blur")
    made = kernel(x, torch.zeros(1, kernel.dim_for((1, 28, 28))))[0, 0]  # no pixel is swapped
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.7**2))
    expected = np.zeros((28, 28))
    expected[9:22, 9] = np.convolve(weights, weights) / weights.sum() ** 2  # twice the Gaussian, up to 4 sigma each
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("height, width", [(28, 28), (9, 12)])
def test_motion_blur_is_a_mean_along_a_direction(height, width):
    x = images(20, height=height, width=width)
    delta, made = given("motion_blur", x)
    weights = np.exp(-(np.arange(21) ** 2) / 18)

    def one(image, uniform):
        angle = math.radians(90 * uniform[0] - 45)
        total = np.zeros_like(image)
        for i, weight in enumerate(weights / weights.sum()):
            down, right = math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)
            for row in range(height):
                for column in range(width):
                    place = min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
                    total[row, column] += weight * image[place]
        return total

    assert_close(made, map(one, x[:, 0].numpy(), delta))


def test_motion_blur_spreads_a_point_to_one_side_at_up_to_45_degrees():
    x = torch.zeros(300, 1, 61, 61, dtype=torch.float64)
    x[:, :, 30, 40] = 1
    delta, made = given("motion_blur", x)
    np.testing.assert_allclose(made.sum((1, 2)), 1)
    rows, columns = np.mgrid[:61, :61]
    down, right = ((made * place).sum((1, 2)) for place in (rows - 30, columns - 40))
    angle = np.degrees(np.arctan2(-down, -right))
    np.testing.assert_allclose(angle, 90 * delta[:, 0] - 45, atol=7)  # places are rounded to pixels
    assert stats.kstest(delta[:, 0], "uniform").pvalue > 0.001
    np.testing.assert_allclose(np.sqrt((made * ((rows - 30) ** 2 + (columns - 40) ** 2)).sum((1, 2))), 2.8, atol=0.35)


@pytest.mark.parametrize("height, width", [(28, 28), (16, 21)])
def test_warps_equal_scipys(height, width):
    x = images(12, height=height, width=width)
    x[:, :, 0] = 0.7  # an edge that is not black
    cosine, sine = math.cos(0.4), math.sin(0.4)
    matrices = {
        "shear": lambda u: ([[cosine, 0], [-sign(u[0]) * sine, 1]],),
        "rotate": lambda u: ([[cosine, sign(u[0]) * sine], [-sign(u[0]) * sine, cosine]],),
        "scale": lambda u: ([[1 / 0.7, 0], [0, 1 / 0.7]],),
        "translate": lambda u: (np.eye(2), (3 * sign(u[1]), 3 * sign(u[0]))),
    }
    for name, warp in matrices.items():
        delta, made = given(name, x)
        assert_close(made, (warped(image, *warp(u)) for image, u in zip(x[:, 0].numpy(), delta, strict=True)))


def test_warps_of_simple_pictures():
    x = torch.zeros(2, 1, 28, 28, dtype=torch.float64)
    x[:, :, :, 13:15] = 1  # a column, which leans
    either = torch.tensor([[0.2], [0.7]])
    rows = torch.arange(28.0, dtype=torch.float64)
    for name, slope in (("shear", math.sin(0.4)), ("rotate", math.tan(0.4))):
        made = mnist_c(name)(x, either)[:, 0]
        middle = (made * torch.arange(28)).sum(2) / made.sum(2)
        for lean, line in zip((-1, 1), middle, strict=True):
            shown = slice(6, 22)
            np.testing.assert_allclose(line[shown], 13.5 + lean * slope * (rows[shown] - 13.5), atol=0.1)
    disc = ((rows[:, None] - 13.5) ** 2 + (rows - 13.5) ** 2 < 100).double()[None, None]
    ratio = mnist_c("scale")(disc, torch.zeros(1, 0)).sum() / disc.sum()
    assert ratio == pytest.approx(0.49, abs=0.01)
    dot = torch.zeros(4, 1, 28, 28)
    dot[:, :, 10, 20] = 1
    made = mnist_c("translate")(dot, torch.tensor([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.9]]))
    assert made.nonzero()[:, 2:].tolist() == [[13, 23], [7, 23], [13, 17], [7, 17]] and made.sum() == 4


@pytest.mark.parametrize("name, count", [("shear", 1), ("rotate", 1), ("translate", 2)])
def test_signs_are_balanced_and_independent(name, count):
    signs = mnist_c(name).sample(KEY, torch.arange(4000), 1)[0].numpy() >= 0.5
    assert signs.shape == (4000, count)
    for fraction in (*signs.mean(0), (signs[:, 0] == signs[:, -1]).mean() if count == 2 else 0.5):
        assert abs(fraction - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_brightness_and_stripe():
    x = images(channels=3)
    empty = torch.zeros(5, 0)
    assert torch.equal(mnist_c("brightness")(x, empty), (x + 0.5).clamp(0, 1))
    striped, expected = mnist_c("stripe")(x, empty), x.clone()
    for column in (*range(7), *range(21, 28)):
        expected[..., column] = 1 - expected[..., column]
    assert torch.equal(striped, expected)


def plasma(uniforms, side=256):
    """Diamond-square, a value at a time; the plain definition on a torus."""
    field, uniforms, step, wibble = np.zeros((side, side)), iter(uniforms), side, 100.0

    def fill(row, column, neighbours):
        for y in range(row, side, step):
            for x in range(column, side, step):
                mean = sum(field[(y + dy) % side, (x + dx) % side] for dy, dx in neighbours) / 4
                field[y, x] = mean + wibble * (2 * next(uniforms) - 1) * wibble

    while step >= 2:
        half = step // 2
        cross = (-half, 0), (half, 0), (0, -half), (0, half)
        fill(half, half, [(a, b) for a in (-half, half) for b in (-half, half)])
        fill(0, half, cross)
        fill(half, 0, cross)
        step, wibble = half, wibble / 1.4
    return (field - field.min()) / (field.max() - field.min())


def test_fog_is_the_formula_on_a_plasma():
    x = images(2)
    x[1] *= 0.4
    delta, made = given("fog", x)
    fields = [plasma(uniforms) for uniforms in delta]
    for image, field, result in zip(x[:, 0].numpy(), fields, made, strict=True):
        m = image.max()
        np.testing.assert_allclose(result, (image + 3 * field[:28, :28]) * m / (m + 3), atol=1e-9)
    full = fog._plasma(torch.tensor(delta), 256, 256).numpy()
    np.testing.assert_allclose(full, fields, atol=1e-9)
    assert full.min((1, 2)).tolist() == [0, 0] and full.max((1, 2)).tolist() == [1, 1]
    odd = fog._plasma(torch.tensor(delta), 9, 30).numpy()
    np.testing.assert_array_equal(odd, full[:, :9, :30])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_flat_plasma_is_no_fog(dtype):
    x, kernel = images(2).to(dtype), mnist_c("fog")
    delta = torch.full((2, kernel.dim_for((1, 28, 28))), 0.5, dtype=dtype)
    m = x.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(kernel(x, delta), x * m / (m + 3), rtol=0, atol=1e-6)


def test_spatter_is_mud_on_a_mask():
    x = images(8)
    delta, made = given("spatter", x)

    def one(image, uniforms):
        layer = blurred(stats.norm(0.65, 0.3).ppf(uniforms.reshape(28, 28) + 2**-25), 1)
        mask = blurred((layer > 0.65).astype(float), 1.5)
        mask[mask < 0.8] = 0
        return image * (1 - mask) + 63 / 255 * mask

    assert_close(made, map(one, x[:, 0].numpy(), delta), atol=1e-9)
    muddy = mnist_c("spatter").draw(torch.zeros(5, 1, 28, 28), key=KEY, index=INDEX, draws=40)
    assert muddy.max() <= np.float32(63 / 255) and muddy[muddy > 0].min() >= np.float32(0.8 * 63 / 255)
    assert 0.02 < (muddy > 0).double().mean() < 0.4


def stroke(c0, r0, c1, r1, height=28, width=28):
    drawn = np.zeros((height, width))
    for column in range(width):
        if c0 != c1 and math.floor(c0) <= column < math.ceil(c1):
            for row in range(height):
                distance = abs(row - (r0 + (r1 - r0) / (c1 - c0) * (column - c0)))
                if distance < 2.3:
                    drawn[row, column] = min(max(1 + math.log(1 - distance / 2.3), 0), 1)
    return drawn


@pytest.mark.parametrize("height, width", [(28, 28), (10, 17)])
def test_dotted_line_is_every_other_pair_of_columns_of_a_line(height, width):
    x = images(10, height=height, width=width)
    delta, made = given("dotted_line", x)

    def one(image, uniforms):
        line = stroke(0, int((height - 1) * uniforms[0]), width - 1, int((height - 1) * uniforms[1]), height, width)
        line[:, [column for column in range(width) if column % 4 in (0, 1)]] = 0
        return np.minimum(image + line, 1)

    assert_close(made, map(one, x[:, 0].numpy(), delta), atol=1e-8)


@pytest.mark.parametrize("height, width", [(28, 28), (20, 16), (16, 32)])
def test_zigzag_is_drawn_segment_by_segment(height, width):
    x = images(30, height=height, width=width)
    delta, made = given("zigzag", x)

    def one(image, uniforms):
        r0 = int((height - 1) * uniforms[0])
        r1 = r0 - 5 + int(10 * uniforms[1])
        run = width - 5
        length, angle = math.hypot(run, r1 - r0), math.atan2(r1 - r0, run)
        corners, number = [(0, 0)], 0
        while 2 + 4 * number <= length:
            corners.append((2 + 4 * number, 2 * (-1) ** number))
            number += 1
        corners.append((length, corners[-1][1] / (2 * max(length % 4, 0.5))))
        cos, sin = math.cos(angle), math.sin(angle)
        places = [(2 + a * cos - b * sin, r0 + a * sin + b * cos) for a, b in corners]
        for begin, end in zip(places, places[1:], strict=False):
            image = np.minimum(image + stroke(*begin, *end, height, width), 1)
        return image

    assert_close(made, map(one, x[:, 0].numpy(), delta), atol=1e-8)


def test_the_zigzag_of_a_level_line():
    delta = torch.tensor([[10.5 / 27, 0.55]], dtype=torch.float64)  # heights 10 and 10
    made = mnist_c("zigzag")(torch.zeros(1, 1, 28, 28, dtype=torch.float64), delta)[0, 0]
    peaks = {2: 10, 4: 12, 6: 10, 8: 8, 12: 12, 16: 8, 20: 12, 24: 8}
    for column, row in peaks.items():
        assert made[row, column] == pytest.approx(1, abs=1e-9), column
        assert made[row, column] == made[:, column].max()
    assert not made[:, :2].any() and not made[:, 25:].any()


def test_the_intensity_of_a_line():
    delta = torch.tensor([[10.5 / 27, 10.5 / 27]], dtype=torch.float64)
    made = mnist_c("dotted_line")(torch.zeros(1, 1, 28, 28, dtype=torch.float64), delta)[0, 0]
    expected = {9: 1 + math.log(1 - 1 / 2.3), 10: 1, 11: 1 + math.log(1 - 1 / 2.3)}  # 2 away: below 0
    for row in range(28):
        assert made[row, 2].item() == pytest.approx(expected.get(row, 0), abs=1e-9)
    assert made.any(0).nonzero()[:, 0].tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]


@pytest.mark.parametrize("name, largest", [("dotted_line", (26, 26)), ("zigzag", (26, 9))])
def test_heights_are_drawn_uniformly(name, largest):
    drawn = mnist_c(name).sample(KEY, torch.arange(20000), 1)[0].double()
    for part, most in zip(drawn.T, largest, strict=True):
        counts = np.bincount(((most + 1) * part).long())
        assert len(counts) == most + 1 and stats.chisquare(counts).pvalue > 0.001


def test_canny_edges_equal_scikit_images(data_root):
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    digits = rp.data.load("mnist", "test", data_root).x[:500]
    for x in (digits.double(), digits, images(30), images(9, height=40, width=11), torch.rand(20, 1, 28, 28)):
        made = mnist_c("canny_edges")(x, torch.zeros(len(x), 0))
        expected = [feature.canny(image.double().numpy()) for image in x[:, 0]]
        np.testing.assert_array_equal(made[:, 0], np.stack(expected))
        assert made.dtype == x.dtype and made.any()


def test_canny_edges_of_a_square():
    x = torch.zeros(2, 2, 28, 28)
    x[1, 1, 8:20, 8:20] = 1
    made = mnist_c("canny_edges")(x, torch.zeros(2, 0))
    assert not made[0].any() and not made[1, 0].any()
    rows, columns = made[1, 1].nonzero().T
    for ends in (rows, columns):
        assert ends.min() in (7, 8) and ends.max() in (19, 20)
    assert not made[1, 1, 10:18, 10:18].any() and made[1, 1, 14].sum() >= 2
