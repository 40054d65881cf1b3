"""Paths given to the readers: with ~, and of FIFOs, which would block."""

import gzip
import os
import signal
import struct

import numpy as np
import pytest
from PIL import Image

from robustperf.data import ImageFolder, load, read_idx, read_npz
from robustperf.data.fetch import FetchError, RemoteFile, _fetch_file, fetch
from robustperf.data.gtsrb import read_gtsrb
from robustperf.data.image_files import read_image
from robustperf.data.npy import read_npy
from robustperf.data.svhn import read_svhn
from robustperf.data.usps import read_usps
from robustperf.files import lock_file
from robustperf.nets import weights_file
from robustperf.robustness.margin_run import load_margins


@pytest.fixture(autouse=True)
def no_waiting():
    """An error in the place of a test that never ends."""

    def stop(number, frame):
        raise TimeoutError("a FIFO was opened")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_mnist(folder):
    folder.mkdir(parents=True)
    for name, array in (("images-idx3", np.zeros((3, 28, 28), np.uint8)), ("labels-idx1", np.zeros(3, np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


READERS = {"x.idx": read_idx, "x.npy": read_npy, "x.npz": read_npz, "x.mat": read_svhn, "x.png": read_image,
           "x.h5": lambda path: read_usps(path, "train"), "m.npz": load_margins, "d.npz": load,
           "m.safetensors": weights_file.load}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"{path}: expected a file, found a FIFO"):
        READERS[name](path)


def test_a_fifo_among_a_data_sets_files_is_refused(tmp_path):
    write_mnist(tmp_path / "mnist")
    images = tmp_path / "mnist/t10k-images-idx3-ubyte.gz"
    images.unlink()
    os.mkfifo(images)
    with pytest.raises(ValueError, match=rf"{images}: expected a file, found a FIFO"):
        load("mnist", "test", tmp_path)
    with pytest.raises(ValueError, match="expected a file, found a FIFO"):
        _fetch_file(None, (), images, print)
    listed = tmp_path / "Final_Test/Images/GT-final_test.csv"
    listed.parent.mkdir(parents=True)
    os.mkfifo(listed)
    with pytest.raises(ValueError, match=rf"{listed}: expected a file, found a FIFO"):
        read_gtsrb(listed.parent)


def test_home_is_expanded_in_every_path(home, monkeypatch):
    write_mnist(home / "data/mnist")
    assert len(load("mnist", "test", "~/data")) == 3
    monkeypatch.setenv("ROBUSTPERF_DATA", "~/data")
    assert len(load("mnist", "test")) == 3
    assert read_idx("~/data/mnist/t10k-labels-idx1-ubyte.gz").shape == (3,)
    np.savez(home / "own.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2))
    assert load("~/own.npz").name == "own" and list(read_npz("~/own.npz")) == ["images", "labels"]
    (home / "pictures/train/a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(home / "pictures/train/a/1.png")
    assert len(ImageFolder("~/pictures")) == len(load("~/pictures", "train")) == 1
    with pytest.raises(FileNotFoundError, match=f"{home}/data/svhn/test_32x32.mat"):
        load("svhn", "test", "~/data")


def test_home_is_expanded_in_the_folder_of_fetch(home, monkeypatch):
    def no_network(*arguments, **named):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(FetchError, match="(?s)could not fetch kmnist-test-imgs.npz.*nothing was kept$"):
        fetch("kmnist", "~/data")
    assert list((home / "data/kmnist").iterdir()) == []


def test_two_processes_cannot_fetch_one_file(tmp_path):
    with lock_file(tmp_path / "a.gz.part"), pytest.raises(OSError, match="another process is writing .*a.gz.part"):
        _fetch_file(RemoteFile("a.gz", 5, "0"), (), tmp_path / "a.gz", print)
