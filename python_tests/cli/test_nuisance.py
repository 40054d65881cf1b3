"""`robustperf nuisance show`: its figure, its output and its errors."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from typer.testing import CliRunner

from robustperf import cli, data
from robustperf.cli.build import build_kernel
from robustperf.nuisance import BackgroundColour, Compose, Hue, ProgramKernel, Rotation, mnist_c


def show(*arguments, code=0):
    """Output or error of `robustperf nuisance show ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, ["nuisance", "show", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_the_figure_and_the_output(tmp_path):
    path = tmp_path / "grid.png"
    output = show("--kernel", "rotation(30) + brightness((-0.1, 0.4))", "--draws", 4, "--out", path)
    figure = imread(path)
    height, width = figure.shape[:2]
    assert 5 * 100 < width < 5 * 200 and 100 < height < 400  # five images in a row
    assert figure.std() > 0.1 and list(tmp_path.iterdir()) == [path]
    assert "rotation((-30, 30)) + brightness((-0.1, 0.4))" in output
    assert "2 components of delta" in output and str(path) in output
    assert "rotation" in output and "brightness" in output
    delta = build_kernel("rotation(30) + brightness((-0.1, 0.4))").sample(0, torch.tensor([0]), 4)[:, 0]
    for values in delta.tolist():
        assert all(f"{value:.3g}" in output for value in values)


def test_the_draws_are_those_of_python(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("robustperf.plot.image_grid", lambda x, made, *rest, **named: drawn.update(x=x, made=made))
    show("--kernel", "background_colour", "--index", 7, "--points", 3, "--draws", 2, "--seed", 5, "--split", "train")
    x = data.load("digits", "train").x[7:10]
    assert torch.equal(drawn["x"], x)
    assert torch.equal(drawn["made"], BackgroundColour().draw(x, key=5, index=torch.arange(7, 10), draws=2))


def test_grey_digits_on_colours(tmp_path):
    path = tmp_path / "grid.png"
    output = show("--kernel", "background_colour((0.9, 0, 0), (1, 0, 0.1))", "--points", 2, "--draws", 2, "--out", path)
    assert "background_colour[0]" in output and "background_colour[2]" in output
    figure = imread(path)[..., :3]
    reds = (figure[..., 0] > 0.85) & (figure[..., 1] < 0.05) & (figure[..., 2] < 0.15)
    assert 0.1 < reds.mean() < 0.5


def test_rgb_data_and_a_delta_too_large_for_a_table(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.zeros(4, np.int64))
    path = tmp_path / "grid.pdf"
    output = show(
        "--data",
        tmp_path / "mine.npz",
        "--kernel",
        "hue + gaussian_noise(0.1)",
        "--points",
        9,
        "--draws",
        1,
        "--index",
        2,
        "--out",
        path,
    )
    assert path.read_bytes().startswith(b"%PDF")
    assert "361 components of delta" in output and "point" not in output


def test_images_resized_and_of_a_folder(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("robustperf.plot.image_grid", lambda x, *rest, **named: drawn.update(x=x))
    show("--kernel", "hue", "--domain", "brightness:80-", "--size", 20, "--rgb", "--points", 2)
    dataset = data.domain(data.load("digits"), "brightness:80-").limit(2)
    assert torch.equal(drawn["x"], dataset.resized(20).rgb().x)

    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.fromarray(np.full((9, 9, 3), 51, np.uint8)).save(tmp_path / "val" / "a" / "0.png")
    show("--kernel", "hue", "--data", tmp_path, "--size", 8, "--points", 2)
    assert torch.equal(drawn["x"], torch.full((1, 3, 8, 8), 0.2))


def test_one_delta_for_all(tmp_path):
    output = show("--kernel", "brightness + contrast", "--shared", "--draws", 2, "--out", tmp_path / "grid.png")
    assert "1 components of delta" in output and "with a shared delta" in output and "brightness, contrast" in output
    output = show(
        "--kernel", "brightness((0, 2)) + rotation(30)", "--shared", "--draws", 2, "--out", tmp_path / "grid.png"
    )
    assert "1 components of delta" in output and "brightness, rotation" in output
    assert "brightness((0, 2)).normalised() + rotation((-30, 30)).normalised()" in output.replace("\n", " ")


def test_kernels_that_are_no_programs(tmp_path):
    path = tmp_path / "grid.png"
    output = show("--kernel", "mnist_c('translate') + brightness", "--size", 16, "--draws", 2, "--out", path)
    assert "mnist_c('translate') + brightness((-0.4, 0.4))" in output and "3 components of delta" in output
    assert all(f"delta[{number}]" in output for number in range(3))
    output = show("--kernel", "mnist_c('stripe')", "--draws", 2, "--out", path)
    assert "0 components of delta" in output and "point" not in output
    assert imread(path).std() > 0.1


def test_the_gallery_of_mnist_c(tmp_path, monkeypatch):
    path = tmp_path / "sets.png"
    result = CliRunner().invoke(cli.app, ["nuisance", "mnist-c", "--points", "2", "--out", str(path)])
    assert result.exit_code == 0 and str(path) in result.output.replace("\n", "")
    height, width = imread(path).shape[:2]
    assert 17 * 100 < width < 17 * 200 and 200 < height < 500

    drawn = {}
    monkeypatch.setattr("robustperf.plot.image_grid", lambda x, made, **named: drawn.update(named, x=x, made=made))
    arguments = ["nuisance", "mnist-c", "--index", "597", "--seed", "3", "--size", "20"]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    x = data.load("digits").limit(599).resized(20).x[597:]
    assert torch.equal(drawn["x"], x) and len(drawn["names"]) == len(drawn["made"]) == 16
    for name, made in zip(drawn["names"], drawn["made"], strict=True):
        assert torch.equal(made, mnist_c(name).draw(x, key=3, index=torch.tensor([597, 598]))[0]), name
    for wrong, message in (
        (["--index", "599"], "--index: expected one of digits's 599 points"),
        (["--data", "mnist5"], "mnist5"),
    ):
        assert message in str(CliRunner().invoke(cli.app, ["nuisance", "mnist-c", *wrong]).exception)


def test_the_default_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nuisance.png" in show("--kernel", "fog", "--draws", 1)
    assert (tmp_path / "nuisance.png").read_bytes().startswith(b"\x89PNG")


def test_build_kernel():
    assert isinstance(build_kernel("hue"), Hue)
    both = build_kernel("rotation(10, outside='border') + translation(None, y=0.2)")
    assert isinstance(both, Compose) and both.dim == 2
    assert repr(both) == "rotation((-10, 10), outside='border') + translation(None, (-0.2, 0.2))"
    assert build_kernel("brightness + contrast", shared=True).dim == 1
    assert build_kernel("brightness((0, 5)) + rotation", shared=True).dim == 1
    with pytest.raises(ValueError, match="kernels: expected parts with the same distribution"):
        build_kernel("brightness + gaussian_noise", shared=True)
    (part,) = build_kernel("rotation + (hue + fog)").parts
    assert isinstance(part, ProgramKernel) and [step.name for step in part.program.steps] == ["rotation", "hue", "fog"]
    assert isinstance(build_kernel("rotation"), Rotation)


@pytest.mark.parametrize("text, place, message", [
    ("rotation(30", 8, "'(' was never closed"),
    ("rotation(30)*2", 12, "expected +"),
    ("brightness + rotation(30) - fog", 26, "expected +"),
    ("rotate(30)", 0, "expected one of affine, augmix, background_colour"),
    ("hue + rotate(30)", 6, "expected one of affine, augmix, background_colour"),
    ("brightness(0)", 0, "amount: expected a number above 0 or finite bounds with lower < upper, got 0"),
    ("fog + brightness(0)", 6, "amount: expected a number above 0"),
    ("brightness(x)", 11, "expected a number"),
    ("rotation(30, outside=border)", 21, "expected a number, a quoted string"),
    ("rotation(30, outside='mirror')", 0, "outside: expected 'zeros' or 'border', got 'mirror'"),
    ("rotation(angle=30)", 0, "unexpected keyword argument 'angle'"),
    ("mnist_c('snow')", 0, "name: expected one of identity, shot_noise"),
    ("l2_ball", 0, "missing 1 required positional argument: 'eps'"),
    ("rotation, hue", 8, "expected +, not a comma"),
    ("rotation +", 10, "invalid syntax"),
])  # fmt: skip
def test_errors_point_at_the_position(tmp_path, text, place, message):
    first, shown, caret = show("--kernel", text, "--out", tmp_path / "grid.png", code=1).splitlines()
    assert first.startswith("--kernel: ") and message in first
    assert shown == f"  {text}" and caret == "  " + " " * place + "^"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, message", [
    (["--kernel", ""], "--kernel: expected names joined by +, got ''"),
    (["--kernel", "hue(0.1)"], "--data: hue expected RGB images, 3 channels, got [1, 8, 8]"),
    (["--kernel", "blur(3)"], "--data: blur expected images larger than the blur's radius 9, got [1, 8, 8]"),
    (["--kernel", "background_colour + background_colour"],
     "--data: background_colour expected grey images, 1 channel, got [3, 8, 8]"),
    (["--kernel", "fog", "--index", 599], "--index: expected one of digits's 599 points, got 599"),
    (["--kernel", "fog", "--data", "mnist5"], "mnist5"),
    (["--kernel", "fog", "--split", "all"], "--split: expected one of train, test, got 'all'"),
    (["--kernel", "fog", "--out", "nowhere/grid.png"], "--out: expected one in a folder that exists"),
    (["--kernel", "fog", "--out", "grid.xyz"], "xyz"),
    (["--kernel", "fog", "--seed", 2**64], "--seed: expected an integer in 0..2^64-1"),
])  # fmt: skip
def test_errors(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    error = show("--draws", 1, *arguments, code=1)
    assert message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--draws", 0], ["--points", 0], ["--index", -1], ["--seed", -1]])
def test_numbers_out_of_range(arguments):
    assert arguments[0] in show("--kernel", "fog", *arguments, code=2)


def test_the_command_and_its_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["robustperf", "nuisance", "show", "--kernel", "hue"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr().err == "robustperf: --data: hue expected RGB images, 3 channels, got [1, 8, 8]\n"
