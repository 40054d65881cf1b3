"""SVHN's MATLAB files: the round trip through SciPy's writer, and files that are damaged or lie about their size."""

import io
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from robustperf.data import load
from robustperf.data.svhn import read_svhn


def arrays(n: int = 23) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.permutation(np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]
    return {"X": generator.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), "y": y}


@pytest.mark.parametrize("compressed", [False, True])
def test_round_trip_of_every_split_with_ten_as_zero(tmp_path, compressed):
    (tmp_path / "svhn").mkdir()
    for n, split in enumerate(("train", "test", "extra"), start=20):
        written = arrays(n)
        savemat(tmp_path / f"svhn/{split}_32x32.mat", written, do_compression=compressed)
        data = load("svhn", split, tmp_path)
        assert data.name == "svhn" and data.classes == 10 and data.x.shape == (n, 3, 32, 32) and data.x.is_contiguous()
        for row in range(n):
            pixels = np.moveaxis(written["X"][..., row], 2, 0).astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(data.x[row].numpy(), pixels)
            assert data.y[row] == (0 if written["y"][row] == 10 else written["y"][row])


def test_other_splits_and_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="split: expected one of train, test, extra, got 'val'"):
        load("svhn", "val", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"svhn/extra_32x32\.mat; put it there.*cropped digits"):
        load("svhn", "extra", tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"X": np.zeros((32, 32, 3, 23))}, r"X: expected uint8 \[32, 32, 3, N\], found float64"),
        ({"X": np.zeros((32, 31, 3, 23), np.uint8)}, r"X: expected.*\[32, 31, 3, 23\]"),
        ({"X": np.zeros((32, 32), np.uint8)}, r"X: expected.*\[32, 32\]"),
        ({"X": {"a": 1}}, "X: expected real numbers"),
        ({"X": np.array([{}, "a"], object)}, "X: expected real numbers"),
        ({"X": 1j * np.ones((32, 32, 3, 23))}, "X: expected real numbers"),
        ({"y": np.ones((22, 1), np.uint8)}, r"y: expected integers \[23, 1\], found uint8 \[22, 1\]"),
        ({"y": np.ones((23, 2), np.uint8)}, r"y: expected integers \[23, 1\], found uint8 \[23, 2\]"),
        ({"y": np.ones((23, 1))}, "y: expected integers.*float64"),
        ({"y": np.zeros((23, 1), np.uint8)}, r"y: expected labels in 1\.\.10, found 0 to 0"),
        ({"y": np.full((23, 1), 11, np.uint8)}, "found 11 to 11"),
        ({"y": np.full((23, 1), -1, np.int8)}, "found -1 to -1"),
        ({"y": None}, r"variables X and y, found X$"),
    ],
)
def test_other_variables_are_refused(tmp_path, change, match):
    path = tmp_path / "test_32x32.mat"
    savemat(path, {name: value for name, value in (arrays() | change).items() if value is not None})
    with pytest.raises(ValueError, match=match) as error:
        read_svhn(path)
    assert str(path) in str(error.value)


def uncompressed() -> bytes:
    out = io.BytesIO()
    savemat(out, arrays())
    return out.getvalue()


