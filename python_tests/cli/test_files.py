"""The command line and its environment: full disks, folders in use, figures that fail, terminals, paths with ~."""

import io
import json
import os
import resource
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from robustperf import cli, nets
from robustperf.nets import weights_file

FEW = ["--data", "digits", "--limit", "60", "--batch-size", "20"]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    weights_file.save(path, nets.build("small-cnn", size=8))
    return path


def run(*arguments, code=0, **env):
    """Output and errors of `robustperf ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200", **env})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def margins(weights, out, *more, **kwargs):
    return run("margins", *FEW, "--attacks", "fgsm", "--checkpoint", weights, "--out", out, *more, **kwargs)


@pytest.fixture
def disk():
    """Lets no file grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_loses_no_batch(weights, tmp_path, disk):
    out = tmp_path / "out"
    disk(2000)
    message = margins(weights, out, code=1)
    assert f"out: {out}/parts/000000000.npz could not be written" in message
    assert f"0 of 3 batches are saved in {out}; --resume continues from them" in message
    disk(4800)  # enough for a part, and not for all in one file
    message = margins(weights, out, "--resume", code=1)
    assert f"out: {out}/margins.npz could not be written" in message and "3 of 3 batches are saved" in message
    disk(10_000)  # enough for all but the figure
    output = margins(weights, out, "--resume")
    assert "3 of 3 batches were done before" in output
    assert f"robustperf: warning: the figure {out}/margins.png could not be drawn" in output
    assert "curve:" not in output and json.loads((out / "summary.json").read_text())["points"] == 60
    assert {path.name for path in out.iterdir()} - {".lock"} == {"settings.json", "margins.npz", "summary.json"}
    disk(resource.RLIM_INFINITY)
    margins(weights, out, "--resume")
    margins(weights, tmp_path / "whole")
    ours, whole = np.load(out / "margins.npz"), np.load(tmp_path / "whole/margins.npz")
    assert all(np.array_equal(ours[name], whole[name]) for name in whole.files)


def test_margins_in_a_folder_in_use_are_refused(weights, tmp_path):
    out = tmp_path / "out"
    margins(weights, out)
    with FileLock(out / ".lock"):
        assert f"--out: {out} is in use by another process" == margins(weights, out, "--resume", code=1)
        assert f"--out: {out} is in use by another process" == run("demo", "--out", out, code=1)
    margins(weights, out, "--resume")


def test_a_run_resumes_with_the_same_weights_whatever_their_header(weights, tmp_path, monkeypatch):
    (tmp_path / "our_networks.py").write_text(
        "from robustperf import nets\nmake = other = lambda: nets.build('small-cnn', size=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out, model = tmp_path / "out", ("--model", "our_networks:make")
    margins(weights, out, *model)
    save_file(load_file(weights), tmp_path / "copy.safetensors", metadata={"format": "pt"})
    margins(tmp_path / "copy.safetensors", out, *model, "--resume")
    output = margins(weights, out, "--model", "our_networks:other", "--resume", code=1)
    assert "network was 'our_networks:make' and is 'our_networks:other'" in output
    changed = load_file(weights)
    next(iter(changed.values())).add_(1)
    save_file(changed, tmp_path / "copy.safetensors")
    assert "checkpoint was" in margins(tmp_path / "copy.safetensors", out, *model, "--resume", code=1)


def test_truncated_settings_are_named(weights, tmp_path):
    out = tmp_path / "out"
    margins(weights, out)
    (out / "settings.json").write_text('{"data": "dig')
    kept = (out / "margins.npz").read_bytes()
    message = margins(weights, out, "--resume", code=1)
    assert f"out: {out}/settings.json is damaged" in message and (out / "margins.npz").read_bytes() == kept


@pytest.mark.parametrize("model, message", [
    ("subprocess:check_output", "a function without arguments that makes a network, got 'subprocess:check_output': "
                                "TypeError"),
    ("math:pi", "a function without arguments that makes a network, got 'math:pi': TypeError"),
    ("os:getcwd", "got a str from os:getcwd"),
    ("ends:make", "MODULE:FUNCTION that can be imported, got 'ends:make': SystemExit: 3"),
    ("fails:make", "got 'fails:make': ZeroDivisionError: division by zero (" + os.sep),
    ("torch.nn:Linear", "got 'torch.nn:Linear': TypeError"),
    ("fails:mkae", "AttributeError: module 'fails' has no attribute 'mkae'; did you mean 'make'?"),
    ("nowhere_at_all:make", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ("fails", "expected MODULE:FUNCTION, such as mynet:make, got 'fails'"),
    (":make", "expected MODULE:FUNCTION, such as mynet:make, got ':make'"),
])  # fmt: skip
def test_errors_of_the_model_option(weights, tmp_path, monkeypatch, model, message):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)")
    (tmp_path / "fails.py").write_text("def make(): return 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    output = margins(weights, tmp_path / "out", "--model", model, code=1)
    assert output.startswith("--model: ") and message in output and "\n" not in output
    assert "options.py" not in output and "<frozen" not in output  # no place of the library's or of Python's own
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments, kept, code", [
    (["margins", *FEW, "--attacks", "fgsm", "--checkpoint", "model.safetensors", "--out", "out"], "summary.json", 0),
    (["train", *FEW, "--network", "small-cnn", "--epochs", "1", "--out", "out"], "model.safetensors", 0),
    (["transfer", "--code", "8", "--width", "4", "--hidden", "16", "--epochs", "1", "--limit", "20", "--clean", "200",
      "--shifted", "20", "--out", "out"], "summary.json", 0),
    (["nuisance", "show", "--kernel", "rotation(30)", "--out", "a.png"], None, 0),
    (["data", "domains", "digits", "--out", "a.png"], None, 0),
    (["nuisance", "mnist-c", "--out", "a.png"], None, 1),
], ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "")  # fmt: skip
def test_a_figure_that_fails_is_a_warning(weights, tmp_path, monkeypatch, arguments, kept, code):
    def no_tex(figure, path, **options):
        raise RuntimeError("latex was not able to process:\n\\q")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", no_tex)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == code
    (line,) = [line for line in result.output.splitlines() if line.startswith("robustperf: warning: the figure ")]
    assert line.endswith(r"could not be drawn: latex was not able to process: \q")
    assert kept is None or (tmp_path / "out" / kept).exists()
    assert "figure:" not in result.output and "curves:" not in result.output and "curve:" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [["nuisance", "show", "--kernel", "rotation(30)"], ["nuisance", "mnist-c"], ["data", "domains", "digits"]],
)
def test_a_figure_of_an_unknown_format_is_an_error_before_any_work(tmp_path, arguments):
    assert "expected the suffix of an image format" in run(*arguments, "--out", tmp_path / "a.b", code=1)
    assert "in a folder that exists" in run(*arguments, "--out", tmp_path / "none/a.png", code=1)


