"""IDX files: the round trip, and files that are damaged or lie about their size."""

import gzip
import math
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustperf.data import read_idx

GIB = 1 << 30


def idx_bytes(array: np.ndarray, dims: tuple[int, ...] | None = None) -> bytes:
    """`array` as an IDX file, under the header of another shape where `dims` is given."""
    dims = array.shape if dims is None else dims
    return struct.pack(f">BBBB{len(dims)}I", 0, 0, 8, len(dims), *dims) + array.tobytes()


def refused_with_peak(path, message: str) -> int:
    """The bytes that `read_idx` allocates at most before it refuses the file."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 6), dtype=np.uint8)


@pytest.fixture(params=["raw", "gz"])
def write(request, tmp_path):
    """Writes bytes as a raw or as a gzipped file and returns its path."""

    def write(content: bytes):
        path = tmp_path / ("file.gz" if request.param == "gz" else "file")
        path.write_bytes(gzip.compress(content) if request.param == "gz" else content)
        return path

    return write


@settings(deadline=None)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)), gzipped=st.booleans()
)
def test_round_trip_of_any_array(tmp_path_factory, array, gzipped):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if gzipped else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("gzipped", [False, True])
def test_round_trip_of_32_bit_integers(tmp_path, gzipped):
    array = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 8), dtype=np.int32)
    content = struct.pack(">BBBBII", 0, 0, 0x0C, 2, 5, 8) + array.astype(">i4").tobytes()
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if gzipped else content)
    found = read_idx(path)
    assert found.dtype == np.int32 and found.dtype.isnative and found.flags.writeable
    np.testing.assert_array_equal(found, array)
    path.write_bytes(gzip.compress(content[:-1]) if gzipped else content[:-1])
    with pytest.raises(ValueError, match=r"\[5, 8\].* 159"):
        read_idx(path)


@pytest.mark.parametrize("kept", [0, 2, 3, 4, 9, 15, 16, 17, 100, 225])
def test_truncated_content_is_refused(write, images, kept):
    path = write(idx_bytes(images)[:kept])
    with pytest.raises(ValueError, match=r"truncated|promises") as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_the_error_gives_both_sizes(write, images):
    path = write(idx_bytes(images)[:-10])
    with pytest.raises(ValueError, match=r"promises 210 bytes.* found 200|promises 210 bytes.* holds 200"):
        read_idx(path)


def test_a_gzip_stream_cut_anywhere_is_refused(tmp_path, images):
    whole = gzip.compress(idx_bytes(images))
    path = tmp_path / "file.gz"
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="file.gz"):
            read_idx(path)


def test_a_gzip_stream_with_a_flipped_byte_is_refused_or_right(tmp_path, images):
    whole = gzip.compress(idx_bytes(images), mtime=0)
    path = tmp_path / "file.gz"
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            np.testing.assert_array_equal(read_idx(path), images)  # a time stamp says nothing of the data
        except ValueError as error:
            assert "file.gz" in str(error)
            refused += 1
    assert refused > len(whole) - 10


def test_trailing_bytes_are_refused(write, images):
    with pytest.raises(ValueError, match="more than 210"):
        read_idx(write(idx_bytes(images) + b"\0"))


@pytest.mark.parametrize("magic", [b"\0\0\x0d\x01", b"\1\0\x08\x01", b"\0\0\x08\x00", b"\0\0\x08\xff", b"PK\x03\x04"])
def test_another_magic_number_is_refused(write, magic):
    with pytest.raises(ValueError, match=f"magic number.*{magic.hex(' ')}"):
        read_idx(write(magic + bytes(2000)))


@pytest.mark.parametrize(
    "dims", [(32 * GIB // (1 << 20), 1 << 10, 1 << 10), (2**32 - 1,) * 4, (0, 2**32 - 1, 2**32 - 1)]
)
def test_a_header_that_promises_too_much_allocates_nothing(write, images, dims):
    path = write(idx_bytes(images, dims))
    assert refused_with_peak(path, "file") < 1 << 20


def test_a_gzip_bomb_is_read_no_further_than_promised(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(64 << 20, np.uint8), (1000,))))
    assert refused_with_peak(path, "promises 1,000 bytes.*more than 1,000") < 4 << 20


def test_a_plausible_lie_allocates_what_is_read_not_what_is_promised(tmp_path):
    noise = os.urandom(100_000)
    promised = 1000 * len(noise)  # within deflate's limit, so only reading shows the lie
    path = tmp_path / "lie.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.frombuffer(noise, np.uint8), (promised,))))
    assert refused_with_peak(path, "promises 100,000,000 bytes.*holds 100,000") < 4 << 20


def test_the_best_compression_possible_is_accepted(tmp_path):
    path = tmp_path / "zeros.gz"
    zeros = np.zeros((64, 512, 512), np.uint8)
    path.write_bytes(gzip.compress(idx_bytes(zeros), 9))
    assert math.prod(zeros.shape) > 1000 * path.stat().st_size
    assert not read_idx(path).any()


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