def refusal(tmp_path, content: bytes, match: str) -> int:
    """The bytes allocated at most while `content` is refused."""
    path = tmp_path / "lie.mat"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            read_svhn(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_that_promises_too_much_is_refused_before_the_data_are_read(tmp_path):
    content = uncompressed()
    at = content.index(struct.pack("<4i", 32, 32, 3, 23))
    lie = content[:at] + struct.pack("<4i", 32, 32, 3, 1 << 30) + content[at + 16 :]
    first = 128 + 8 + struct.unpack("<I", content[132:136])[0]  # behind X
    squeezed = zlib.compress(lie[128:first])
    compressed = lie[:128] + struct.pack("<2I", 15, len(squeezed)) + squeezed + lie[first:]
    assert refusal(tmp_path, lie, r"promises uint8 \[32, 32, 3, 1073741824\], found 70,656 bytes") < 1 << 20
    assert refusal(tmp_path, compressed, r"promises uint8 \[32, 32, 3, 1073741824\], found 70,656 bytes") < 1 << 20
    tag = zlib.compress(struct.pack("<2I", 14, 1 << 31) + bytes(1000))
    bomb = content[:128] + struct.pack("<2I", 15, len(tag)) + tag
    assert (
        refusal(tmp_path, bomb, r"promises 2,147,483,648 bytes, found \d+ compressed ones, which hold at most")
        < 1 << 20
    )
    tag = zlib.compress(struct.pack("<2I", 14, 1000) + bytes(32 << 20))
    bomb = content[:128] + struct.pack("<2I", 15, len(tag)) + tag
    assert refusal(tmp_path, bomb, "promises 1,000 bytes, the compressed data hold more than 1,000") < 1 << 20


def test_a_repeated_variable_is_refused(tmp_path):
    content = uncompressed()
    path = tmp_path / "twice.mat"
    path.write_bytes(content + content[128:])
    with pytest.raises(ValueError, match="expected each variable once, found X again"):
        read_svhn(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_or_damaged_is_refused_or_of_the_right_form(tmp_path, compressed):
    path = tmp_path / "test_32x32.mat"
    savemat(path, arrays(3), do_compression=compressed)
    whole = path.read_bytes()
    cuts = [*range(0, 400), *range(400, len(whole), 97)]
    for kept in cuts:
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"test_32x32\.mat"):
            read_svhn(path)
    for at in [*range(128, 330), *range(len(whole) - 80, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            images, labels = read_svhn(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # a pixel or a label has no check of its own
            assert images.shape == (3, 32, 32, 3) and labels.shape == (3,)
            assert images.dtype == np.uint8 and labels.min() >= 0 and labels.max() <= 9


def test_a_file_that_crashes_scipy_is_refused(tmp_path):
    """Why SVHN has a reader of its own: a type changed in the tag of X's data ends an interpreter that runs SciPy."""
    content = bytearray(uncompressed())
    at = content.index(struct.pack("<2I", 2, 32 * 32 * 3 * 23))  # uint8
    content[at] = 14  # a matrix
    assert refusal(tmp_path, bytes(content), "X: expected real numbers, found elements of types") < 1 << 20
    read = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1])"
    ended = subprocess.run([sys.executable, "-c", read, str(tmp_path / "lie.mat")], capture_output=True)
    if ended.returncode >= 0:
        pytest.skip("this SciPy survives the file; SciPy 1.17.1 ends with SIGSEGV")
    assert ended.returncode == -signal.SIGSEGV


def test_other_files_are_refused(tmp_path):
    for number, content in enumerate((b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(600))):
        path = tmp_path / f"{number}.mat"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a valid MATLAB file of SVHN"):
            read_svhn(path)
    with pytest.raises(FileNotFoundError):
        read_svhn(tmp_path / "nothing.mat")


def matrix(*elements: tuple[int, bytes]) -> bytes:
    """A compressed matrix of these elements, in a file of its own."""
    inner = b"".join(struct.pack("<2I", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in elements)
    squeezed = zlib.compress(struct.pack("<2I", 14, len(inner)) + inner, 9)
    return uncompressed()[:128] + struct.pack("<2I", 15, len(squeezed)) + squeezed


def test_too_many_or_too_long_elements_need_little_memory(tmp_path):
    size = 8 << 20  # of the matrix, in some 8 kB
    flags, dims, name = (6, bytes(8)), (5, struct.pack("<4i", 32, 32, 3, 23)), (1, b"X")
    tags = matrix(flags, dims, name, *[(2, b"")] * (size // 8))
    assert len(tags) < 50_000
    assert refusal(tmp_path, tags, r"X: expected real numbers, found elements of types \[2, 2\]") < 2.1 * size
    long = matrix(flags, (5, bytes(size)), name, (2, b""))
    assert refusal(tmp_path, long, "expected at most 32 dimensions .*, found 2,097,152 and 1") < 2.1 * size
    named = matrix(flags, dims, (1, bytes(size)), (2, b""))
    assert refusal(tmp_path, named, "a name of 63 letters, found 4 and 8,388,608") < 2.1 * size
    for few in ((), (flags,), (flags, dims), (dims, flags, name), (flags, dims, name)):
        refusal(tmp_path, matrix(*few), "expected")