def through_main(monkeypatch, encoding, *arguments):
    """(exit code, bytes) of the command in a terminal of this encoding."""
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding, write_through=True))
    monkeypatch.setattr(sys, "argv", ["robustperf", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0, written.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp1252", "utf-8"])
def test_help_in_every_encoding(monkeypatch, encoding):
    for command in ([], ["train"], ["margins"], ["transfer"], ["nuisance", "show"], ["data", "domains"]):
        code, output = through_main(monkeypatch, encoding, *command, "--help")
        assert code == 0 and b"Usage" in output


@pytest.mark.parametrize("encoding, name, shown", [
    ("cp1252", "выход", rb"\u0432\u044b\u0445\u043e\u0434"), ("ascii", "größe", rb"gr\xf6\xdfe"),
    ("utf-8", os.fsdecode(b"\xff\xfe"), rb"\udcff\udcfe"),  # of a file system in another encoding
])  # fmt: skip
def test_a_name_that_the_terminal_cannot_encode(weights, tmp_path, monkeypatch, encoding, name, shown):
    monkeypatch.chdir(tmp_path)
    code, output = through_main(
        monkeypatch, encoding, "margins", *FEW, "--attacks", "fgsm", "--checkpoint", weights, "--out", name
    )
    assert code == 0 and shown + b"/summary.json" in output.replace(b"\n", b"")
    assert {"summary.json", "margins.png"} <= set(os.listdir(name))


def test_home_is_expanded(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    weights.rename(home / "model.safetensors")
    np.savez(home / "own.npz", images=np.zeros((60, 8, 8), np.uint8), labels=np.arange(60) % 10)
    monkeypatch.setenv("HOME", str(home))
    margins("~/model.safetensors", "~/out", "--data", "~/own.npz")
    run("evaluate", "--checkpoint", "~/model.safetensors", "--data", "~/own.npz", "--out", "~/figures.json")
    run("train", *FEW, "--network", "small-cnn", "--epochs", 1, "--out", "~/trained")
    run("nuisance", "show", "--kernel", "rotation(30)", "--out", "~/grid.png")
    found = set(os.listdir(home))
    assert found == {"model.safetensors", "own.npz", "out", "figures.json", "trained", "grid.png"}
    assert os.listdir() == ["home"]
    for at in ({"ROBUSTPERF_DATA": "~/data"}, {}):
        output = run(
            "evaluate",
            "--checkpoint",
            "~/model.safetensors",
            "--data",
            "mnist",
            *([] if at else ["--data-root", "~/data"]),
            code=1,
            **at,
        )
        assert f"no file {home}/data/mnist/" in output


@pytest.mark.parametrize("option", ["--attacks", "--kernel"])
def test_unbalanced_brackets_are_one_line(weights, tmp_path, option):
    text = "(" * 50_000 + "fgsm" + ")" * 50_000
    if option == "--attacks":
        output = margins(weights, tmp_path / "out", option, text, code=1)
    else:
        output = run("nuisance", "show", option, text, "--out", tmp_path / "a.png", code=1)
    assert output.startswith(f"{option}: ") and ("nested" in output or "parentheses" in output)


@pytest.mark.parametrize("error, line", [
    (MemoryError("Unable to allocate 8 TiB"), "MemoryError: Unable to allocate 8 TiB"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't\n allocate memory: you tried"),
     "RuntimeError: [enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
])  # fmt: skip
def test_out_of_memory_is_one_line(monkeypatch, error, line):
    def fails():
        raise error

    monkeypatch.setattr(cli, "app", fails)
    code, output = through_main(monkeypatch, "utf-8")
    assert code == 1 and output.decode() == f"robustperf: {line}\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    def fails():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(RuntimeError, match="mat1"):
        cli.main()


def test_a_checkpoint_with_wrong_sizes_is_one_line(weights, tmp_path):
    save_file(
        {"fc.weight": torch.zeros(1)},
        weights,
        metadata={"architecture": "small-cnn", "arguments": '{"size": 8, "classes": 30000000}'},
    )
    output = margins(weights, tmp_path / "out", code=1)
    assert output.startswith(f"--checkpoint: the weights in {weights} do not fit SmallCNN") and "\n" not in output


def test_integers_instead_of_weights_are_one_line(tmp_path, monkeypatch):
    save_file({"1.weight": torch.ones(10, 64).int(), "1.bias": torch.zeros(10)}, tmp_path / "m.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "linear_network.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    output = margins(tmp_path / "m.safetensors", tmp_path / "out", "--model", "linear_network:make", code=1)
    assert "do not fit Sequential: 1.weight: expected torch.float32, found torch.int32" in output
