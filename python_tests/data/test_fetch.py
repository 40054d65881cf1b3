"""`fetch` against a server on this machine: resuming, checksums, mirrors, and clear errors."""

import contextlib
import hashlib
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from robustperf.cli.data import app
from robustperf.data import fetch
from robustperf.data.fetch import SOURCES, FetchError, RemoteFile, Source

NAME = "small"
CONTENT = bytes(range(256)) * 4000  # about 1 MB, several blocks


@dataclass
class Server:
    """What the server on 127.0.0.1 serves under each path, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    send_at_most: int | None = None  # bytes of a body before the connection closes
    content_range: str | None = None  # sent instead of the true one
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.requests.append((self.path, asked))
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            if asked and state.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                body = content[start:]
                self.send_response(206)
                true_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", state.content_range or true_range)
            else:
                body = content
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may hang up on a wrong header
                self.wfile.write(body[: state.send_at_most])

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def offer(monkeypatch):
    """Puts the data set `small`, of one file with CONTENT, on the given mirrors."""

    def offer(*mirrors: str, sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> None:
        file = RemoteFile("file.gz", len(CONTENT), sha256)
        monkeypatch.setitem(SOURCES, NAME, Source(mirrors, (file,)))

    return offer


@pytest.fixture
def part(tmp_path):
    (tmp_path / NAME).mkdir()
    return tmp_path / NAME / "file.gz.part"


def nobody() -> str:
    """A URL on this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_a_file_is_fetched_once_with_progress(server, offer, tmp_path):
    server.files["/a/file.gz"] = CONTENT
    offer(server.url + "/a/")
    seen = []
    paths = fetch(NAME, tmp_path / "new" / "root", lambda *step: seen.append(step))
    assert paths == [tmp_path / "new" / "root" / NAME / "file.gz"]
    assert paths[0].read_bytes() == CONTENT
    assert [path.name for path in paths[0].parent.iterdir()] == ["file.gz"]
    assert seen[0] == ("file.gz", 0, len(CONTENT)) and seen[-1] == ("file.gz", len(CONTENT), len(CONTENT))
    assert [step[1] for step in seen] == sorted({step[1] for step in seen})
    assert fetch(NAME, tmp_path / "new" / "root") == paths
    assert len(server.requests) == 1


