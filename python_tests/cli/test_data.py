"""`robustperf data`: the output of `list`, and the tables and figures of `domains`."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from robustperf.cli.data import app
from robustperf.data.load import NAMES


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a whole data set, half of another, and a broken file; the environment variable is unset."""
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    for folder in ("mnist", "gtsrb32", "cifar10-prefix"):
        (tmp_path / folder).mkdir()
    for split, n in (("train", 7), ("test", 4)):
        np.savez(
            tmp_path / f"cifar10-prefix/{split}.npz", images=np.zeros((n, 32, 32, 3), np.uint8), labels=np.zeros(n, int)
        )
    for name, shape in (("train-images-idx3", (5, 28, 28)), ("t10k-images-idx3", (3, 28, 28)), ("t10k-labels-idx1", 3)):
        array = np.zeros(shape, np.uint8)
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (tmp_path / f"mnist/{name}-ubyte.gz").write_bytes(gzip.compress(content))
    (tmp_path / "gtsrb32/test.npz").write_bytes(b"PK\3\4")
    return tmp_path


def test_the_list_command_shows_counts_and_what_is_missing(root):
    result = CliRunner().invoke(app, ["list", "--data-root", str(root)], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    line = {name: next(row for row in result.output.splitlines() if f" {name} " in row) for name in NAMES}
    assert "1,198" in line["digits"] and "599" in line["digits"]
    assert "missing mnist/train-labels-idx1-ubyte.gz " in line["mnist"] and " 3 " in line["mnist"]
    assert " 7 " in line["cifar10"] and " 4 " in line["cifar10"]
    assert "missing usps/usps.h5" in line["usps"]
    assert "missing emnist/emnist-letters-train-images-idx3-ubyte.gz" in line["emnist-letters"]
    assert "missing cure-tsr/Real_Train/ChallengeFree" in line["cure-tsr"]
    assert "not a valid npz" in line["gtsrb"]


def test_the_list_command_without_a_root_shows_digits(monkeypatch):
    monkeypatch.delenv("ROBUSTPERF_DATA", raising=False)
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    assert "1,198" in result.output and "no --data-root" in result.output


def write_gtsrb(root, greys) -> None:
    images = np.repeat(np.array(greys, np.uint8), 32 * 32 * 3).reshape(-1, 32, 32, 3)
    np.savez(root / "gtsrb32/test.npz", images=images, labels=np.zeros(len(images), int))


def lines(result) -> list[list[str]]:
    return [line.split() for line in result.output.splitlines() if line.strip()]


def test_domains_counts_the_images_of_each_and_draws_them(root):
    write_gtsrb(root, [10] * 30 + [40] * 5 + [100] * 12 + [200] * 3)
    out = root / "seen.png"
    result = CliRunner().invoke(app, ["domains", "gtsrb", "--data-root", str(root), "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = lines(result)
    assert ["low", "40", "30"] in rows and ["medium", "85", "125", "12"] in rows and ["high", "170", "3"] in rows
    assert "gtsrb (test): brightness of 50 images" in result.output
    counts = {row[0]: row for row in rows if row[0].isdecimal()}
    assert len(counts) == 20 and counts["10"][2] == "30" and counts["10"][-1] == "low" and counts["200"][2] == "3"
    assert sum(int(row[2]) for row in counts.values()) == 50
    assert sum("█" in row[3] for row in counts.values() if len(row) > 3) == 4
    assert out.read_bytes().startswith(b"\x89PNG")


def test_domains_by_contrast_of_the_first_images_of_a_set_without_thresholds(root):
    out = root / "seen.pdf"
    result = CliRunner().invoke(
        app, ["domains", "digits", "--by", "contrast", "--limit", "40", "--split", "train", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "digits (train): contrast of 40 images" in result.output and "low" not in result.output.split()
    assert out.read_bytes().startswith(b"%PDF")


def test_domains_reads_a_folder_of_images(root):
    for number in range(3):
        path = root / f"own/val/cat/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(path)
    result = CliRunner().invoke(app, ["domains", str(root / "own"), "--out", str(root / "seen.png")])
    assert result.exit_code == 0, result.output
    assert "own (test): brightness of 3 images" in result.output


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["digits", "--by", "colour"], "--by: expected one of brightness, contrast, got 'colour'"),
        (["celeba"], "NAME: expected one of"),
        (["digits", "--split", "val"], "--split: expected one of"),
        (["digits", "--out", "no/such/folder.png"], "--out: expected one in a folder that exists"),
    ],
)
def test_errors_of_domains(arguments, match):
    result = CliRunner().invoke(app, ["domains", *arguments])
    assert result.exit_code == 1 and match in str(result.exception)
