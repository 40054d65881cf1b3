"""Draws of delta: word by word against Philox in plain integers, law by law against their distributions."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import beta, kstest, norm, uniform

from python_tests.support.philox import plain_philox
from robustperf.ops import draws, nuisance_sample
from robustperf.ops.program import FOG_NODES, Distribution, Program, Step, Transform

OP = "nuisance_sample"
M = 0xFFFFFFFF
T = Transform
KEYS = [0, 5, 2**63 + 11]
INDICES = [0, 1, 49_999, 2**32, 2**63 - 1]
DRAWS = [0, 3, 2**32 - 1]
SHAPE = (3, 1, 2)


def box(transform, lower, upper, *settings):
    return Step(transform, Distribution.BOX, lower, upper, settings, transform.name.lower())


def wide(distribution, lower, upper):
    """A step with a component for each value of the image."""
    return Step(T.ADD, distribution, (lower,), (upper,), (0,), "add")


BRIGHTNESS = box(T.BRIGHTNESS, (-0.4,), (0.3,))
AFFINE = box(T.AFFINE, (-30, -0.1, -0.25, -0.2, -20, -10), (10, 0.1, 0.125, 0.3, 15, 12), 63, 0)
BACKGROUND = box(T.BACKGROUND, (0.5, 0.0, 0.25), (1.0, 0.0, 0.3), 2)
FOG = Step(T.FOG, Distribution.FOG, (0.1,), (0.7,), (), "fog")
SPREAD = wide(Distribution.EVERYWHERE, -0.3, 0.4)
NORMAL, BALL = wide(Distribution.NORMAL, 0.0, 0.2), wide(Distribution.BALL, 0.0, 1.5)

PROGRAMS = {
    "box": [BRIGHTNESS],
    "box of six": [AFFINE],
    "everywhere": [SPREAD],
    "normal": [NORMAL],
    "ball": [BALL],
    "fog": [FOG],
    "all": [BRIGHTNESS, SPREAD, AFFINE, NORMAL, BRIGHTNESS, BALL, BRIGHTNESS, BALL, FOG, BRIGHTNESS, BACKGROUND],
}


def program_of(name):
    return Program(tuple(PROGRAMS[name]))


def size_of(step):
    return {T.ADD: math.prod(SHAPE), T.FOG: 1 + FOG_NODES}.get(step.transform, len(step.lower))


def on(device, *values):
    return torch.tensor(values, dtype=torch.int64, device=device)


def plain_words(key, index, draw, first, count):
    """The upper 24 bits of words first ... first + count - 1."""
    return [plain_philox((j // 4, draw, index & M, index >> 32), (key & M, key >> 32))[j % 4] >> 8
            for j in range(first, first + count)]  # fmt: skip


def between(lower, upper, words):
    """In float32 at every step, as the bits are the contract."""
    lower, upper, u = np.float32(lower), np.float32(upper), np.array(words, np.float32) * np.float32(2.0**-24)
    return np.minimum(lower + (upper - lower) * u, upper).astype(np.float64)


def plain_sample(program, key, index, draw):
    """(delta, how near it is to be known): by hand, a step's words behind those of the step before."""
    word, delta, near = 0, [], []
    for step in program.steps:
        size = size_of(step)
        words = np.array(plain_words(key, index, draw, word, size), np.float64)
        quantiles, exact = ndtri((2 * words + 1) * 2.0**-25), 0.0
        if step.distribution == Distribution.BOX:
            part = np.array([between(*each) for each in zip(step.lower, step.upper, words, strict=True)])
        elif step.distribution == Distribution.EVERYWHERE:
            part = between(step.lower[0], step.upper[0], words)
        elif step.distribution == Distribution.NORMAL:
            part, exact = step.upper[0] * quantiles, 3e-6 * step.upper[0]
        elif step.distribution == Distribution.BALL:
            u = plain_words(key, index, draw, word + size, 1)[0] * 2.0**-24
            part = step.upper[0] * u ** (1 / size) * quantiles / np.linalg.norm(quantiles)
            exact = 5e-6 * step.upper[0]  # three parts in a million of the normals
            word += 1
        else:
            part = np.concatenate([between(step.lower[0], step.upper[0], words[:1]), words[1:] * 2.0**-24])
        word += size
        delta.append(part)
        near.append(np.full(size, exact))
    return np.concatenate(delta), np.concatenate(near)


