"""Reports of the benchmarks: files, the quoted figure beside the measured one, options, names of devices."""

import json

import pytest
import torch

from benchmarks.common import machine, options, report
from benchmarks.common.machine import describe_machine, slug
from benchmarks.common.timing import interleave, take_turns
from robustperf.machine import processor

MACHINE = {
    "processor": "A CPU, family 25, model 1", "threads": 2, "instruction_set": "avx2", "gpu": None, "python": "3.12.1",
    "packages": {"torch": "2.13.0", "kornia": None},
}  # fmt: skip


@pytest.fixture
def quoted(monkeypatch):
    monkeypatch.setattr(report, "describe_machine", lambda: MACHINE)
    figures = {"trial": {"one": {"x faster": "1.7 to 2.4"}}}
    monkeypatch.setattr(report, "quoted_figures", lambda: figures)


def shown(output):
    trial = report.Report("trial", "A trial", output)
    trial.add(case="one", **{"x faster": 2.0, "ms": 3})
    trial.add(case="two", **{"x faster": 4.56789})
    trial.show(bars=("case", "x faster"))
    return trial


def test_a_report_is_printed_and_written_with_the_quoted_figure(tmp_path, capsys, quoted):
    shown(options.Output(tmp_path / "out", tmp_path / "json" / "all.json"))
    printed = capsys.readouterr()
    assert printed.err == "trial: case one, x faster 2 (1.7 to 2.4), ms 3\ntrial: case two, x faster 4.568\n"
    assert "x faster (README)" in printed.out and "A CPU, family 25, model 1, 2 threads, avx2" in printed.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"trial.json", "trial.md", "trial.png"}
    written = json.loads((tmp_path / "out" / "trial.json").read_text())
    assert written["rows"] == [{"case": "one", "x faster": 2.0, "ms": 3}, {"case": "two", "x faster": 4.56789}]
    assert written["machine"] == MACHINE and written["quoted"] == {"one": {"x faster": "1.7 to 2.4"}}
    table = (tmp_path / "out" / "trial.md").read_text()
    assert "- processor: A CPU, family 25, model 1\n" in table and "- torch: 2.13.0\n" in table
    assert "| case | x faster (README) | ms |" in table and "| one | 2 (1.7 to 2.4) | 3 |" in table
    assert json.loads((tmp_path / "json" / "all.json").read_text()) == {"trial": written}


def test_one_json_file_holds_all_reports_of_a_run(tmp_path, quoted):
    output = options.Output(json=tmp_path / "all.json")
    shown(output)
    second = report.Report("second", "Another", output)
    second.add(case="a", value=1)
    second.show()
    assert list(json.loads((tmp_path / "all.json").read_text())) == ["trial", "second"]


def test_no_figure_is_quoted_where_options_change_what_is_measured(capsys, quoted):
    shown(options.Output(comparable=False))
    printed = capsys.readouterr()
    assert "README" not in printed.out and "1.7 to 2.4" not in printed.err


@pytest.mark.parametrize(
    "arguments, comparable",
    [
        ([], True),
        (["--repeats", "1", "--threads", "1", "--json", "a.json"], True),
        (["--networks", "a"], True),
        (["--points", "3"], False),
    ],
)
def test_options_that_change_what_is_measured(arguments, comparable):
    parser = options.parser("A trial.\n\nMore.")
    options.add_timing(parser, repeats=3, threads=torch.get_num_threads())
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["a", "b"])
    before = torch.get_num_threads()
    try:
        parsed = options.parse(parser, selections=("networks",), arguments=arguments)
    finally:
        torch.set_num_threads(before)
    assert parsed.output.comparable is comparable and parser.description == "A trial."


def test_out_without_a_name_is_the_folder_of_this_cpu():
    parsed = options.parse(options.parser("A trial."), arguments=["--out"])
    assert parsed.output.folder == options.RESULTS / slug(processor())
    assert options.parse(options.parser("A trial."), arguments=[]).output.folder is None


@pytest.mark.parametrize(
    "name, folder",
    [
        ("AMD EPYC, family 25, model 1", "amd-epyc-family-25-model-1"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-cpu-2-70ghz"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("", "unknown"),
    ],
)
def test_names_of_folders_for_devices(name, folder):
    assert slug(name) == folder


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["processor"] == processor() and machine["packages"]["torch"] == torch.__version__
    assert machine["instruction_set"] in ("baseline", "avx2", "avx512", None)


def test_contenders_take_turns_and_warm_up():
    order = []
    times = interleave({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2, warmup=1)
    assert order == list("ababab") and set(times) == {"a", "b"} and all(seconds >= 0 for seconds in times.values())


def test_a_contender_that_raises_is_left_out_or_raises():
    values = iter([1.0, 2.0, 3.0])
    failures = []
    timed = {"good": lambda: next(values), "bad": lambda: 1 / 0}
    assert take_turns(timed, 3, lambda name, error: failures.append((name, type(error)))) == {"good": [1.0, 2.0, 3.0]}
    assert failures == [("bad", ZeroDivisionError)]
    with pytest.raises(ZeroDivisionError):
        take_turns({"bad": lambda: 1 / 0}, 1)


def test_other_instruction_sets_run_the_same_module_with_files_of_their_own(monkeypatch, tmp_path):
    class Native:
        isa = staticmethod(lambda: "avx2")
        isas = staticmethod(lambda: ("baseline", "avx2"))

    commands = []
    monkeypatch.setattr(options, "_native", Native)
    monkeypatch.setattr(options, "_program", lambda: "benchmarks.speed.best_of_k")
    monkeypatch.setattr(options.subprocess, "run", lambda command, env, check: commands.append((command, env)))
    parser = options.parser("A trial.")
    options.add_instruction_sets(parser)
    given = ["--all-instruction-sets", "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(options.sys, "argv", ["best_of_k.py", *given])
    options.run_other_instruction_sets(options.parse(parser))
    ((command, environment),) = commands
    assert command[1:3] == ["-m", "benchmarks.speed.best_of_k"] and environment["ROBUSTPERF_CPU"] == "baseline"
    again = options.parse(parser, arguments=[str(each) for each in command[3:]])
    assert again.json == tmp_path / "a_baseline.json" and not again.all_instruction_sets
    commands.clear()
    options.run_other_instruction_sets(options.parse(parser, arguments=[]))
    assert not commands


def test_peers_that_are_missing_or_broken_are_named(tmp_path, monkeypatch):
    (tmp_path / "installed_but_broken.py").write_text("import missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    peers = {"kornia": "no_such_module", "torch": "installed_but_broken", "numpy": "numpy"}
    monkeypatch.setattr(machine, "PEERS", peers)
    monkeypatch.setattr(machine, "_version", lambda name: None if name == "kornia" else "1.0")
    reason = "ModuleNotFoundError: No module named 'missing_dependency'"
    assert machine.missing_peers() == ["kornia", f"torch ({reason})"]


def test_the_machine_without_git(monkeypatch):
    commands = []
    monkeypatch.setattr(machine, "_output", lambda *command: commands.append(command))
    assert "commit" not in describe_machine(commit=False)
    assert not any(command[0] == "git" for command in commands)
