"""`robustperf bench`: its lines and files, the comparison, failures and bad input, on cases that take microseconds."""

import json

import pytest
from robustperf.benchmarks.common import cases as timing
from robustperf.benchmarks.common import machine, pictures
from robustperf.benchmarks.common.cases import EAGER, OURS, Case, Ratio
from robustperf.benchmarks.speed import all_cases, scale
from robustperf.benchmarks.speed.scale import Curve
from typer.testing import CliRunner

from robustperf import cli, plot


class Trial:
    """A module of cases; `slowdown` multiplies the time of ours, and `broken` are the contenders that raise."""

    def __init__(self):
        self.slowdown, self.broken, self.interrupt = 1.0, {}, None

    def cases(self, quick):
        size = "small" if quick else "large"
        return [Case(f"{name}, {size}", lambda name=name: self.contenders(name)) for name in ("first", "second")]

    def contenders(self, name):
        if name == self.interrupt:
            raise KeyboardInterrupt
        return {OURS: self.call(name, OURS, self.slowdown), EAGER: self.call(name, EAGER, 4.0)}

    def call(self, case, name, seconds):
        def run():
            if (case, name) in self.broken:
                raise RuntimeError(self.broken[case, name])
            return seconds

        return run


@pytest.fixture(autouse=True)
def few_peers(monkeypatch):
    """Importing the real ones takes seconds."""
    monkeypatch.setattr(machine, "PEERS", {"kornia": "no_such_module"})


@pytest.fixture
def trial(monkeypatch):
    """The only module of cases; a call takes the seconds that it returns. Only `test_a_real_group` draws pictures."""
    monkeypatch.setattr(pictures, "log_bars", lambda ratios, label: list(ratios))
    monkeypatch.setattr(pictures, "log_lines", lambda curves: len(curves))
    monkeypatch.setattr(plot, "save", lambda figure, path: path.write_text(str(figure)))
    module = Trial()
    monkeypatch.setattr(all_cases, "_MODULES", (module,))
    monkeypatch.setattr(timing, "batch_of", lambda calls, device, most: calls)
    monkeypatch.setattr(timing, "batch_seconds", lambda calls, device, sleep=0.0: calls[0]())
    curve = Curve("margins", "points", "ms", [32, 64], [3.0, 6.0], 1.0)
    monkeypatch.setattr(scale, "curves", lambda quick: {"points": lambda: curve, "memory": lambda: 1 / 0})
    return module


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, ["bench", *map(str, arguments)], prog_name="robustperf")
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_a_line_for_each_case_and_three_files(tmp_path, trial):
    lines = run("--quick", "--out", tmp_path / "out").splitlines()
    assert " threads, " in lines[0] and "; missing: kornia" in lines[0]
    assert lines[2:4] == [f"{name:<13}      1000 ms  4 x eager (4 to 4)" for name in ("first, small", "second, small")]
    names = {"bench.json", "bench.md", "bench.png"}
    assert names == {path.name for path in (tmp_path / "out").iterdir()} - {".lock"}
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert found["format"] == "robustperf bench" and found["quick"] and found["curves"] == []
    assert found["rows"][0]["faster"] == {"eager": {"median": 4, "low": 4, "high": 4}}
    assert found["machine"]["threads"] > 0 and "commit" not in found["machine"]
    assert "| first, small | 1000 | 4 (4 to 4) |  |" in (tmp_path / "out" / "bench.md").read_text()


def test_all_of_it_has_the_curves(tmp_path, trial):
    output = run("--out", tmp_path, code=1)
    assert "scale, memory  failed: ZeroDivisionError: division by zero" in output
    assert output.endswith("failed: scale, memory\n")
    assert "margins, ms by points: 32: 3, 64: 6; slope 1.00" in output and "first, large" in output
    assert (tmp_path / "scale.png").read_text() == "1"
    assert json.loads((tmp_path / "bench.json").read_text())["curves"][0]["slope"] == 1


def test_groups_and_the_list(tmp_path, trial):
    assert run("--list") == "first, large\nsecond, large\nscale, points\nscale, memory\n"
    assert run("second", "--quick", "--list") == "second, small\n"
    output = run("second", "--quick", "--out", tmp_path)
    assert "second, small" in output and "first" not in output
    assert "did you mean 'second'" in run("secondd", code=1)
    assert run("secondd", code=1).startswith("NAME: expected one of first, second, scale")