# ---- words


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_distribution_word_by_word(backend, device, name, key):
    program = program_of(name)
    indices, numbers = (INDICES, DRAWS) if name != "fog" and name != "all" else (INDICES[1::2], DRAWS[1:])
    got = nuisance_sample(key, on(device, *indices), on(device, *numbers), program, SHAPE, backend=backend)
    assert got.dtype == torch.float32 and got.device.type == device.type
    assert got.shape == (len(numbers), len(indices), sum(map(size_of, program.steps)))
    for k, draw in enumerate(numbers):
        for b, index in enumerate(indices):
            want, near = plain_sample(program, key, index, draw)
            wrong = np.abs(got[k, b].cpu().double().numpy() - want)
            assert (wrong <= near).all(), (index, draw, np.flatnonzero(wrong > near))


def test_uniforms_and_normals_are_those_of_draws(backend, device):
    args = 7, on(device, *INDICES), on(device, *DRAWS)
    u, z = (draws(*args, 6, normal=normal, backend=backend) for normal in (False, True))
    unit = nuisance_sample(*args, Program((wide(Distribution.EVERYWHERE, 0.0, 1.0),)), SHAPE, backend=backend)
    assert torch.equal(unit, u)
    normal = nuisance_sample(*args, Program((wide(Distribution.NORMAL, 0.0, 1.0),)), SHAPE, backend=backend)
    assert torch.equal(normal, z)
    scaled = nuisance_sample(*args, program_of("normal"), SHAPE, backend=backend)
    assert torch.equal(scaled, z * torch.tensor(0.2, device=device))


def test_a_step_begins_where_the_words_of_the_one_before_end(backend, device):
    """At every place in a block of four words, and behind the ball's extra word."""
    args = 3, on(device, *INDICES), on(device, *DRAWS)
    u = draws(*args, 64, backend=backend)
    unit = box(T.GAMMA, (0.0,), (1.0,))
    for before, word in (
        ([], 0),
        ([unit], 1),
        ([unit] * 2, 2),
        ([unit] * 3, 3),
        ([unit] * 4, 4),
        ([unit] * 31, 31),
        ([SPREAD], 6),
        ([NORMAL], 6),
        ([BALL], 7),
        ([BALL, BALL], 14),
        ([AFFINE, BALL, unit], 14),
    ):
        got = nuisance_sample(*args, Program((*before, unit)), SHAPE, backend=backend)
        assert torch.equal(got[..., -1], u[..., word]), before


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_tensor_draws_what_the_integer_draws(backend, device, key):
    held, where = torch.tensor(np.uint64(key).astype(np.int64), device=device), (on(device, 0, 7), on(device, 0, 3))
    for name in ("fog", "all"):
        assert torch.equal(
            nuisance_sample(held, *where, program_of(name), SHAPE, backend=backend),
            nuisance_sample(key, *where, program_of(name), SHAPE, backend=backend),
        )


def test_shared_steps_draw_once(backend, device):
    args = 3, on(device, *INDICES), on(device, *DRAWS)
    apart = nuisance_sample(*args, Program((BALL, BRIGHTNESS, AFFINE)), SHAPE, backend=backend)
    shared = Program((BALL, BRIGHTNESS, BALL, BRIGHTNESS, AFFINE), (0, 1, 0, 1, 2))
    assert torch.equal(nuisance_sample(*args, shared, SHAPE, backend=backend), apart)


# (index, component) under key 0 and draw 0 whose word is the greatest: found by looking at 2^27 of them
GREATEST = [(5237, 90), (18229, 178), (33152, 388)]


