"""What `benchmarks.gpu` writes: replaced atomically, with every log, within a limit of bytes."""

import io
import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu.checks import merged
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.results import Results, pack

ROOT = Path(__file__).parents[2]
FILES = ["gpu.json", "gpu.md", "logs.tgz"]


@pytest.fixture
def results(tmp_path):
    (tmp_path / "logs").mkdir()
    return Results(
        tmp_path / "out",
        "A trial",
        ("cuda", "triton"),
        {"gpu": "A | B", "driver": None, "packages": {"torch": "2.11", "kornia": None}},
        [("one", 10.0), ("two", 20.0)],
        tmp_path / "logs",
    )


def written(results):
    """(JSON, Markdown), every table of which has rows as long as its head."""
    markdown = (results.out / "gpu.md").read_text(encoding="utf-8")
    columns = None
    for line in markdown.splitlines():
        cells = line.replace("\\|", "").count("|") if line.startswith("|") else None
        assert columns is None or cells in (columns, None), line
        columns = cells
    assert sorted(path.name for path in results.out.iterdir()) == FILES
    return json.loads((results.out / "gpu.json").read_text(encoding="utf-8")), markdown


def unpacked(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def test_figures_reach_both_files(results, tmp_path):
    figures = Figures(tmp_path / "figures.json")
    figures.limits({"copy": 2e12, "read": 2.5e12, "launch": 2e-6, "integers": None})
    figures.time("case", (1e-3, "2 GB / copy 2000 GB/s"), {"cuda": 2e-3}, {"peer": 4e-3}, {"cuda": 1})
    figures.target("bandwidth", 85, {"cuda": 50.0, "triton": 90.0}, "%", predicted="55-65 %")
    figures.target("launches", 1, {"cuda": 1}, "", at_most=True)
    figures.could_not_run("kornia", "kornia is not installed")
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found.pop("lost") is None
    results.add({**found, "limits": [{"part": "one", **found["limits"]}]})
    content, markdown = written(results)
    (row,) = content["times"]
    assert row["us"] == {"cuda": 2000.0} and row["over_floor"] == {"cuda": 2.0} and row["floor_us"] == 1000.0
    assert "| case | 1000 | 2 GB / copy 2000 GB/s | 2000 |  | 2 |  | 1 |  | peer 4000 |" in markdown
    assert "| bandwidth | ≥ 85 % | 55-65 % | 50, not met | 90, met |" in markdown
    assert "| launches | ≤ 1 |  | 1, met | not measured |" in markdown
    assert "| one | 2000 | 2500 | 2 |" in markdown
    assert "could not run: kornia because kornia is not installed" in markdown
    assert "- gpu: A | B\n- torch: 2.11\n\n" in markdown


def test_the_last_table_shows_what_was_not_reached(results):
    results.part("one", 3.21, "done")
    results.add({"not_reached": [{"what": "tests", "names": [f"test {number}" for number in range(30)]}]})
    content, markdown = written(results)
    assert markdown.endswith(
        "| part | limit, s | seconds | outcome |\n| --- | --- | --- | --- |\n"
        "| one | 10 | 3.2 | done |\n| two | 20 |  | not reached |\n"
    )
    assert "- tests, 30: test 0, test 1, " in markdown and "test 19, ... (all in gpu.json)" in markdown
    assert content["not_reached"][0]["names"][29] == "test 29"


def test_all_output_of_the_parts_is_kept(results):
    logs = {"one.log": b"".join(b"line %d\n" % number for number in range(10_000)), "two.log": b""}
    for name, data in logs.items():
        (results.logs / name).write_bytes(data)
    (results.logs / "one.json").write_text("{}")
    results.write()
    assert unpacked((results.out / "logs.tgz").read_bytes()) == logs


def test_logs_that_are_too_long_lose_the_middle_of_the_longest(tmp_path):
    noise = random.Random(0).randbytes(200_000)
    (tmp_path / "long.log").write_bytes(noise)
    (tmp_path / "short.log").write_bytes(b"short")
    packed = pack(tmp_path, 100_000)
    logs = unpacked(packed)
    assert len(packed) <= 100_000 and logs["short.log"] == b"short"
    head, _, rest = logs["long.log"].partition(b"\n[")
    left_out, _, tail = rest.partition(b" bytes are left out]\n")
    assert noise.startswith(head) and noise.endswith(tail) and len(head) > 20_000
    assert len(head) + len(tail) + int(left_out) == len(noise)


def test_a_killed_program_leaves_complete_files(tmp_path):
    code = f"""
import itertools, pathlib, sys
from benchmarks.gpu.results import Results
folder = pathlib.Path({str(tmp_path)!r})
results = Results(folder / "out", "A trial", ("cuda",), {{}}, [("one", 1.0)], folder)
print("started", flush=True)
for number in itertools.count():
    with (folder / "one.log").open("a") as log: log.write("x" * 1000)
    results.add({{"failures": [{{"name": str(number), "last_lines": ["y" * 1000]}}]}})
"""
    for delay in (0.1, 0.33):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout.readline() == b"started\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        names = [row["name"] for row in json.loads((tmp_path / "out" / "gpu.json").read_text())["failures"]]
        assert names == [str(number) for number in range(len(names))]
        assert (tmp_path / "out" / "gpu.md").read_text().endswith("|\n")
        logs = unpacked((tmp_path / "out" / "logs.tgz").read_bytes())
        assert set(logs.get("one.log", b"x")) == {ord("x")}


def test_two_runs_of_a_part_are_one_row_a_case(tmp_path):
    def figures(name, **seconds):
        made = Figures(tmp_path / name)
        made.limits({"copy": len(seconds)})
        made.time("both", (1.0, "a floor"), seconds)
        made.target("bandwidth", 85, {backend: 90.0 for backend in seconds}, "%")
        return made

    first = figures("first", cuda=2.0)
    first.could_not_run("another, cuda", "an illegal address")
    second = figures("second", triton=3.0)
    second.time("another", (1.0, "a floor"), {"triton": 5.0})
    found = merged(first.found, second.found)
    assert [row["case"] for row in found["times"]] == ["both", "another"]
    assert found["times"][0]["us"] == {"cuda": 2e6, "triton": 3e6} and found["times"][1]["us"] == {"triton": 5e6}
    assert found["targets"][0]["met"] == {"cuda": True, "triton": True} and len(found["targets"]) == 1
    assert found["could_not_run"] == [{"what": "another, cuda", "reason": "an illegal address"}]