def test_the_number_of_threads_is_that_of_the_run_only(tmp_path, trial):
    import torch

    before = torch.get_num_threads()
    run("first", "--threads", before + 1, "--out", tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text())["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_a_slower_case_is_named_and_is_the_exit_status(tmp_path, trial):
    run("--quick", "--out", tmp_path / "old")
    old = tmp_path / "old" / "bench.json"
    same = run("--quick", "--out", tmp_path / "same", "--compare", old)
    assert "0 slower, 0 faster, 2 the same within the noise, 0 too noisy" in same
    trial.slowdown = 2.0
    slower = run("--quick", "--out", tmp_path / "slower", "--compare", old, code=1)
    assert f"slower than in {old}:" in slower and "2 slower, 0 faster, 0 the same" in slower
    assert "first, small: 2.00 times slower; 2 times as fast as eager (2 to 2), was 4 (4 to 4)" in slower
    trial.slowdown, trial.broken = 1.0, {("first", OURS): "no"}
    lost = run("--quick", "--out", tmp_path / "lost", "--compare", old, code=1)
    assert "first, small: RuntimeError: no" in lost and "1 the same" in lost


def test_another_machine_warns(tmp_path, trial):
    run("first", "--quick", "--out", tmp_path / "old")
    old = tmp_path / "old" / "bench.json"
    content = json.loads(old.read_text())
    content["machine"]["processor"] = "Another"
    old.write_text(json.dumps(content))
    output = run("first", "--quick", "--out", tmp_path / "new", "--compare", old)
    assert "robustperf: warning: processor was Another and is " in output


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path, trial):
    trial.broken = {("first", OURS): "ours", ("second", EAGER): "theirs"}
    output = run("--quick", "--out", tmp_path, code=1)
    assert "first, small   robustperf failed: RuntimeError: ours" in output
    assert "eager failed: RuntimeError: theirs" in output and "1000 ms" in output
    assert output.endswith("failed: first, small\n")
    trial.broken = {("second", EAGER): "theirs"}
    run("--quick", "--out", tmp_path / "again")  # a peer that fails is no failure


def test_an_interrupted_run_keeps_what_is_finished(tmp_path, trial):
    trial.interrupt = "second"
    output = run("--quick", "--out", tmp_path, code=130)
    assert "Interrupted: the finished cases are written." in output
    assert [row["case"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]] == ["first, small"]
    assert (tmp_path / "bench.md").exists() and (tmp_path / "bench.png").exists()


def test_the_results_of_an_earlier_run_are_kept(tmp_path, trial, monkeypatch):
    run("first", "--quick", "--out", tmp_path)
    before = (tmp_path / "bench.json").read_bytes()
    assert run("first", "--quick", "--out", tmp_path, code=1).startswith("--out: expected a folder without the results")
    assert (tmp_path / "bench.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    message = run("first", "--out", tmp_path / "file", code=1)
    assert message == f"--out: expected a folder, got a file, {tmp_path / 'file'}"
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert f"record: robustperf-bench-{number}/bench.json" in run("first", "--quick")


def test_a_comparison_that_cannot_be_is_refused_before_anything_runs(tmp_path, trial):
    trial.interrupt = "first"  # would end the command
    for text, message in {
        "{}": "--compare: expected a file of `robustperf bench`",
        '{"format": "robustperf bench", "version": 7}': "--compare: expected version 1 of the format, got 7",
    }.items():
        (tmp_path / "old.json").write_text(text)
        assert message in run("--quick", "--out", tmp_path / "out", "--compare", tmp_path / "old.json", code=1)
    assert "No such file" in run("--compare", tmp_path / "none.json", code=1)
    trial.interrupt = None
    run("--quick", "--out", tmp_path / "quick")
    message = run("--compare", tmp_path / "quick" / "bench.json", "--out", tmp_path / "out", code=1)
    assert message.startswith("--compare: expected a file with a case of this run, such as 'first, large'")
    assert not (tmp_path / "out").exists()


def test_a_real_group(tmp_path):
    output = run("ball_box_projection", "--quick", "--out", tmp_path)
    (row, _) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["case"] == "ball_box_projection, [64, 784] p=2" and row["case"] in output and row["failed"] == {}
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    ratio = Ratio(**row["faster"]["eager"])
    assert 0 < ratio.low <= ratio.median <= ratio.high
