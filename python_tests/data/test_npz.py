"""npz files: the round trip, pickle refused, and headers and archives that lie about their sizes."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustperf.data import read_npz
from robustperf.data.npz import images_and_labels

DTYPES = [np.uint8, np.int64, np.float32, np.dtype(">f8"), np.bool_]


def npy_bytes(array: np.ndarray, **header) -> bytes:
    """`array` as an npy file; `shape`, `descr` or `fortran_order` put a lie into its header."""
    out = io.BytesIO()
    truth = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(out, truth | header)
    return out.getvalue() + array.tobytes()


def write_zip(path, method=zipfile.ZIP_DEFLATED, **members: bytes):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def peak_of_refusal(path, match: str) -> int:
    """The bytes allocated at most while `read_npz` refuses `path`."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as error:
            read_npz(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)
    return peak


@settings(deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    compressed=st.booleans(),
    order=st.sampled_from("CF"),
)
def test_round_trip_of_any_numeric_array(tmp_path_factory, array, compressed, order):
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    (np.savez_compressed if compressed else np.savez)(path, first=np.asarray(array, order=order), second=np.arange(3))
    found = read_npz(path)
    assert list(found) == ["first", "second"]
    assert found["first"].dtype == array.dtype
    assert found["first"].flags.writeable
    np.testing.assert_array_equal(found["first"], array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_or_damaged_anywhere_is_refused_or_right(tmp_path, save):
    arrays = {"x": np.arange(40, dtype=np.uint8), "y": np.arange(4)}
    path = tmp_path / "file.npz"
    save(path, **arrays)
    whole = path.read_bytes()
    cut = [whole[:kept] for kept in range(len(whole))]
    flipped = [
        whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] for at in range(len(whole)) for flip in (1, 255)
    ]
    for content in cut + flipped:
        path.write_bytes(content)
        try:
            found = read_npz(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # a time stamp says nothing of the data, and a longer comment may swallow the entry of a member
            assert found.keys() <= arrays.keys()
            for name in found:
                np.testing.assert_array_equal(found[name], arrays[name])
    for content in cut:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="file.npz"):
            read_npz(path)


@settings(deadline=None)
@given(
    descr=st.sampled_from(
        ["|u1", "<f4", "|O", "<U4", "|V0", "<U0", "nonsense", [("a", "<f4")], 3, ["<f4"], ("<f4", -1)]
    ),
    shape=st.one_of(
        st.lists(st.integers(-(2**70), 2**70), max_size=5).map(tuple),
        st.sampled_from([None, "x", (1.5,), [1], (None,)]),
    ),
    fortran_order=st.sampled_from([True, False, None, 1]),
)
def test_any_header_over_little_data_is_refused_or_true(tmp_path_factory, descr, shape, fortran_order):
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    header = repr({"descr": descr, "fortran_order": fortran_order, "shape": shape}).encode() + b"\n"
    write_zip(path, x=b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(4))
    try:
        assert read_npz(path)["x"].nbytes == 4
    except ValueError as error:
        assert str(path) in str(error)


@settings(deadline=None)
@given(
    header=st.one_of(st.binary(max_size=60), st.text("{}[]()'\",:0123456789 descrshape\n", max_size=60).map(str.encode))
)
def test_any_bytes_as_a_header_are_refused(tmp_path_factory, header):
    path = tmp_path_factory.mktemp("npz") / "file.npz"
    write_zip(path, x=b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match="file.npz.*header"):
        read_npz(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "file.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="dtype object"):
        read_npz(tmp_path / "file.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_asks_for_32_gib_allocates_nothing(tmp_path, method):
    lie = npy_bytes(np.zeros(1000, np.uint8), shape=(32 << 30,))
    path = write_zip(tmp_path / "file.npz", method, x=lie)
    assert peak_of_refusal(path, "promises 34,359,738,368 bytes.*holds 1,000") < 1 << 20


def test_a_directory_that_asks_for_32_gib_allocates_nothing(tmp_path):
    """The size in the zip directory agrees with the npy header; only deflate's limit tells that both lie."""
    path = tmp_path / "file.npz"
    lie = npy_bytes(np.zeros(1000, np.uint8), shape=(3 << 30,))
    write_zip(path, x=lie)
    whole = bytearray(path.read_bytes())
    directory = whole.rindex(b"PK\1\2")
    struct.pack_into("<I", whole, directory + 24, (3 << 30) + 128)
    path.write_bytes(whole)
    assert peak_of_refusal(path, "promises 3,221,225,600 bytes.*hold at most") < 1 << 20


def test_a_version_2_header_of_4_gib_is_not_read(tmp_path):
    bomb = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b" " * (32 << 20)
    path = write_zip(tmp_path / "file.npz", x=bomb)
    assert peak_of_refusal(path, "damaged npy header") < 2 << 20


def test_overlapping_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "file.npz", zipfile.ZIP_STORED, x=npy_bytes(np.zeros(1000, np.uint8)))
    with zipfile.ZipFile(path, "a") as archive:
        shared = archive.infolist()[0]
        for number in range(50):
            twin = zipfile.ZipInfo(f"x{number}.npy")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "create_version"):
                setattr(twin, field, getattr(shared, field))
            archive.filelist.append(twin)
        archive._didModify = True
    assert peak_of_refusal(path, "members claim 57,528 bytes of a file of") < 1 << 20


def test_other_compressions_and_other_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "file.npz", zipfile.ZIP_BZIP2, x=npy_bytes(np.zeros(9)))
    with pytest.raises(ValueError, match="compression method 12"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", "text")
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        read_npz(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ValueError, match="at least one array"):
        read_npz(path)


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nothing.npz")


def test_images_and_labels_are_found_by_the_usual_names():
    a, b = np.zeros(1), np.ones(1)
    assert images_and_labels({"images": a, "labels": b, "more": b}, "f") == (a, b)
    assert images_and_labels({"y": b, "x": a}, "f") == (a, b)
    assert images_and_labels({"arr_0": a}, "f") == (a, None)
    for arrays in ({}, {"images": a}, {"x": a, "labels": b}, {"arr_0": a, "arr_1": b}):
        with pytest.raises(ValueError, match=r"^f: expected the arrays images and labels"):
            images_and_labels(arrays, "f")
