"""The user's files: paths with `~`, atomic writes, reads of regular files only, and run folders with recorded settings
and a lock."""

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
except ImportError:  # not POSIX: partial files of killed processes are not removed
    fcntl = None

SETTINGS = "settings.json"

_LOCK_TIMEOUT = 1.0  # seconds; a process that removes stale partial files locks a new one briefly
_PARTIAL = re.compile(r"\..+\.\d+\.part", re.DOTALL | re.ASCII)  # what `atomic_write` writes to
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def user_path(path: str | os.PathLike[str]) -> Path:
    """`path` with ~ and ~user expanded; the shell does not do this for `root="~/data"`, `--out=~/runs` or environment
    variables."""
    return Path(os.path.expanduser(path))


def check_regular(path: str | os.PathLike[str]) -> Path:
    """`user_path(path)`, if it is a regular file: opening a FIFO waits for a writer, and a device may never end.

    Raises FileNotFoundError if there is no such file, another OSError if it cannot be inspected, and ValueError if it
    is a folder, FIFO, socket or device.
    """
    path = user_path(path)
    if kind := _special(path.stat().st_mode):
        raise ValueError(f"{path}: expected a file, found {kind}")
    return path


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The regular file at `path`, open for reading bytes. Raises as `check_regular` does."""
    return open(check_regular(path), "rb")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success the file written there replaces `path` in one step.

    After an error, or a crash during the write, `path` is unchanged. Partial files of killed processes in the same
    folder are removed.

    Raises FileNotFoundError if the folder of `path` does not exist, ValueError if `path` is not a regular file, and
    OSError that names `path` if it cannot be written, such as on a full disk.

    >>> with atomic_write("summary.json") as partial:  # doctest: +SKIP
    ...     partial.write_text("{}")
    """
    path = user_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected one in a folder that exists, got {path}")
    if path.exists() and (kind := _special(path.stat().st_mode)):
        raise ValueError(f"path: expected a file to replace or a new one, got {kind}, {path}")
    partial = path.with_name(f".{path.name}.{threading.get_native_id()}.part")
    try:
        _remove_stale(path.parent)
        with lock_file(partial):
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
def lock_file(path: Path) -> Iterator[None]:
    """Creates the file if needed and locks it; the system releases the lock when the process ends, even if killed.

    Raises OSError if another process holds the lock.
    """
    if fcntl is None:
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file, path)
            if _same_file(file, path):  # otherwise another process removed it as stale
                yield
                return
        finally:
            os.close(file)


@contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Creates the folder if needed and locks it for this process; the lock is reentrant.

    Raises ValueError if another process holds the lock.
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
def reporting_saved(saved: Callable[[], str]) -> Iterator[None]:
    """Appends `saved()`, what a run's folder has saved so far, to an OSError raised inside."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"out: {error.strerror or error}; {saved()}") from error


def record_settings(folder: str | os.PathLike[str], settings: dict[str, Any], *, resume: bool) -> None:
    """Records the settings of a run in its folder, which is created; to resume an earlier run, compares them instead.

    Args:
        folder: the run's folder.
        settings: everything that the results depend on, as JSON has it.
        resume: whether to resume the run that the folder holds.

    Raises ValueError if the folder holds an earlier run and `resume` is false, if its settings differ (the error names
    them), or if the file that holds them is damaged.
    """
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # as JSON reads them back
    recorded = folder / SETTINGS
    if not recorded.exists():
        with atomic_write(recorded) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
        return
    if not resume:
        raise ValueError(f"out: {folder} holds an earlier run; resume=True resumes it, or name another")
    before = _read_settings(recorded)
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
            f"out: {path} is damaged ({error}), so its run cannot be resumed; the other files in "
            f"{path.parent} are unchanged: name another folder, or restore that file"
        ) from error
    return settings


def _special(mode: int) -> str | None:
    """The kind of file, or None for a regular file."""
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
            return  # this file system has no locks


def _remove_stale(folder: Path) -> None:
    """Removes the partial files in `folder` that no living process has locked."""
    partials = []
    with suppress(PermissionError):  # listing the folder; writing into it is a separate permission
        partials = [folder / name for name in os.listdir(folder) if _PARTIAL.fullmatch(name)]
    for partial in partials if fcntl is not None else []:
        with suppress(OSError):  # locked, gone, another user's, or no locks here: leave it
            if not stat.S_ISREG(partial.lstat().st_mode):
                continue
            file = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(file, partial):
                    partial.unlink()
            finally:
                os.close(file)


def _same_file(file: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