@pytest.mark.parametrize("index, component", GREATEST)
def test_the_greatest_word_stays_within_the_bounds(backend, device, index, component):
    assert plain_words(0, index, 0, component, 1) == [2**24 - 1]
    args, shape = (0, on(device, index), on(device, 0)), (1, 1, component + 1)
    for lower, upper in ((-0.1, 0.3), (0.0, 1.0), (-1.0, 1e-3), (0.1, 0.7), (-0.7, 0.1), (0.3, 0.30000001192092896)):
        got = nuisance_sample(*args, Program((wide(Distribution.EVERYWHERE, lower, upper),)), shape, backend=backend)
        assert np.float32(lower) <= got.min().item() <= got.max().item() <= np.float32(upper)
        assert got[0, 0, component].item() == between(lower, upper, 2**24 - 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_backends_agree(backend, device, name):
    shape = (3, 9, 11)
    for key in KEYS:
        args = key, torch.tensor(INDICES), torch.tensor(DRAWS)
        want = nuisance_sample(*args, program_of(name), shape, backend="reference")
        got = nuisance_sample(key, *(t.to(device) for t in args[1:]), program_of(name), shape, backend=backend).cpu()
        begin = 0
        for step in PROGRAMS[name]:
            size = step.dim(shape)
            mine, truth = (delta[..., begin : begin + size] for delta in (got, want))
            if step.distribution == Distribution.BALL:
                torch.testing.assert_close(mine, truth, rtol=0, atol=1e-6)
            else:
                assert torch.equal(mine, truth), step
            begin += size
        assert begin == got.shape[2]


# ---- a draw depends on its coordinates alone


@pytest.mark.parametrize("name", PROGRAMS)
def test_batches_orders_and_chunks_of_draws_change_nothing(backend, device, name):
    index, numbers = torch.tensor(INDICES, device=device), torch.tensor(DRAWS, device=device)

    def sample(index, numbers):
        return nuisance_sample(9, index, numbers, program_of(name), SHAPE, backend=backend)

    whole = sample(index, numbers)
    for some in (slice(0, 1), slice(1, 3), slice(None, None, 2)):  # strided too
        assert torch.equal(sample(index[some], numbers), whole[:, some])
        assert torch.equal(sample(index, numbers[some]), whole[some])
    assert torch.equal(sample(index.flip(0), numbers.flip(0)), whole.flip(0, 1))
    assert torch.equal(sample(index[[2, 2]], numbers), whole[:, [2, 2]])
    for batch, count in ((0, 3), (5, 0), (0, 0)):
        assert sample(index[:batch], numbers[:count]).shape == (count, batch, whole.shape[2])


@pytest.mark.parametrize("name", ["box of six", "ball", "all"])
def test_two_threads_draw_what_one_draws(name):
    """By the default backend, enough for two."""
    args = 9, torch.arange(1571), torch.arange(9), program_of(name), (3, 4, 5)
    one = nuisance_sample(*args)
    torch.set_num_threads(2)  # the fixture puts back what was set
    assert one.numel() > 2**16 and torch.equal(nuisance_sample(*args), one)


def test_every_coordinate_changes_the_draw(backend, device):
    coordinates = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (2**63, 0, 0), (0, 1, 0), (0, 2**32, 0), (0, 0, 1), (0, 0, M)]
    for name in ("everywhere", "normal", "ball"):
        found = {value for key, index, draw in coordinates
                 for value in nuisance_sample(key, on(device, index), on(device, draw), program_of(name), SHAPE,
                                              backend=backend).flatten().tolist()}  # fmt: skip
        assert len(found) == 6 * len(coordinates)


def test_a_program_without_image_wide_steps_needs_no_shape(backend, device):
    args = 9, on(device, 1, 2), on(device, 0)
    program = Program((BRIGHTNESS, AFFINE, FOG))
    got = nuisance_sample(*args, program, backend=backend)
    assert torch.equal(got, nuisance_sample(*args, program, (3, 7, 9), backend=backend)) and got.shape[2] == 412


# ---- laws: a million numbers each

LEAST = 1e-3  # of a p-value; the keys are fixed


def sample(backend, device, step, samples, count, size, key=2024):
    index, numbers = torch.arange(samples, device=device), torch.arange(count, device=device)
    delta = nuisance_sample(key, index, numbers, Program((step,)), (1, 1, size), backend=backend)
    return delta.cpu().double().numpy().reshape(samples * count, -1)


def law_of(values, law):
    """A million numbers are of this law and of no other nearby."""
    values = np.ravel(values)[: 10**6]
    assert len(values) == 10**6
    assert kstest(values, law.cdf).pvalue > LEAST
    assert kstest(values[::20] * 1.05, law.cdf).pvalue < 1e-6, "and the test can fail"


