"""Keys, and the draws' laws: uniform and normal by the tests of Kolmogorov and Smirnov, under fixed keys."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from python_tests.support.philox import plain_philox
from robustperf import ops, random

M = 0xFFFFFFFF
BITS64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, M, 2**32, 2**63 - 1, 2**63, 2**64 - 1])


def plain_fold_in(key, number):
    lo, hi, _, _ = plain_philox((number & M, number >> 32, 0, 1), (key & M, key >> 32))
    return lo | hi << 32


@given(BITS64)
def test_a_key_is_its_seed(seed):
    assert random.key(seed) == seed and type(random.key(seed)) is int
    assert random.key(np.uint64(seed)) == seed


@settings(max_examples=100, deadline=None)
@given(BITS64, BITS64)
def test_fold_in_is_philox_at_the_number(key, number):
    assert random.fold_in(key, number) == plain_fold_in(key, number)


@settings(max_examples=20, deadline=None)
@given(BITS64, BITS64)
def test_fold_in_of_tensors_holds_the_same_bits(key, number):
    held = [torch.tensor(np.uint64(value).astype(np.int64)) for value in (key, number)]
    for arguments in (held, (held[0], number), (key, held[1])):
        folded = random.fold_in(*arguments)
        assert folded.dtype == torch.int64 and folded.item() % 2**64 == plain_fold_in(key, number)


def test_fold_in_in_numbers():
    # Random123's known answer for zeros differs from these in the last counter word alone
    assert plain_philox((0, 0, 0, 0), (0, 0))[:2] == (0x6627E8D5, 0xE169C58D)
    assert random.fold_in(0, 0) == plain_fold_in(0, 0) != 0xE169C58D6627E8D5


def test_derived_keys_differ_from_each_other_and_do_not_commute():
    keys = {random.fold_in(random.fold_in(7, a), b) for a in range(20) for b in range(20)}
    assert len(keys) == 400
    assert random.fold_in(random.fold_in(7, 1), 2) != random.fold_in(random.fold_in(7, 2), 1)


def test_salts_keep_their_values():
    """They are ASCII words; a change would change every result drawn under them."""
    words = {salt.name: salt.to_bytes(4, "big").lstrip(b"\0").decode() for salt in random.Salt}
    assert words == {"DROPOUT": "drop", "GENERATOR": "gen", "HELD_OUT": "held", "SAMPLES": "samp", "POINTS": "poin",
                     "TARGET": "targ", "FAMILY": "lamb"}  # fmt: skip
    assert random.fold_in(5, random.Salt.DROPOUT) == plain_fold_in(5, 0x64726F70)


@pytest.mark.parametrize("function, normal", [(random.uniform, False), (random.normal, True)])
def test_draws_are_those_of_the_operation(function, normal):
    index, numbers = torch.tensor([5, 2**33]), torch.tensor([0, 1, 2])
    want = ops.draws(9, index, numbers, 6, normal=normal, backend="reference")
    assert torch.equal(function(9, index, 3, 6), want)
    assert torch.equal(function(9, index, numbers, 6), want)
    assert torch.equal(function(9, index, numbers[[2, 0]], 6, backend="reference"), want[[2, 0]])
    assert function(9, index, 0, 6).shape == (0, 2, 6)
    assert function(9, index[:0], 2, 6).shape == (2, 0, 6)


@pytest.mark.parametrize("function", [random.uniform, random.normal])
def test_chunks_of_draws_are_those_of_the_whole(function):
    index = torch.arange(6)
    whole = function(1, index, 8, 10)
    parts = [function(1, index, torch.arange(first, first + 2), 10) for first in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.fixture(scope="module")
def uniforms():
    return random.uniform(random.key(2021), torch.arange(1000), 10, 100)


@pytest.fixture(scope="module")
def normals():
    return random.normal(random.key(2020), torch.arange(1000), 10, 100)


def test_uniforms_are_multiples_of_two_to_the_minus_24_in_the_half_open_interval(uniforms):
    assert uniforms.dtype == torch.float32 and uniforms.shape == (10, 1000, 100)
    assert uniforms.min() >= 0 and uniforms.max() < 1
    words = uniforms.double() * 2.0**24
    assert torch.equal(words, words.round())
    assert (words.long() & 1).double().mean().item() == pytest.approx(0.5, abs=0.0025)  # 5 sigma of a million


def test_uniforms_follow_the_uniform_law(uniforms):
    assert stats.kstest(uniforms.flatten().numpy(), "uniform").pvalue > 1e-3
    assert uniforms.double().mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12) / 1000)
    counts = torch.histc(uniforms, 256, 0, 1).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_normals_follow_the_normal_law(normals):
    z = normals.flatten().double().numpy()
    assert stats.kstest(z, "norm").pvalue > 1e-3
    # within 5 standard errors of 10^6 draws
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (z**power).mean() == pytest.approx(moment, abs=5 * math.sqrt(variance) / 1000)
    assert 4.2 < np.abs(z).max() < 5.5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_along_every_axis_are_uncorrelated(uniforms, axis):
    centred = uniforms.double() - 0.5
    ahead, behind = centred.narrow(axis, 1, centred.shape[axis] - 1), centred.narrow(axis, 0, centred.shape[axis] - 1)
    product = 12 * ahead * behind
    assert product.mean().item() == pytest.approx(0, abs=5 / math.sqrt(product.numel()))


I3 = torch.arange(3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: random.key(-1), ValueError, r"seed: expected an integer in 0..2\^64-1, got -1"),
    (lambda: random.key(2**64), ValueError, r"seed: .* got 18446744073709551616"),
    (lambda: random.key(1.5), (TypeError, ValueError), r"seed: .* got 1.5"),
    (lambda: random.key("7"), (TypeError, ValueError), r"seed: .* got '7'"),
    (lambda: random.fold_in(0, -1), ValueError, r"number: expected an integer in 0..2\^64-1, got -1"),
    (lambda: random.fold_in(0, 2**64), ValueError, r"number: .* got 18446744073709551616"),
    (lambda: random.fold_in(0, 0.5), (TypeError, ValueError), r"number: .* got 0.5"),
    (lambda: random.fold_in(-1, 0), (TypeError, ValueError), r"key: .* got -1"),
    (lambda: random.fold_in(2**64, 0), (TypeError, ValueError), r"key: .* got 18446744073709551616"),
    (lambda: random.fold_in(0.5, 0), (TypeError, ValueError), r"key: .* got 0.5"),
    (lambda: random.uniform(-1, I3, 2, 2), ValueError, r"key: .* got -1"),
    (lambda: random.uniform(0, I3.int(), 2, 2), TypeError, r"index: expected torch.int64, got torch.int32"),
    (lambda: random.uniform(0, [1], 2, 2), TypeError, r"index: expected a tensor, got list"),
    (lambda: random.uniform(0, I3, -1, 2), ValueError, r"draws: expected an integer in 0..2\^32, got -1"),
    (lambda: random.uniform(0, I3, 1.5, 2), ValueError, r"draws: .* got 1.5"),
    (lambda: random.normal(0, I3, True, 2), ValueError, r"draws: .* got True"),
    (lambda: random.normal(0, I3, 2, -2), ValueError, r"dim: .* got -2"),
    (lambda: random.normal(0, I3, 2, 2, backend="fast"), ValueError, r"backend: .* got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_wrong_tensor_of_draws_is_named():
    with pytest.raises(TypeError, match="draw.*: expected torch.int64, got torch.float32"):
        random.uniform(0, I3, torch.zeros(2), 2)
