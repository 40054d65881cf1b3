"""Damaged files for every reader. A read must give the right form or an error that names the file.

The damage: files that are cut, with changed bits, bytes or runs of bytes, files of other formats, zip bombs and pickles
that run code. `fuzz.py` limits time and memory.
"""

import functools
import gzip
import io
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

import robustperf as rp
from python_tests.support.fuzz_random import Random
from robustperf.data import read_idx, read_npz
from robustperf.data.image_files import read_image
from robustperf.data.npy import read_npy
from robustperf.data.svhn import read_svhn
from robustperf.files import record_settings
from robustperf.nets import munit, weights_file


class Code:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def arrays():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (6, 8, 8), dtype=np.uint8), generator.integers(0, 3, 6)


def idx(folder):
    images, _ = arrays()
    path = folder / "images.gz"
    path.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, *images.shape) + images.tobytes(), mtime=0))
    return path, read_idx, lambda found: found.dtype == np.uint8 and found.nbytes < 1 << 20


def npz(folder):
    images, labels = arrays()
    np.savez_compressed(folder / "data.npz", images=images, labels=labels)
    return folder / "data.npz", read_npz, lambda found: found.keys() <= {"images", "labels"}


def npy(folder):
    np.save(folder / "data.npy", arrays()[0])
    return folder / "data.npy", read_npy, lambda found: found.nbytes < 1 << 20


def mat(folder):
    generator = np.random.default_rng(0)
    images, labels = (
        generator.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8),
        np.arange(1, 5, dtype=np.uint8)[:, None],
    )
    savemat(folder / "train_32x32.mat", {"X": images, "y": labels}, do_compression=True)
    return folder / "train_32x32.mat", read_svhn, lambda found: len(found[0]) == len(found[1])


def hdf5(folder):
    import h5py

    from robustperf.data.usps import read_usps

    images, labels = np.random.default_rng(0).random((5, 256), np.float32), np.arange(5, dtype=np.int32)
    with h5py.File(folder / "usps.h5", "w") as file:
        for split in ("train", "test"):
            file.create_dataset(f"{split}/data", data=images, compression="gzip")
            file.create_dataset(f"{split}/target", data=labels, compression="gzip")
    return folder / "usps.h5", lambda path: read_usps(path, "train"), lambda found: len(found[0]) == len(found[1])


def image(suffix):
    def make(folder):
        path = folder / f"image{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)).save(path)
        return path, read_image, lambda found: found.mode == "RGB"

    return make


def small():
    torch.manual_seed(0)
    return rp.nets.build("small-cnn", size=8, classes=10)


def weights(folder):
    path = folder / "model.safetensors"
    weights_file.save(path, small())
    return path, weights_file.load, lambda found: isinstance(found, torch.nn.Module)


def settings(folder):
    record_settings(folder, {"seed": 1, "model": "net"}, resume=False)

    def read(path):
        record_settings(path.parent, {"seed": 1, "model": "net"}, resume=True)

    return folder / "settings.json", read, lambda found: found is None


def margins(folder):
    found = rp.margins(torch.nn.Linear(3, 2), torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    found.save(folder / "margins.npz")
    return folder / "margins.npz", rp.Margins.load, lambda found: len(found) == 5


def checkpoint(folder):
    from robustperf.training import ERM, fit

    def train(path):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        data = rp.data.load("digits", "train").limit(20)
        return fit(model, ERM(), data, validation=None, batch_size=20, epochs=1, progress=False, out=path.parent,
                   resume=True)  # fmt: skip

    train(folder / "checkpoint.safetensors")
    return folder / "checkpoint.safetensors", train, lambda found: len(found.steps) >= 1


def generator(folder):
    from robustperf.nuisance import LearnedKernel

    torch.manual_seed(0)
    kernel = LearnedKernel(munit.Translator(1, width=2).generator())
    kernel.save(folder)
    return folder / "kernel.safetensors", LearnedKernel.load, lambda found: isinstance(found, LearnedKernel)


FORMATS = {
    "idx": idx, "npz": npz, "npy": npy, "mat": mat, "hdf5": hdf5, "png": image(".png"), "jpeg": image(".jpg"),
    "ppm": image(".ppm"), "bmp": image(".bmp"), "webp": image(".webp"), "weights": weights, "settings": settings,
    "margins": margins, "checkpoint": checkpoint, "generator": generator,
}  # fmt: skip


@functools.cache
def made(name: str):
    """(the format's file in a folder of its own, its content, how to read it, the form of what is read)."""
    folder = Path(tempfile.mkdtemp(prefix="robustperf-fuzz-"))
    path, read, right = FORMATS[name](folder)
    kept = {each: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    return path, kept, read, right


def damaged(random: Random, content: bytes, canary: Path) -> bytes:
    """`content` after damage that the seed determines."""
    way, size = random.below(9), len(content)
    at = random.below(max(1, size))
    if way == 0:
        return content[:at]
    if way == 1:
        changed = bytearray(content)
        for _ in range(1 + random.below(8)):
            changed[random.below(size)] ^= 1 << random.below(8)
        return bytes(changed)
    if way == 2:  # in the head, which has the sizes
        changed = bytearray(content)
        for _ in range(1 + random.below(4)):
            changed[random.below(min(size, 200))] = random.below(256)
        return bytes(changed)
    if way == 3:
        run = random.one((b"\xff", b"\0", b"\x7f", b"9", b"[", b"{")) * random.one((1, 2, 4, 8, 64))
        return content[:at] + run + content[at + len(run) :]
    if way == 4:
        return content[:at] + random.numpy.bytes(random.below(100)) + content[at:]
    if way == 5:
        return content[:at] + content[at + 1 + random.below(100) :]
    if way == 6:
        return random.one((pickle.dumps(Code(canary)), object_array(canary), saved_object(canary)))
    if way == 7:
        return random.one((b"", b"\0" * 1000, b"[" * 100_000, b'{"a": ' * 50_000, bomb(), random.numpy.bytes(1000)))
    name = random.one(sorted(set(FORMATS) - {"checkpoint"}))
    path, kept, *_ = made(name)
    return kept[path]


def object_array(canary: Path) -> bytes:
    out = io.BytesIO()
    np.savez(out, images=np.array([Code(canary)], dtype=object), labels=np.zeros(1))
    return out.getvalue()


def saved_object(canary: Path) -> bytes:
    out = io.BytesIO()
    torch.save({"weight": Code(canary)}, out)
    return out.getvalue()


@functools.cache
def bomb() -> bytes:
    """A zip of an array of 1,000 bytes which is followed by 256 MiB of zeros."""
    out, head = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1000,)})
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head.getvalue() + bytes(1 << 28))
    return out.getvalue()


def fault_of(name: str, seed: int) -> str | None:
    """What is wrong with reading the damaged file of this seed; None where nothing is."""
    path, kept, read, right = made(name)
    canary = path.parent / "executed"
    random = Random(seed)
    for each, content in kept.items():  # what the last read left
        each.write_bytes(content)
    path.write_bytes(damaged(random, kept[path], canary))
    try:
        found = read(path)
    except (ValueError, OSError) as error:
        message = str(error)
        fault = None if str(path.parent) in message else f"an error that does not name the file: {error!r}"
        if fault is None and (len(message) > 2000 or "\n" in message):
            fault = f"an error of {len(message)} characters in {message.count(chr(10)) + 1} lines: {message[:300]}"
    else:
        fault = None if right(found) else f"read as {found!r}"
    if canary.exists():
        canary.unlink()
        fault = "the file's code was executed"
    return fault
