import pytest

from robustperf.files import written_whole


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with written_whole(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match="disk full"), written_whole(path) as partial:
        partial.write_text("aft")
        raise OSError("disk full")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected one in a folder that exists"):
        with written_whole(tmp_path / "none" / "file"):
            pass
