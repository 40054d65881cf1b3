"""`robustperf report`: its files, the command that it shows, and its errors; reports/test_report.py has the page."""

import json
import shlex

import pytest
import torch
from typer.testing import CliRunner

import robustperf as rp
from python_tests.support.html_page import check_self_contained
from robustperf import cli, nets
from robustperf.nets import weights_file

ARGUMENTS = ["--data", "digits", "--limit", "12", "--attacks", "fgsm", "--norm", "2", "--norm", "inf", "--no-mnist-c",
             "--kernel", "rotation(9) + blur(0.2)", "--samples", "4", "--examples", "2", "--seed", "5"]  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "a <b>model.safetensors"
    weights_file.save(path, nets.build("small-cnn", size=8))
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], prog_name="robustperf")
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_on_the_page_makes_it_again(tmp_path, weights):
    out = tmp_path / "page.html"
    output = run("report", "--checkpoint", weights, *ARGUMENTS, "--out", out)
    assert f"page: {out}" in output and "margins in L₂" in output
    page = check_self_contained(out.read_text(encoding="utf-8"))
    summary = json.loads((tmp_path / "page" / "summary.json").read_text(), parse_constant=pytest.fail)
    dataset = rp.data.load("digits").limit(12)
    with pytest.warns(RuntimeWarning, match="no adversarial example was found"):
        ours = rp.margins(weights_file.load(weights), dataset.x, attacks="fgsm", key=5)
    assert summary["margins"]["2"]["median"] == ours.median and list(summary["margins"]) == ["2", "inf"]
    assert page.rows("margins-table-2")["median margin"] == [f"{ours.median:.4g}"]
    assert set(page.rows("kernels-table")) == {"kernel", "rotation(9) + blur(0.2)"}
    assert page.rows("facts-table")["weights, SHA-256"] == [weights_file.digest(weights)]
    assert f"Robustness of {weights}" in page.text and not (tmp_path / "page" / "margins 2" / "parts").exists()

    command = shlex.split(page.text[page.text.index("robustperf report") :].split("\n")[0])
    place = command.index("--out") + 1
    assert command[0] == "robustperf" and command[place] == str(out)
    command[place] = str(tmp_path / "again.html")
    run(*command[1:])
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}


def test_resume(tmp_path, weights, monkeypatch):
    arguments = ["report", "--checkpoint", weights, *ARGUMENTS, "--out", tmp_path / "page.html"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("robustperf.reports.measure.basic_robustness", interrupt)
        output = run(*arguments, code=130)
    assert f"finished parts are saved in {tmp_path / 'page'}; --resume continues from them" in " ".join(output.split())
    assert "--resume resumes it" in run(*arguments, code=1)
    assert "--seed was 5 and is 6" in run(*arguments, "--seed", 6, "--resume", code=1)
    monkeypatch.setattr("robustperf.reports.measure.margins", interrupt)  # they are saved
    run(*arguments, "--resume")
    assert "--resume" not in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("change, message", [
    (["--out", "page.txt"], "--out: expected a file that ends in .html, got page.txt"),
    (["--out", "nowhere/page.html"], "--out: expected a file in a folder that exists, got nowhere/page.html"),
    (["--kernel", "rotaton(3)"], "--kernel: "), (["--norm", "7"], "--norm: expected 0, 1, 2 or inf, got '7'"),
    (["--attacks", "fgms"], "--attacks: expected one of"), (["--kernel", "hue(0.1)"], "hue expected RGB images"),
    (["--confidence", "2"], "--confidence: "), (["--device", "abacus"], "--device: expected"),
], ids=lambda value: value[1] if isinstance(value, list) else "")  # fmt: skip
def test_errors(tmp_path, monkeypatch, weights, change, message):
    monkeypatch.chdir(tmp_path)
    assert message in run("report", "--checkpoint", weights, *ARGUMENTS, "--out", "page.html", *change, code=1)
    assert not list(tmp_path.glob("*.html"))
