"""`robustperf compare`: models from files and from names; reports/test_comparison.py has the page."""

import json

import pytest
import torch

import robustperf as rp
from python_tests.cli.test_report import run
from python_tests.support.html_page import check_self_contained
from robustperf import nets
from robustperf.nets import weights_file

ARGUMENTS = ["--data", "digits", "--limit", "8", "--attacks", "fgsm", "--norm", "2", "--no-mnist-c",
             "--kernel", "blur(0.2)", "--samples", "4"]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        weights_file.save(path, nets.build("small-cnn", size=8))
    return paths


def test_files(tmp_path, files):
    out = tmp_path / "page.html"
    output = run("compare", *files, *ARGUMENTS, "--out", out)
    assert "A: margins in L₂" in output and "B: blur(0.2)" in output and f"page: {out}" in output
    page = check_self_contained(out.read_text(encoding="utf-8"))
    assert page.rows("models-table") == {"A": [str(files[0])], "B": [str(files[1])]}
    summary = json.loads((tmp_path / "page" / "summary.json").read_text())
    x = rp.data.load("digits").limit(8).x
    for path in files:
        model = weights_file.load(path)
        label = model.eval()(x).argmax(1)
        assert summary[str(path)]["accuracy"][0] == (label == rp.data.load("digits").y[:8]).double().mean().item()
        assert page.rows("facts-table")[f"weights of {path}, SHA-256"] == [weights_file.digest(path)]
    assert "robustperf compare " + " ".join(map(str, files)) in page.text
    run("compare", *files, *ARGUMENTS, "--out", out, "--resume")


def test_names_of_other_libraries(tmp_path, files, monkeypatch):
    """A library's model takes any size: the files' size is that of the images."""
    made = []

    def load_model(name, **_):
        torch.manual_seed(3)
        made.append(name)
        return rp.wrap(nets.build("small-cnn", size=16), image_shape=(1, 16, 16))

    monkeypatch.setattr("robustperf.adapters.load_model", load_model)
    run("compare", "timm:tiny", files[0], *ARGUMENTS, "--out", tmp_path / "page.html")
    assert made == ["timm:tiny"]
    page = check_self_contained((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "samples of shape 1 × 8 × 8" in " ".join(page.text.split())
    assert page.rows("models-table")["A"] == ["timm:tiny"]


def test_sizes_and_names_that_do_not_fit(tmp_path, files):
    torch.manual_seed(0)
    weights_file.save(tmp_path / "large.safetensors", nets.build("small-cnn", size=12))
    message = run("compare", files[0], tmp_path / "large.safetensors", *ARGUMENTS, "--out", tmp_path / "a.html", code=1)
    assert message.startswith("--size: expected images of one size") and "12 for" in message
    message = run("compare", files[0], files[0], *ARGUMENTS, "--out", tmp_path / "a.html", code=1)
    assert "expected at least two different ones" in message
    message = run("compare", files[0], tmp_path / "none", *ARGUMENTS, "--out", tmp_path / "a.html", code=1)
    assert "none" in message and not (tmp_path / "a").exists()
