"""`robustperf bench`: the library's operations and jobs beside what a user would write instead, on this machine."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.options import draw_picture, say
from robustperf.files import atomic_write, lock_folder, reporting_saved, user_path

if TYPE_CHECKING:
    from rich.console import Console

    from robustperf.benchmarks.common.cases import Case, Row
    from robustperf.benchmarks.common.record import Comparison, Record

RECORD, TABLE, PICTURE, SCALE_PICTURE = "bench.json", "bench.md", "bench.png", "scale.png"
FOLDER = "robustperf-bench"
LEGEND = "N x NAME: robustperf is N times as fast as NAME; in brackets: the noise"


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Measure these groups of cases only, such as best_of_k, margins or scale, the curves of time and "
            "memory; --list shows all.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, and no scale curves unless named: about two minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=user_path,
            help=f"The folder for {RECORD}, {TABLE} and {PICTURE}; by default a new one, {FOLDER}-1 and so on.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=user_path,
            help=f"A {RECORD} of an earlier run: name the cases that became slower beyond the noise, and exit with "
            "status 1 if there are any.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of torch and of the library.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the cases and exit.")] = False,
) -> None:
    """Measure operations and jobs beside eager PyTorch, torch.compile and the other libraries that are installed."""
    import torch
    from rich.console import Console

    from robustperf.benchmarks.common import record
    from robustperf.benchmarks.common.machine import describe_machine, missing_peers
    from robustperf.benchmarks.speed.all_cases import chosen

    console = Console()
    cases, with_curves = chosen(names or (), quick)
    if listed:
        from robustperf.benchmarks.speed.scale import curves

        for name in [*(case.name for case in cases), *(f"scale, {curve}" for curve in curves(quick) if with_curves)]:
            say(console, name)
        return
    wanted = [case.name for case in cases]
    old = None if compare is None else record.read(compare)
    if old is not None and compare is not None:
        record.check_common(old, wanted, compare)
    folder = _folder(out)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    new = record.Record(describe_machine(commit=False), quick, missing_peers())
    interrupted = False
    try:
        with lock_folder(folder), reporting_saved(lambda: f"finished cases are saved in {folder / RECORD}"):
            say(console, _machine_line(new))
            say(console, LEGEND)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of results that nobody sees, such as points without a margin
                    _measure(console, new, cases, with_curves, folder)
            except KeyboardInterrupt:
                interrupted = True
            _write(console, new, folder)
    finally:
        torch.set_num_threads(threads_before)
    if interrupted:
        say(console, "Interrupted: the finished cases are written.")
        raise typer.Exit(130)
    failed = [row.case for row in new.rows if not row.ms]
    if failed:
        say(console, f"failed: {'; '.join(failed)}")
    slower = False
    if old is not None:
        found = record.compare(old, new, wanted)
        _say_comparison(console, found, compare)
        slower = bool(found.slower or found.lost)
    if failed or slower:
        raise typer.Exit(1)


def _folder(out: Path | None) -> Path:
    """The folder for the results. Raises ValueError if it holds those of an earlier run."""
    if out is None:
        return next(folder for n in count(1) if not (folder := Path(f"{FOLDER}-{n}")).exists())
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got a file, {out}")
    if (out / RECORD).exists():
        raise ValueError(f"out: expected a folder without the results of an earlier run, got {out} with {RECORD}")
    return out


def _measure(console: Console, new: Record, cases: list[Case], with_curves: bool, folder: Path) -> None:
    """Adds every finished case to the record, and writes its file after each."""
    from robustperf.benchmarks.common.cases import measure

    width = max((len(case.name) for case in cases), default=0)
    for case in cases:
        row = measure(case, seconds=0.3 if new.quick else 2.0)
        new.rows.append(row)
        say(console, _line(row, width))
        _save(new, folder)
    if not with_curves:
        return
    from robustperf.benchmarks.common.cases import EAGER, OURS, Row
    from robustperf.benchmarks.speed.scale import curves
    from robustperf.check import line_of

    for name, measure_curve in curves(new.quick).items():
        try:
            curve = measure_curve()
        except Exception as error:
            reason = f"{type(error).__name__}: {line_of(error)}"
            new.rows.append(Row(f"scale, {name}", EAGER, failed={OURS: reason}))
            say(console, f"scale, {name}  failed: {reason}")
        else:
            new.curves.append(asdict(curve))
            say(console, str(curve))
        _save(new, folder)


def _save(new: Record, folder: Path) -> None:
    with atomic_write(folder / RECORD) as partial:
        partial.write_text(new.text(), encoding="utf-8")


def _line(row: Row, width: int) -> str:
    """A finished case."""
    from robustperf.benchmarks.common.cases import COMPILED, OURS

    failures = [f"{name} failed: {reason}" for name, reason in row.failed.items()]
    if not row.ms:
        return f"{row.case:<{width}}  " + "; ".join(failures)
    ratios = []
    for name in sorted(row.faster, key=lambda name: (name != row.baseline, name != COMPILED)):
        ratio = row.faster[name]
        noise = f" ({ratio.low:.3g} to {ratio.high:.3g})" if name == row.baseline else ""
        ratios.append(f"{ratio.median:.3g} x {name}{noise}")
    return f"{row.case:<{width}}  {row.ms[OURS]:>8.4g} ms  " + "; ".join([", ".join(ratios), *failures])


def _machine_line(new: Record) -> str:
    machine = new.machine
    parts = [f"{machine['processor']}, {machine['threads']} threads, {machine['instruction_set']}"]
    parts += [f"{name} {version}" for name, version in machine["packages"].items() if version]
    missing = f"; missing: {', '.join(new.missing)}" if new.missing else ""
    return ", ".join(parts) + missing


def _write(console: Console, new: Record, folder: Path) -> None:
    """Writes the table and the pictures, and prints where the files are."""
    from robustperf import plot
    from robustperf.benchmarks.common.pictures import log_bars, log_lines
    from robustperf.benchmarks.common.record import table

    _save(new, folder)
    files = {"record": RECORD, "table": TABLE}
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(table(new), encoding="utf-8")
    faster = {
        f"{row.case}, over {row.baseline}": row.faster[row.baseline] for row in new.rows if row.baseline in row.faster
    }
    if faster and draw_picture(lambda path: plot.save(log_bars(faster, "times as fast"), path), path=folder / PICTURE):
        files["picture"] = PICTURE
    timed = [curve for curve in new.curves if curve["slope"] is not None]
    if timed and draw_picture(lambda path: plot.save(log_lines(timed), path), path=folder / SCALE_PICTURE):
        files["curves"] = SCALE_PICTURE
    for what, name in files.items():
        say(console, f"{what:>8}: {folder / name}")


def _say_comparison(console: Console, found: Comparison, path: Path | None) -> None:
    for warning in found.warnings:
        typer.echo(f"robustperf: warning: {warning}: a ratio may differ although the library did not change", err=True)
    parts = {
        f"slower than in {path}": found.slower,
        f"faster than in {path}": found.faster,
        f"in {path}, but not measured now": found.lost,
        "too noisy to be compared, here or there; a quieter machine helps": found.noisy,
    }
    for what, cases in parts.items():
        if cases:
            say(console, f"{what}:")
        for case in cases:
            say(console, f"  {case}")
    counts = f"{len(found.slower)} slower, {len(found.faster)} faster, {found.same} the same within the noise"
    say(console, f"{counts}, {len(found.noisy)} too noisy")