def test_a_file_with_a_wrong_checksum_is_fetched_again(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    offer(server.url + "/")
    part.with_suffix("").write_bytes(CONTENT[:100])
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT


def test_a_part_is_resumed(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    offer(server.url + "/")
    part.write_bytes(CONTENT[:1234])
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT
    assert server.requests == [("/file.gz", "bytes=1234-")]
    assert not part.exists()


def test_a_server_that_ignores_the_range_starts_over(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    server.ranges = False
    offer(server.url + "/")
    part.write_bytes(b"not even the right bytes")
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT


def test_a_complete_part_needs_no_download(server, offer, tmp_path, part):
    offer(server.url + "/")
    part.write_bytes(CONTENT)
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("content", [bytes(len(CONTENT)), CONTENT + b"more"])
def test_a_part_that_cannot_be_resumed_is_dropped(server, offer, tmp_path, part, content):
    server.files["/file.gz"] = CONTENT
    offer(server.url + "/")
    part.write_bytes(content)
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT
    assert server.requests == [("/file.gz", None)]


def test_a_corrupted_download_is_deleted_and_both_digests_named(server, offer, tmp_path, part):
    corrupted = CONTENT[:-1] + b"!"
    server.files["/file.gz"] = corrupted
    offer(server.url + "/")
    with pytest.raises(FetchError) as error:
        fetch(NAME, tmp_path)
    for content in (CONTENT, corrupted):
        assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert list(part.parent.iterdir()) == []


def test_after_a_404_the_second_mirror_is_tried(server, offer, tmp_path):
    server.files["/second/file.gz"] = CONTENT
    offer(server.url + "/first/", server.url + "/second/")
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/first/file.gz", "/second/file.gz"]


def test_an_error_page_does_not_get_into_the_part(server, offer, tmp_path, part):
    server.files |= {"/first/file.gz": b"<html>please log in</html>", "/second/file.gz": CONTENT}
    offer(server.url + "/first/", server.url + "/second/")
    part.write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT


def test_a_mirror_that_answers_another_range_is_refused(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    server.content_range = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    offer(server.url + "/")
    part.write_bytes(CONTENT[:1000])
    with pytest.raises(FetchError, match="expected bytes from 1,000 of 1,024,000, got Content-Range 'bytes 0-"):
        fetch(NAME, tmp_path)
    assert part.read_bytes() == CONTENT[:1000]


def test_a_broken_connection_keeps_the_part_and_the_next_call_resumes(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    server.send_at_most = 700_000
    offer(server.url + "/")
    with pytest.raises(FetchError, match="kept for resuming: 700,000 of 1,024,000"):
        fetch(NAME, tmp_path)
    assert part.read_bytes() == CONTENT[:700_000]
    server.send_at_most = None
    assert fetch(NAME, tmp_path)[0].read_bytes() == CONTENT
    assert server.requests[-1] == ("/file.gz", "bytes=700000-")


def test_offline_lists_every_mirror_and_what_was_kept(offer, tmp_path, part, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    mirrors = nobody(), nobody() + "second/"
    offer(*mirrors)
    with pytest.raises(OSError, match="could not fetch file.gz") as error:
        fetch(NAME, tmp_path)
    for mirror in mirrors:
        assert f"{mirror}file.gz: " in str(error.value)
    assert "nothing was kept" in str(error.value)
    part.write_bytes(CONTENT[:10])
    with pytest.raises(FetchError, match=f"kept for resuming: 10 of 1,024,000 bytes in {re.escape(str(part))}"):
        fetch(NAME, tmp_path)


def test_a_disk_error_is_not_blamed_on_the_mirrors(server, offer, tmp_path, part):
    server.files["/file.gz"] = CONTENT
    offer(server.url + "/", server.url + "/")
    part.mkdir()
    with pytest.raises(IsADirectoryError):
        fetch(NAME, tmp_path)
    assert len(server.requests) <= 1


def test_errors_for_sets_without_a_mirror_name_the_folder(tmp_path):
    for name, file in (
        ("usps", "usps/usps.h5"),
        ("gtsrb", "gtsrb32/train.npz"),
        ("cifar10", "cifar10-prefix/test.npz"),
        ("svhn", "svhn/train_32x32.mat"),
        ("cure-tsr", "cure-tsr/Real_Train"),
        ("qmnist", "qmnist/qmnist-train-labels-idx2-int.gz"),
        ("emnist-letters", "emnist/emnist-balanced-train"),
    ):
        with pytest.raises(OSError, match=f"{name}: no public mirror.*{tmp_path}.*{file}"):
            fetch(name, tmp_path)
    with pytest.raises(ValueError, match="name: expected one of digits, mnist.*got 'celeba'"):
        fetch("celeba", tmp_path)
    assert fetch("digits", tmp_path) == []


def test_the_table_of_files_is_valid():
    for source in SOURCES.values():
        assert all(re.fullmatch(r"https?://\S+/", mirror) for mirror in source.mirrors)
        assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0 for file in source.files)
        assert len({file.sha256 for file in source.files}) == len(source.files)


def test_the_command_fetches_and_prints_the_paths(server, offer, tmp_path):
    server.files["/file.gz"] = CONTENT
    offer(server.url + "/")
    result = CliRunner().invoke(app, ["fetch", NAME, "--data-root", str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / NAME / "file.gz")


def test_errors_of_the_command(offer, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    offer(nobody())
    for arguments, message in (
        ([NAME, "--data-root", str(tmp_path)], "could not fetch file.gz"),
        (["usps", "--data-root", str(tmp_path)], "no public mirror"),
        (["celeba", "--data-root", str(tmp_path)], "NAME: expected one of"),
        (["mnist"], "--data-root: expected a folder"),
    ):
        result = CliRunner().invoke(app, ["fetch", *arguments])
        assert result.exit_code == 1 and message in str(result.exception)  # `main` makes a line of it
    assert "nothing to fetch" in CliRunner().invoke(app, ["fetch", "digits"]).stdout
