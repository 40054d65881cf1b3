"""Atomic writes, reads of regular files only, and locked folders."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from robustperf.files import (
    atomic_write,
    check_regular,
    lock_folder,
    open_regular,
    record_settings,
    reporting_saved,
    user_path,
)

# writes half of argv[1], says so, and waits to be killed
WRITER = """
import sys, time
from robustperf.files import lock_folder, atomic_write
with lock_folder(sys.argv[2]), atomic_write(sys.argv[1]) as partial:
    partial.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing tmp_path/file and has the folder tmp_path/run."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "file"), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def parts(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_the_file_is_written_atomically(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with atomic_write(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "file") as partial:
        partial.write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match=rf"{path} could not be written \(disk full\)"), atomic_write(path) as partial:
        partial.write_text("aft")
        raise OSError("disk full")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_for_a_full_disk_names_the_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"out: {tmp_path}/file could not be written \(.*\); 3 kept") as caught:
            with reporting_saved(lambda: "3 kept"), atomic_write(tmp_path / "file") as partial:
                partial.write_bytes(bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected one in a folder that exists"):
        with atomic_write(tmp_path / "none" / "file"):
            pass


def test_partial_files_of_killed_processes_are_removed(tmp_path, writer):
    others = [tmp_path / name for name in ("archive.zip.part", ".download.part", ".file.12x.part")]
    for path in others:
        path.write_text("of another program")
    (left,) = set(parts(tmp_path)) - {path.name for path in others}
    with atomic_write(tmp_path / "other") as partial:
        partial.write_text("")
    assert (tmp_path / left).read_text() == "half"  # its process lives
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with atomic_write(tmp_path / "other") as partial:
        partial.write_text("")
    assert sorted(parts(tmp_path)) == sorted(path.name for path in others)


def test_a_folder_is_locked_for_one_process(tmp_path, writer):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=f"out: {folder} is in use by another process"), lock_folder(folder):
        pass
    writer.kill()
    writer.wait()
    with lock_folder(folder), lock_folder(folder):  # who has it may take it again
        pass


def special(kind, path):
    """Something at `path` that is no regular file."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.fspath(path))
    return path


@pytest.mark.parametrize("kind", ["a folder", "a FIFO", "a device", "a socket"])
def test_only_regular_files_are_opened_and_replaced(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = special(kind, Path("it"))
    for read in (check_regular, open_regular):
        with pytest.raises(ValueError, match=f"it: expected a file, found {kind}"):
            read(path)
    with pytest.raises(ValueError, match=f"path: expected a file to replace or a new one, got {kind}"):
        with atomic_write(path):
            pass
    assert os.listdir() == ["it"]


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "none")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a" and user_path(Path("~")) == tmp_path and user_path("a~") == Path("a~")
    with atomic_write("~/file") as partial:
        partial.write_text("1")
    assert open_regular("~/file").read() == b"1"
    with lock_folder("~/run"):
        record_settings("~/run", {"seed": 1}, resume=False)
    assert (tmp_path / "run/settings.json").exists()


@pytest.mark.parametrize("content", ["", '{"seed": 1', "[1]", "[" * 100_000, '{"seed": \xff}'])
def test_damaged_settings_are_named(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"out: {path} is damaged .* cannot be resumed; the other files"):
        record_settings(tmp_path, {"seed": 1}, resume=True)
    assert path.read_text(encoding="latin-1") == content
