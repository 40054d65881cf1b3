"""Counter-based draws: word by word against Philox in plain integers, and backend against backend, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from python_tests.support.philox import plain_philox
from robustperf.ops import draws
from robustperf.ops.philox import philox as reference_philox
from robustperf.ops.reference.draws import _normal

OP = "draws"
M = 0xFFFFFFFF
KEYS = [0, 1, 0xDEADBEEF, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
INDICES = [0, 1, 2, 49_999, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 12345, 2**63 - 1]
DRAWS = [0, 1, 7, 2**31, 2**32 - 1]
DIMS = [0, 1, 3, 4, 5, 63, 64, 65, 1000]

# Random123's known answers: counter, key, words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((M, M, M, M), (M, M), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def plain_word(key, index, draw, j):
    return plain_philox((j // 4, draw, index & M, index >> 32), (key & M, key >> 32))[j % 4]


def on(device, *values):
    return torch.tensor(values, dtype=torch.int64, device=device)


def native_philox(counter, key):
    native = pytest.importorskip("robustperf._native", exc_type=ImportError)
    return tuple(native.philox(list(counter), list(key)))


def tensor_philox(counter, key):
    return tuple(int(word) for word in reference_philox([torch.tensor(c) for c in counter], key))


@pytest.mark.parametrize("philox", [plain_philox, tensor_philox, native_philox])
@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_known_answers_of_random123(philox, counter, key, words):
    assert philox(counter, key) == words


WORD = st.integers(0, M) | st.sampled_from([0, 1, 2**16 - 1, 2**16, 2**31 - 1, 2**31, M])


@settings(max_examples=200, deadline=None)
@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_three_philoxes_are_one(counter, key):
    assert tensor_philox(counter, key) == native_philox(counter, key) == plain_philox(counter, key)


def test_tensor_philox_takes_many_counters_at_once():
    g = torch.Generator().manual_seed(0)
    counter = list(torch.randint(0, 2**32, (4, 50), generator=g))
    words = reference_philox(counter, (5, 6))
    for i in range(50):
        assert tuple(int(w[i]) for w in words) == plain_philox([int(c[i]) for c in counter], (5, 6))


@pytest.mark.parametrize("key", KEYS)
def test_the_counter_layout_word_by_word(backend, device, key):
    dim = 9
    got = draws(key, on(device, *INDICES), on(device, *DRAWS), dim, backend=backend)
    assert got.shape == (len(DRAWS), len(INDICES), dim) and got.dtype == torch.float32
    want = [[[(plain_word(key, i, d, j) >> 8) * 2.0**-24 for j in range(dim)] for i in INDICES] for d in DRAWS]
    assert got.tolist() == want


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_coordinate_by_hand(backend, device, data):
    key = data.draw(st.integers(0, 2**64 - 1), "key")
    index = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4), "index")
    draw = data.draw(st.lists(st.integers(0, M), min_size=1, max_size=3), "draw")
    dim = data.draw(st.integers(1, 200), "dim")
    d, b, j = (data.draw(st.integers(0, n - 1)) for n in (len(draw), len(index), dim))
    got = draws(key, on(device, *index), on(device, *draw), dim, backend=backend)
    assert got[d, b, j].item() == (plain_word(key, index[b], draw[d], j) >> 8) * 2.0**-24


@pytest.mark.parametrize("normal", [False, True], ids=["uniform", "normal"])
@pytest.mark.parametrize("dim", DIMS)
def test_backends_agree_bit_for_bit(backend, device, dim, normal):
    index, draw = on("cpu", *INDICES), on("cpu", *DRAWS)
    for key in (3, 2**63 + 3):
        want = draws(key, index, draw, dim, normal=normal, backend="reference")
        got = draws(key, index.to(device), draw.to(device), dim, normal=normal, backend=backend)
        assert got.shape == want.shape and torch.equal(got.cpu().view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_tensor_draws_what_the_integer_draws(backend, device, key):
    held = torch.tensor(np.uint64(key).astype(np.int64), device=device)
    for normal in (False, True):
        where = on(device, *INDICES), on(device, *DRAWS), 9
        assert torch.equal(
            draws(held, *where, normal=normal, backend=backend), draws(key, *where, normal=normal, backend=backend)
        )


def test_backends_agree_on_a_quarter_of_a_million_normals(backend, device):
    index, draw = torch.arange(128), torch.arange(2)
    want = draws(11, index, draw, 1024, normal=True, backend="reference")
    got = draws(11, index.to(device), draw.to(device), 1024, normal=True, backend=backend)
    assert torch.equal(got.cpu().view(torch.int32), want.view(torch.int32))


def test_block_numbers_grow_past_the_lanes_of_a_register(backend, device):
    got = draws(9, on(device, 5), on(device, 6), 4 * 50_000 + 1, backend=backend)[0, 0]
    for j in (0, 63, 64, 65, 127, 128, 99_999, 200_000):
        assert got[j].item() == (plain_word(9, 5, 6, j) >> 8) * 2.0**-24


@pytest.mark.parametrize("normal", [False, True], ids=["uniform", "normal"])
def test_a_draw_depends_on_its_coordinates_alone(backend, device, normal):
    index, draw = torch.tensor(INDICES, device=device), torch.tensor(DRAWS, device=device)
    whole = draws(4, index, draw, 70, normal=normal, backend=backend)
    for some in (slice(0, 1), slice(3, 7), slice(None, None, 2)):  # part of a batch, strided too
        assert torch.equal(draws(4, index[some], draw, 70, normal=normal, backend=backend), whole[:, some])
        assert torch.equal(draws(4, index, draw[some], 70, normal=normal, backend=backend), whole[some])
    back = torch.arange(len(INDICES) - 1, -1, -1, device=device)
    assert torch.equal(draws(4, index[back], draw, 70, normal=normal, backend=backend), whole[:, back])
    for dim in (1, 33, 64):
        assert torch.equal(draws(4, index, draw, dim, normal=normal, backend=backend), whole[..., :dim])
    again = draws(4, index[[2, 2]], draw, 70, normal=normal, backend=backend)
    assert torch.equal(again[:, 0], again[:, 1]) and torch.equal(again[:, 0], whole[:, 2])


def test_every_coordinate_changes_the_draw(backend, device):
    def at(key, index, draw):
        return draws(key, on(device, index), on(device, draw), 8, backend=backend).flatten().tolist()

    coordinates = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (2**63, 0, 0), (0, 1, 0), (0, 2**32, 0), (0, 0, 1), (0, 0, M)]
    assert len({value for c in coordinates for value in at(*c)}) == 8 * len(coordinates)


@pytest.mark.parametrize("batch, count, dim", [(0, 3, 5), (3, 0, 5), (3, 2, 0), (0, 0, 0)])
def test_empty_draws(backend, device, batch, count, dim):
    arguments = torch.arange(batch, device=device), torch.arange(count, device=device), dim
    for normal in (False, True):
        got = draws(0, *arguments, normal=normal, backend=backend)
        assert got.shape == (count, batch, dim) and got.dtype == torch.float32 and got.device.type == device.type


# (index, component) under key 0 and draw 0 whose words are the least and the greatest: found by looking at 2^27 of them
LEAST = [(34651, 139), (62225, 147), (24285, 847)]
GREATEST = [(5237, 90), (18229, 178), (33152, 388)]


@pytest.mark.parametrize("index, component", LEAST)
def test_the_least_word(backend, device, index, component):
    assert plain_word(0, index, 0, component) >> 8 == 0
    args = 0, on(device, index), on(device, 0), component + 1
    assert draws(*args, backend=backend)[0, 0, component].item() == 0.0
    assert draws(*args, normal=True, backend=backend)[0, 0, component].item() == pytest.approx(
        ndtri(2.0**-25), abs=3e-6
    )


@pytest.mark.parametrize("index, component", GREATEST)
def test_the_greatest_word_is_below_one(backend, device, index, component):
    assert plain_word(0, index, 0, component) >> 8 == 2**24 - 1
    args = 0, on(device, index), on(device, 0), component + 1
    assert draws(*args, backend=backend)[0, 0, component].item() == 1 - 2.0**-24
    normal = draws(*args, normal=True, backend=backend)[0, 0, component].item()
    assert normal == pytest.approx(-ndtri(2.0**-25), abs=3e-6) and normal < 5.5


def test_normals_are_the_quantiles_of_the_same_words(backend, device):
    args = 5, torch.arange(20, device=device), torch.arange(5, device=device), 1000
    word = draws(*args, backend=backend).cpu().double().numpy() * 2.0**24
    normal = draws(*args, normal=True, backend=backend).cpu().double().numpy()
    np.testing.assert_allclose(normal, ndtri((2 * word + 1) * 2.0**-25), rtol=0, atol=3e-6)


def test_the_quantile_over_all_words_is_within_3e_6_odd_and_rising():
    """Of the reference, whose bits the other backends share: both tails in full, every seventh word between them."""
    words = torch.cat([torch.arange(2**18), torch.arange(2**18, 2**24 - 2**18, 7), torch.arange(2**24 - 2**18, 2**24)])
    normal = _normal(words)
    exact = ndtri((2 * words.double().numpy() + 1) * 2.0**-25)
    np.testing.assert_allclose(normal.double().numpy(), exact, rtol=0, atol=3e-6)
    assert normal.abs().max() < 5.5
    assert torch.equal(_normal(2**24 - 1 - words), -normal)
    # rising up to the rounding of a float
    assert (normal.diff() > -1e-6).all()


X = torch.arange(3)


@pytest.mark.parametrize("key, index, draw, dim, wanted, error, message", [
    (-1, X, X, 2, None, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
    (2**64, X, X, 2, None, ValueError, r"key: .* got 18446744073709551616"),
    (1.0, X, X, 2, None, ValueError, r"key: .* got 1.0"),
    (True, X, X, 2, None, ValueError, r"key: .* got True"),
    (None, X, X, 2, None, ValueError, r"key: .* got None"),
    (X, X, X, 2, None, ValueError, r"key: expected shape \[\], got \[3\]"),
    (X[0].float(), X, X, 2, None, TypeError, r"key: expected torch.int64, got torch.float32"),
    (X[0].to("meta"), X, X, 2, None, ValueError, r"key: expected a tensor on cpu, got one on meta"),
    (0, X.int(), X, 2, None, TypeError, r"index: expected torch.int64, got torch.int32"),
    (0, [1], X, 2, None, TypeError, r"index: expected a tensor, got list"),
    (0, X[None], X, 2, None, ValueError, r"index: expected shape \[B\], got \[1, 3\]"),
    (0, X - 1, X, 2, None, ValueError, r"index: expected numbers in 0..\d+, got -1 to 1"),
    (0, X, X.float(), 2, None, TypeError, r"draw: expected torch.int64, got torch.float32"),
    (0, X, 3, 2, None, TypeError, r"draw: expected a tensor, got int"),
    (0, X, X[0], 2, None, ValueError, r"draw: expected shape \[K\], got \[\]"),
    (0, X, X.to("meta"), 2, None, ValueError, r"draw: expected a tensor on cpu, got one on meta"),
    (0, X, X - 1, 2, None, ValueError, r"draw: expected numbers in 0..4294967295, got -1 to 1"),
    (0, X, X + 2**32 - 2, 2, None, ValueError, r"draw: expected .* got 4294967294 to 4294967296"),
    (0, X, X, -1, None, ValueError, r"dim: expected an integer in 0..2\^34, got -1"),
    (0, X, X, 2.0, None, ValueError, r"dim: expected an integer .* got 2.0"),
    (0, X, X, True, None, ValueError, r"dim: expected an integer .* got True"),
    (0, X, X, 2**34 + 1, None, ValueError, r"dim: expected an integer .* got 17179869185"),
    (0, X, X, 2, "fast", ValueError, r"backend: expected one of .* got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(key, index, draw, dim, wanted, error, message):
    with pytest.raises(error, match=message):
        draws(key, index, draw, dim, backend=wanted)
