"""Fetching data sets: mirrors are tried in order, downloads resume, and every file is checked by its SHA-256."""

import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from robustperf.files import lock_file, open_regular, user_path
from robustperf.names import CORRUPTIONS, check_name

TIMEOUT = 30.0  # seconds without a byte before the next mirror is tried
_BLOCK = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """The expected file: its name, size in bytes, and SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where to fetch a data set from: base URLs (ending in /), in the order to try, and its files."""

    mirrors: tuple[str, ...]
    files: tuple[RemoteFile, ...]


def _sources() -> dict[str, Source]:
    """The sources in `sources.json`, next to this file."""
    table = json.loads((resources.files("robustperf.data") / "sources.json").read_text(encoding="utf-8"))
    return {
        name: Source(tuple(source["mirrors"]), tuple(RemoteFile(**file) for file in source["files"]))
        for name, source in table.items()
    }


SOURCES = _sources()
"""The data sets that `fetch` downloads, into ROOT/NAME/."""

_GTSRB = (
    "gtsrb/Final_Training/Images/00000/*.ppm with GT-00000.csv, ..., gtsrb/Final_Test/Images/*.ppm with"
    " GT-final_test.csv"
)


def _npz(folder: str, shape: str = "[N, 32, 32, 3]") -> str:
    return f"{folder}/train.npz and {folder}/test.npz (images {shape} uint8, labels [N])"


# No public mirror serves these in the layout read here: which files to put where under the data root.
BY_HAND: dict[str, str] = (
    {
        "usps": "usps/usps.h5 (HDF5, groups train and test: data [N, 256] float32 in [0, 1], target [N])",
        "svhn": "svhn/train_32x32.mat, svhn/test_32x32.mat and, if wanted, svhn/extra_32x32.mat (the cropped digits)",
        "svhn-mini": _npz("svhn-mini"),
        "mnist-m": _npz("mnist-m"),
        "tiny-imagenet": "tiny-imagenet/train/n01443537/*.JPEG, ..., and likewise in tiny-imagenet/test: the official"
        " train/n01443537/images, ... and val/images, in a folder for each class",
        "gtsrb": f"{_npz('gtsrb32')}, or the official folders: {_GTSRB}",
        "gtsrb-cropped": f"the official folders: {_GTSRB}",
        "cure-tsr": "cure-tsr/Real_Train/ChallengeFree/*.bmp, cure-tsr/Real_Train/Snow-1/*.bmp, ..., and likewise in"
        " cure-tsr/Real_Test",
        "qmnist": "qmnist/qmnist-train-images-idx3-ubyte.gz, qmnist/qmnist-train-labels-idx2-int.gz and likewise test",
        "cifar10": _npz("cifar10-prefix"),
    }
    | {
        name: "the files of the official gzip.zip, such as emnist/emnist-balanced-train-images-idx3-ubyte.gz"
        + f", or {_npz('emnist-letters', '[N, 28, 28]')}, upright, labels from 0" * (name == "emnist-letters")
        for name in ("emnist", *(f"emnist-{part}" for part in ("letters", "digits", "byclass", "bymerge", "mnist")))
    }
    | {
        f"mnist-c/{corruption}": "the folders of the official mnist_c.zip, such as mnist_c/fog/train_images.npy and"
        " mnist_c/fog/train_labels.npy"
        for corruption in CORRUPTIONS
    }
)


class FetchError(OSError):
    """A data set could not be fetched; the message names the file, the mirrors tried and the bytes kept."""


class _MirrorFailed(Exception):
    """One mirror failed; the next one is tried."""


