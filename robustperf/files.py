"""The user's files: paths with `~`, files that are written atomically and read only where they are regular files, and
run folders with recorded settings and a lock."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # no POSIX: the parts of killed processes stay
    fcntl = None

SETTINGS = "settings.json"

_LOCK_TIMEOUT = 1.0  # seconds; a process that removes stale parts holds a new file briefly
_PART = re.compile(r"\..+\.\d+\.part", re.DOTALL | re.ASCII)  # what `written_whole` writes to
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path of a name that a user gave, with ~ and ~user expanded, which no shell did in `root="~/data"`,
    `--out=~/runs` or an environment variable from a file."""
    return Path(os.path.expanduser(path))


def check_regular(path: str | os.PathLike[str]) -> Path:
    """`user_path(path)`, if a regular file is there: opening a FIFO would wait for a writer, and a device may have no
    end.

    Raises FileNotFoundError where there is none (OSError where it cannot be told), and ValueError where it is a folder,
    FIFO, socket or device.
    """
    path = user_path(path)
    if kind := _special(path.stat().st_mode):
        raise ValueError(f"{path}: expected a file, found {kind}")
    return path


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The regular file at `path`, open for reading bytes. Raises as `check_regular` does."""
    return open(check_regular(path), "rb")


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside `path` to write to; afterwards its file takes the place of `path` in one step. After an
    error, or when the machine stops during the write, `path` is unchanged. Partial files of killed processes in the
    same folder are removed.

    Raises FileNotFoundError when the folder of `path` does not exist; ValueError where `path` is something else than a
    regular file; OSError that names `path` where it cannot be written, such as on a full disk.
    """
    path = user_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected one in a folder that exists, got {path}")
    if path.exists() and (kind := _special(path.stat().st_mode)):
        raise ValueError(f"path: expected a file to replace or a new one, got {kind}, {path}")
    partial = path.with_name(f".{path.name}.{threading.get_native_id()}.part")
    try:
        _sweep(path.parent)
        with held(partial):
            try:
                yield partial
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{path} could not be written ({error.strerror or error})") from error


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Creates the file if there is none and holds a lock on it, which the system releases when the process ends,
    however it ends.

    Raises OSError where another process holds it.
    """
    if fcntl is None:
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file, path)
            if _same_file(file, path):  # else another process took it for a stale file and removed it
                yield
                return
        finally:
            os.close(file)


@contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Creates the folder if there is none and locks it for this process; the lock is reentrant.

    Raises ValueError where another process holds it.
    """
    from filelock import FileLock, Timeout

    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.resolve() / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"out: {folder} is in use by another process") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Adds to an OSError of a run what its folder has saved so far."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"out: {error.strerror or error}; {kept()}") from error


def note_settings(folder: str | os.PathLike[str], settings: dict[str, Any], *, resume: bool) -> None:
    """Writes everything that a run's results depend on into its folder, which is created; or, to resume the run that
    the folder holds, compares them.

    Raises ValueError where there is an earlier run and `resume` is false, its settings differ (the error names them),
    or the file that holds them is damaged.
    """
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # as they will be read back
    noted = folder / SETTINGS
    if not noted.exists():
        with written_whole(noted) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
        return
    if not resume:
        raise ValueError(f"out: {folder} holds an earlier run; resume=True resumes it, or name another")
    before = _read_settings(noted)
    names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    if names:
        differences = "; ".join(f"{name} was {before.get(name)!r} and is {settings.get(name)!r}" for name in names)
        raise ValueError(f"out: {folder} holds a run with other settings: {differences}")


def _read_settings(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        content = file.read()
    try:
        settings = json.loads(content)
        if not isinstance(settings, dict):
            raise ValueError(f"expected an object, found {type(settings).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"out: {path} is damaged ({error}), so that its run cannot be resumed; the other files in "
            f"{path.parent} are as they were: name another folder, or put that file back"
        ) from error
    return settings


def _special(mode: int) -> str | None:
    """What it is, where it is no regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def _lock(file: int, path: Path) -> None:
    end = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.EBUSY, f"another process is writing {path}") from None
            time.sleep(0.01)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return  # this disk has no locks


def _sweep(folder: Path) -> None:
    """Removes the parts in `folder` that no living process holds."""
    parts = []
    with suppress(PermissionError):  # listing the folder; writing into it is a separate permission
        parts = [folder / name for name in os.listdir(folder) if _PART.fullmatch(name)]
    for part in parts if fcntl is not None else []:
        with suppress(OSError):  # it is held, gone, another user's, or on a file system without locks: it stays
            if not stat.S_ISREG(part.lstat().st_mode):
                continue
            file = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(file, part):
                    part.unlink()
            finally:
                os.close(file)


def _same_file(file: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
