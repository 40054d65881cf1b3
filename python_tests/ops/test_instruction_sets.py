"""One instruction set's results are another's, bit for bit; each runs in a process of its own, which ROBUSTPERF_CPU
tells what to take."""

import os
import subprocess
import sys

import pytest
import torch

native = pytest.importorskip("robustperf._native", exc_type=ImportError)

INPUTS = """
import math, sys, torch
from robustperf import _native, ops
from robustperf.ops.line_search_step import FIELD, new_search

given = torch.load(sys.argv[1], weights_only=True)
out = {}
for dtype in (torch.float32, torch.float64):
    for dim in (1, 7, 16, 100, 3072):
        x, w, c = (given[f"{name} {dtype} {dim}"] for name in "xwc")
        for norm in (1, 2, math.inf):
            delta, feasible = ops.halfspace_box_projection(x, w, c, norm=norm, backend="native")
            out[f"delta {dtype} {dim} {norm}"], out[f"feasible {dtype} {dim} {norm}"] = delta, feasible
index, draw = given["index"], torch.arange(5)
for dim in (1, 3, 63, 64, 65, 1000):
    for normal in (False, True):
        out[f"draws {dim} {normal}"] = ops.draws(2**63 + 1, index, draw, dim, normal=normal, backend="native")
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    out[f"gap {dtype}"] = ops.logit_gap(given["logits"].to(dtype), given["label"], backend="native")
for dtype in (torch.float32, torch.float64):
    x, ends, weights = given["points"].to(dtype), given["ends"].to(dtype), given["weights"].to(dtype)
    batch, lines = len(x), len(ends)
    label = torch.zeros(batch, dtype=torch.int64)
    searched, state = new_search((x @ weights)[:, 0].double() + 40, given["length"], given["gap_end"])
    rows, places, closest, logits = torch.arange(batch), torch.empty_like(x), torch.full_like(x, math.nan), None
    for step in range(200):
        ops.line_search_step(logits, rows, label, x, ends, searched, state, places, closest, tol=2.0**-20,
                             backend="native")
        out[f"state {dtype} {step}"], out[f"places {dtype} {step}"] = state.clone(), places.clone()
        out[f"lines {dtype} {step}"] = searched.clone()
        going = state[rows, FIELD["line"]] >= 0
        rows, places = rows[going], places[going]
        if not len(rows):
            break
        # a model in Python, so that torch's own choice of instructions has no part in it
        place = state[rows, FIELD["step"]]
        root = given["roots"][rows, state[rows, FIELD["line"]].long()]
        logits = torch.stack([root - place + (root - place) ** 3, torch.zeros_like(place)], 1).to(dtype)
    out[f"closest {dtype}"] = closest
torch.save({"isa": _native.isa(), "isas": _native.isas(), "out": out}, sys.argv[2])
"""


def start(isa, *args):
    environment = os.environ | {"ROBUSTPERF_CPU": isa, "OMP_NUM_THREADS": "2"}
    return subprocess.run([sys.executable, *args], env=environment, capture_output=True, text=True, timeout=120)


def bits(tensor):
    size = tensor.element_size()
    return tensor.contiguous().view({1: torch.uint8, 4: torch.int32, 8: torch.int64}[size])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each instruction set computed, by its name."""
    folder = tmp_path_factory.mktemp("isa")
    g = torch.Generator().manual_seed(0)
    given = {"index": torch.tensor([0, 1, 2**32, 2**40 + 3, 2**63 - 1]), "logits": torch.randn(50, 37, generator=g) * 9,
             "label": torch.randint(37, (50,), generator=g)}  # fmt: skip
    given["logits"][3, 4], given["logits"][5, 6], given["logits"][7, 8] = float("nan"), float("inf"), -float("inf")
    for dtype in (torch.float32, torch.float64):
        for dim in (1, 7, 16, 100, 3072):
            x = torch.rand(20, dim, generator=g, dtype=dtype)
            w = torch.randn(20, dim, generator=g, dtype=dtype) * 10 ** torch.randn(20, dim, generator=g, dtype=dtype)
            w[1], w[2, 0], x[3, 0] = w[1].round(), float("nan"), 2.0
            room = torch.where(w > 0, 1 - x, x).double()
            c = torch.linspace(-0.1, 1.2, 20, dtype=torch.float64) * (w.abs().double() * room).sum(1)
            given[f"x {dtype} {dim}"], given[f"w {dtype} {dim}"], given[f"c {dtype} {dim}"] = x, w, c
    batch, lines, dim = 30, 3, 77
    given |= {"points": torch.rand(batch, dim, generator=g), "ends": torch.rand(lines, batch, dim, generator=g),
              "weights": torch.randn(dim, 1, generator=g),
              "roots": 1.2 * torch.rand(batch, lines, generator=g).double(),
              "length": torch.rand(batch, lines, generator=g).double() + 0.5}  # fmt: skip
    given["gap_end"] = torch.full((batch, lines), float("nan"), dtype=torch.float64)
    torch.save(given, folder / "given.pt")
    (folder / "script.py").write_text(INPUTS)
    found = {}
    for isa in native.isas():
        run = start(isa, folder / "script.py", folder / "given.pt", folder / f"{isa}.pt")
        assert run.returncode == 0, run.stderr
        found[isa] = torch.load(folder / f"{isa}.pt", weights_only=True)
    return found


def test_the_forced_one_is_the_one_in_use(results):
    assert native.isas()[0] == "baseline" and native.isa() in native.isas()
    if not os.environ.get("ROBUSTPERF_CPU"):
        assert native.isa() == native.isas()[-1], "the widest one by default"
    for isa, found in results.items():
        assert found["isa"] == isa and found["isas"] == native.isas()


def test_all_agree_bit_for_bit(results):
    if len(results) < 2:
        pytest.skip(f"this processor has {', '.join(results)} alone")
    baseline = results["baseline"]["out"]
    assert len(baseline) > 100
    for isa, found in results.items():
        assert found["out"].keys() == baseline.keys()
        parted = [name for name, value in found["out"].items() if not torch.equal(bits(value), bits(baseline[name]))]
        assert not parted, f"{isa} differs from the baseline"


def test_what_they_agree_on_is_not_trivial(results):
    out = results["baseline"]["out"]
    feasible = out["feasible torch.float32 100 2"]
    assert 10 < feasible.sum() < 18 and out["delta torch.float32 100 2"][2].isnan().all()
    assert out["gap torch.float32"].isnan().sum() == 1 and out["gap torch.float32"].unique().numel() > 40
    assert out["closest torch.float64"].isfinite().all(1).sum() > 20


def test_a_name_that_is_none_is_an_error_of_the_import():
    run = start("nonsense", "-c", "import robustperf")
    assert run.returncode != 0, "the reference would have taken over in silence"
    assert "ROBUSTPERF_CPU" in run.stderr and "'nonsense'" in run.stderr
    assert all(isa in run.stderr for isa in native.isas())


def test_an_empty_name_is_no_name():
    code = ("import sys\nfrom importlib.util import module_from_spec, spec_from_file_location\n"
            "spec = spec_from_file_location('_native', sys.argv[1])\n"
            "m = module_from_spec(spec)\n"
            "spec.loader.exec_module(m)\n"
            "assert m.isa() == m.isas()[-1]")
    run = start("", "-c", code, native.__file__)
    assert run.returncode == 0, run.stderr
