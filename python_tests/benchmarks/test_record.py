"""The record of `robustperf bench` and its comparison: slowdowns, noise, missing cases, other machines, bad files."""

import json

import pytest
import torch

from benchmarks.common.cases import OURS, Ratio, Row, median_with_interval
from benchmarks.common.record import Record, check_common, compare, read, table

MACHINE = {"processor": "A CPU", "threads": 2, "instruction_set": "avx2", "python": "3.12.1",
           "packages": {"torch": "2.13.0", "robustperf": "0.1.0", "kornia": None}}  # fmt: skip
NAMES = ["a, 1", "b, 1", "c, 1"]


def row(name, ratios):
    return Row(name, "eager", 9, {OURS: 1.0, "eager": 5.0}, {"eager": median_with_interval(ratios)})


def noisy(times, seed, noise=0.05, count=9):
    """Ratios of one run: `times`, with noise from turn to turn."""
    generator = torch.Generator().manual_seed(seed)
    return (times * (1 + noise * torch.randn(count, generator=generator))).tolist()


def record(*rows, machine=MACHINE, quick=True):
    return Record(machine, quick, ["foolbox"], list(rows))


def test_a_slowdown_is_named_and_noise_is_not():
    old = record(*(row(name, noisy(5.0, seed)) for seed, name in enumerate(NAMES)))
    new = record(row("a, 1", noisy(5.0, 10)), row("b, 1", noisy(3.0, 11)), row("c, 1", noisy(9.0, 12)))
    found = compare(old, new, NAMES)
    assert [each.case for each in found.slower] == ["b, 1"] and [each.case for each in found.faster] == ["c, 1"]
    assert found.same == 1 and found.lost == found.noisy == found.warnings == []
    assert found.slower[0].times_slower == pytest.approx(5 / 3, rel=0.1)
    assert str(found.slower[0]).startswith("b, 1: 1.") and " times slower; " in str(found.slower[0])
    assert " times faster; " in str(found.faster[0]) and "times as fast as eager" in str(found.faster[0])


def test_noise_alone_is_named_in_few_of_many_runs():
    """Intervals of 95 % are apart in fewer than 5 % of the runs of equal code, whatever the noise."""
    for noise in (0.02, 0.3):
        wrong = 0
        for seed in range(200):
            old, new = (record(row("a, 1", noisy(5.0, 2 * seed + side, noise))) for side in (0, 1))
            found = compare(old, new, ["a, 1"])
            wrong += len(found.slower) + len(found.faster)
        assert wrong <= 10


def test_a_change_below_a_tenth_is_none_however_precise():
    old, new = record(row("a, 1", [5.0] * 9)), record(row("a, 1", [4.6] * 9))
    assert compare(old, new, ["a, 1"]).same == 1
    assert len(compare(old, record(row("a, 1", [4.5] * 9)), ["a, 1"]).slower) == 1


def test_a_busy_machine_is_no_change():
    """Where an interval is wider than a factor of two, the load decides the median."""
    old, new = record(row("a, 1", [3.0, 4.0, 5.0, 6.0, 7.0])), record(row("a, 1", [1.0] * 5))
    for found in (compare(old, new, ["a, 1"]), compare(new, old, ["a, 1"])):
        assert found.noisy == ["a, 1"] and found.slower == found.faster == [] and found.same == 0


def test_the_largest_slowdown_comes_first():
    old = record(*(row(name, [5.0] * 9) for name in NAMES))
    new = record(*(row(name, [ratio] * 9) for name, ratio in zip(NAMES, (4.0, 1.0, 2.0), strict=True)))
    assert [each.case for each in compare(old, new, NAMES).slower] == ["b, 1", "c, 1", "a, 1"]


def test_a_case_that_was_lost_is_named_with_the_reason():
    old = record(*(row(name, [5.0] * 9) for name in NAMES))
    failed = Row("b, 1", "eager", failed={OURS: "ValueError: no"})
    found = compare(old, record(row("a, 1", [5.0] * 9), failed), NAMES)
    assert found.lost == ["b, 1: ValueError: no", "c, 1: not measured"] and found.same == 1
    # a case that this run was not to measure is not missing
    assert compare(old, record(row("a, 1", [5.0] * 9)), ["a, 1"]).lost == []