def fetch(
    name: str, root: str | os.PathLike[str], progress: Callable[[str, int, int], None] | None = None
) -> list[Path]:
    """Downloads a data set into `root`/`name`, unless its files are there with the right checksums.

    A download is written to `<file>.part`, resumes from it after an interruption, and is renamed only once its SHA-256
    is right.

    Args:
        name: "mnist", "fashion-mnist" or "kmnist" (its test part); "digits" comes with scikit-learn.
        root: the data root, created if needed.
        progress: called with (file name, bytes so far, total bytes) as bytes arrive.

    Returns:
        The data set's files; none for "digits", which needs no fetching.

    Raises:
        ValueError: an unknown name.
        FetchError: (an OSError) no mirror has this data set, every mirror failed, or a file's SHA-256 is wrong.
        OSError: the files cannot be written, or another process is fetching them.

    >>> fetch("mnist", "~/data")  # doctest: +SKIP
    """
    if name == "digits":
        return []
    if name in BY_HAND:
        raise FetchError(
            f"{name}: no public mirror with checksums serves it in this layout; put it under {root}: {BY_HAND[name]}"
        )
    source = SOURCES[check_name("name", name, ("digits", *SOURCES, *BY_HAND))]
    folder = user_path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_file(file, source.mirrors, folder / file.name, progress or _silent) for file in source.files]


def _silent(file: str, done: int, total: int) -> None:
    pass


def _fetch_file(file: RemoteFile, mirrors: tuple[str, ...], path: Path, progress: Callable) -> Path:
    """Puts `file` at `path`; each mirror continues where the one before failed."""
    if path.exists() and _sha256(path) == file.sha256:
        progress(file.name, file.size, file.size)
        return path
    part = path.with_name(path.name + ".part")
    with lock_file(part):  # two processes must not write to the same file
        try:
            return _download_from_any(file, mirrors, part, path, progress)
        finally:
            if part.exists() and not _size(part):
                part.unlink()


def _download_from_any(file: RemoteFile, mirrors: tuple[str, ...], part: Path, path: Path, progress: Callable) -> Path:
    if _size(part) >= file.size and _sha256(part) != file.sha256:
        part.unlink()
    failures = []
    for mirror in mirrors:
        if _size(part) == file.size:
            break
        try:
            _download(file, mirror + file.name, part, progress)
        except _MirrorFailed as failure:
            failures.append(f"\n  {mirror}{file.name}: {failure}")
    kept = _size(part)
    if kept < file.size:
        raise FetchError(
            f"could not fetch {file.name}; tried{''.join(failures)}\n"
            + (f"kept for resuming: {kept:,} of {file.size:,} bytes in {part}" if kept else "nothing was kept")
        )
    found = _sha256(part)
    if found != file.sha256:
        part.unlink()
        raise FetchError(f"{file.name}: expected the SHA-256 {file.sha256}, got {found}; the download was deleted")
    os.replace(part, path)
    return path


def _download(file: RemoteFile, url: str, part: Path, progress: Callable) -> None:
    """Downloads `url` until `part` has `file.size` bytes. Network errors become `_MirrorFailed`; disk errors do not."""
    with _open(url, _size(part)) as response:
        done = _offset(response, _size(part), file.size)
        with open(part, "ab" if done else "wb") as out:
            progress(file.name, done, file.size)
            while done < file.size:
                block = _read(response, min(_BLOCK, file.size - done))
                if not block:
                    raise _MirrorFailed(f"the connection closed after {done:,} of {file.size:,} bytes")
                out.write(block)
                done += len(block)
                progress(file.name, done, file.size)


def _open(url: str, start: int) -> http.client.HTTPResponse:
    """The response for `url`, starting at byte `start`."""
    headers = {"User-Agent": "robustperf"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _MirrorFailed(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _MirrorFailed(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorFailed(f"{type(error).__name__}: {error}") from error


def _read(response: http.client.HTTPResponse, count: int) -> bytes:
    try:
        return response.read(count)
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorFailed(f"{type(error).__name__}: {error}") from error


def _offset(response: http.client.HTTPResponse, start: int, size: int) -> int:
    """The byte at which the body starts: `start`, or 0 if the server ignored the range.

    Raises `_MirrorFailed` for a wrong total size, so that an error page or another file never gets into the `.part`.
    """
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start or match[2] not in ("*", str(size)):
            found = response.headers.get("Content-Range")
            raise _MirrorFailed(f"expected bytes from {start:,} of {size:,}, got Content-Range {found!r}")
        return start
    length = response.headers.get("Content-Length")
    if response.status != 200 or (length is not None and length != str(size)):
        raise _MirrorFailed(f"expected a file of {size:,} bytes, got status {response.status}, {length} bytes")
    return 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