def test_boxes_are_uniform(backend, device):
    delta = sample(backend, device, AFFINE, 10**4, 17, 1)
    law_of((delta - np.array(AFFINE.lower)) / np.subtract(AFFINE.upper, AFFINE.lower), uniform())
    correlation = np.corrcoef(delta.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.012  # five of its standard deviations


def test_one_component_over_many_samples_is_uniform(backend, device):
    delta = sample(backend, device, BRIGHTNESS, 10**5, 10, 1)
    law_of((delta + 0.4) / 0.7, uniform())


def test_everywhere_is_the_cube_of_the_maximum_norm(backend, device):
    delta = sample(backend, device, wide(Distribution.EVERYWHERE, -0.3, 0.3), 10**3, 10, 100)
    law_of(delta, uniform(-0.3, 0.6))
    assert kstest((np.abs(delta).max(1) / 0.3) ** 100, uniform.cdf).pvalue > LEAST


def test_noise_is_normal(backend, device):
    law_of(sample(backend, device, NORMAL, 10**3, 10, 100), norm(0, 0.2))


def test_fog_has_a_strength_between_its_bounds_and_uniform_nodes(backend, device):
    delta = sample(backend, device, FOG, 500, 5, 1)
    law_of(delta[:, 1:], uniform())
    assert kstest(delta[:, 0], uniform(0.1, 0.6).cdf).pvalue > LEAST


@pytest.mark.parametrize("dim", [1, 2, 3, 10])
def test_balls_are_uniform(backend, device, dim):
    """The radius to the power of the dimension, and the direction's first coordinate."""
    eps, count = 1.5, 10**6 if dim == 2 else 10**5
    delta = sample(backend, device, BALL, count // 10, 10, dim)
    radius = np.linalg.norm(delta, axis=1)
    assert radius.max() <= eps * (1 + 1e-6)
    fraction, first = (radius / eps) ** dim, delta[:, 0] / radius
    assert kstest(fraction, uniform.cdf).pvalue > LEAST and kstest(fraction[::10] ** 1.1, uniform.cdf).pvalue < 1e-6
    if dim == 1:
        assert kstest(delta[:, 0], uniform(-eps, 2 * eps).cdf).pvalue > LEAST
        assert set(np.round(first, 6)) == {-1, 1}
    else:
        law = beta((dim - 1) / 2, (dim - 1) / 2)
        assert kstest((1 + first[: 10**5]) / 2, law.cdf).pvalue > LEAST
        assert kstest((1 + (delta[:, -1] / radius)[: 10**5]) / 2, law.cdf).pvalue > LEAST
    deviation = 1 / math.sqrt(count)
    assert abs(np.corrcoef(fraction, first)[0, 1]) < 5 * deviation and abs(first.mean()) < 5 * deviation


# ---- errors

X = torch.arange(3)


@pytest.mark.parametrize("key, index, draw, program, shape, wanted, error, message", [
    (-1, X, X, "box", None, None, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
    (2**64, X, X, "box", None, None, ValueError, r"key: .* got 18446744073709551616"),
    (1.0, X, X, "box", None, None, ValueError, r"key: .* got 1.0"),
    (True, X, X, "box", None, None, ValueError, r"key: .* got True"),
    (0, X.int(), X, "box", None, None, TypeError, r"index: expected torch.int64, got torch.int32"),
    (0, [1], X, "box", None, None, TypeError, r"index: expected a tensor, got list"),
    (0, X[None], X, "box", None, None, ValueError, r"index: expected shape \[B\], got \[1, 3\]"),
    (0, X - 1, X, "box", None, None, ValueError, r"index: expected numbers in 0..\d+, got -1 to 1"),
    (0, X, X.float(), "box", None, None, TypeError, r"draw: expected torch.int64, got torch.float32"),
    (0, X, 3, "box", None, None, TypeError, r"draw: expected a tensor, got int"),
    (0, X, X[0], "box", None, None, ValueError, r"draw: expected shape \[K\], got \[\]"),
    (0, X, X.to("meta"), "box", None, None, ValueError, r"draw: expected a tensor on cpu, got one on meta"),
    (0, X, X + 2**32 - 2, "box", None, None, ValueError, r"draw: expected .* got 4294967294 to 4294967296"),
    (0, X, X, "normal", None, None, ValueError, r"shape: add has a component of delta for each value of the image: "
                                                r"expected \(C, H, W\), got None"),
    (0, X, X, "all", None, None, ValueError, r"shape: add .* got None"),
    (0, X, X, "all", (1, 4, 5), None, ValueError, r": background expected RGB images, 3 channels, got \[1, 4, 5\]"),
    (0, X, X, "box", None, "fast", ValueError, r"backend: expected one of .* got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(key, index, draw, program, shape, wanted, error, message):
    with pytest.raises(error, match=message):
        nuisance_sample(key, index, draw, program_of(program), shape, backend=wanted)