def test_another_machine_warns():
    old = record(row("a, 1", [5.0] * 9))
    packages = {**MACHINE["packages"], "torch": "2.14.0", "robustperf": "0.2.0", "kornia": "0.9"}
    new = record(row("a, 1", [5.0] * 9), machine={**MACHINE, "processor": "Another", "packages": packages})
    warnings = compare(old, new, ["a, 1"]).warnings
    assert warnings == ["processor was A CPU and is Another", "torch was 2.13.0 and is 2.14.0"]


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "bench.json"
    old = record(row("a, 1", noisy(5.0, 0)), Row("b, 1", "eager", failed={OURS: "ValueError: no"}))
    old.curves.append({"curve": "margins", "over": "points", "unit": "ms", "sizes": [1, 2], "values": [3.0, 6.0],
                       "slope": 1.0})  # fmt: skip
    path.write_text(old.text())
    assert read(path) == old


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "compare: expected a file of `robustperf bench`, got .*Expecting value"),
        ("[1]", "compare: expected a file of `robustperf bench`"),
        ("{}", "compare: expected a file of `robustperf bench`, got .*it has no format"),
        ('{"format": "other"}', "its format is 'other'"),
        ('{"format": "robustperf bench", "version": 2}', "compare: expected version 1 of the format, got 2 in "),
        ('{"format": "robustperf bench", "version": 1}', "compare: .* is damaged: it has no machine"),
        ("\xff", "compare: expected a file of `robustperf bench`"),
    ],
)
def test_a_file_that_is_no_record(tmp_path, text, message):
    path = tmp_path / "bench.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[0].update(faster={"eager": {"median": float("nan"), "low": 1, "high": 2}}),
        lambda rows: rows[0].update(faster={"eager": {"median": 3, "low": 1, "high": 2}}),
        lambda rows: rows[0].update(faster={"eager": {"median": "5", "low": 1, "high": 2}}),
        lambda rows: rows[0].update(faster=None),
        lambda rows: rows[0].update(unknown=1),
        lambda rows: rows[0].pop("case"),
        lambda rows: rows.append(3),
    ],
)
def test_a_damaged_row(tmp_path, change):
    content = json.loads(record(row("a, 1", [5.0] * 9)).text())
    change(content["rows"])
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="compare: .*bench.json is damaged"):
        read(path)


def test_a_file_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="expected a file, found a folder"):
        read(tmp_path)


def test_records_without_a_common_case(tmp_path):
    old = record(*(row(name, [5.0] * 9) for name in NAMES))
    check_common(old, ["c, 1", "d, 1"], tmp_path)
    with pytest.raises(ValueError, match="compare: expected a file with a case of this run, such as 'd, 1', got"):
        check_common(old, ["d, 1"], tmp_path)
    failed = record(Row("d, 1", "eager", failed={OURS: "no"}))
    with pytest.raises(ValueError, match="whose 1 cases of --quick are others"):
        check_common(failed, ["d, 1"], tmp_path)


def test_the_table_has_every_ratio_failure_and_curve():
    ratios = {"eager": Ratio(2.0, 1.9, 2.1), "kornia": Ratio(8.0, 7.0, 9.0)}
    times = {OURS: 0.5, "eager": 1.0, "kornia": 4.0}
    measured = Row("a, 1", "eager", 9, times, ratios, {"compiled": "no compiler"})
    found = record(measured)
    found.curves.append({"curve": "margins", "over": "points", "unit": "ms", "sizes": [32, 64], "values": [3.0, 6.0],
                         "slope": 1.0})  # fmt: skip
    lines = table(found).splitlines()
    assert "| case | ms | x eager | x kornia | failed |" in lines and "- processor: A CPU" in lines
    assert "| a, 1 | 0.5 | 2 (1.9 to 2.1) | 8 | compiled: no compiler |" in lines
    assert "- missing: foolbox" in lines and lines[0] == "# robustperf bench --quick"
    assert lines[-3:] == ["| 32 | 3 |", "| 64 | 6 |", "| slope | 1 |"]
