"""All instruction sets give the same bits. Each runs in a process of its own, where ROBUSTPERF_CPU selects it."""

import os
import subprocess
import sys

import pytest
import torch

native = pytest.importorskip("robustperf._native", exc_type=ImportError)

INPUTS = """
import math, sys, torch
from robustperf import _native, nuisance, ops
from robustperf.ops.search_state import FIELD, new_search

given = torch.load(sys.argv[1], weights_only=True)
out = {}
for dtype in (torch.float32, torch.float64):
    for dim in (1, 7, 16, 100, 3072):
        x, w, c = (given[f"{name} {dtype} {dim}"] for name in "xwc")
        for norm in (1, 2, math.inf):
            delta, feasible = ops.halfspace_box_projection(x, w, c, norm=norm, backend="native")
            out[f"delta {dtype} {dim} {norm}"], out[f"feasible {dtype} {dim} {norm}"] = delta, feasible
            radius = torch.linspace(-0.1, 1.2, len(x)) * dim ** (1 / norm)
            out[f"ball {dtype} {dim} {norm}"] = ops.ball_box_projection(x, w, radius, norm=norm, backend="native")
index, draw = given["index"], torch.arange(5)
for dim in (1, 3, 63, 64, 65, 1000):
    for normal in (False, True):
        out[f"draws {dim} {normal}"] = ops.draws(2**63 + 1, index, draw, dim, normal=normal, backend="native")
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    out[f"gap {dtype}"] = ops.logit_gap(given["logits"].to(dtype), given["label"], backend="native")
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for classes in (1, 2, 3, 4, 7, 10, 16, 39, 40, 41, 64, 65, 100, 1003):
        for selection in ("sample", "batch"):
            for smoothing in (0.0, 0.1):
                name = f"best {dtype} {classes} {selection} {smoothing}"
                out[f"{name} loss"], out[f"{name} index"] = ops.best_of_k(
                    given["draws"][..., :classes].to(dtype), given["targets"] % classes, selection=selection,
                    label_smoothing=smoothing, ignore_index=0, backend="native")
for dtype in (torch.float32, torch.float64):
    for count in (1, 7, 16, 1003):
        products = 5 * given["draws"][0, :, :count].to(dtype)
        squares = products.abs().amax(1) + 1, products.abs().amax(0)
        sums = torch.ones(len(products), 3, dtype=torch.float64)
        _native.rbf_sums(products, *squares, 0.07, given["coefficients"][:, :count].contiguous(), sums, 2)
        out[f"rbf sums {dtype} {count}"] = sums
        _native.rbf_values(products, *squares, 0.07, 2)
        out[f"rbf {dtype} {count}"] = products
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
        # a model in Python, so that torch's own choice of instructions makes no difference
        place = state[rows, FIELD["step"]]
        root = given["roots"][rows, state[rows, FIELD["line"]].long()]
        logits = torch.stack([root - place + (root - place) ** 3, torch.zeros_like(place)], 1).to(dtype)
    out[f"closest {dtype}"] = closest
known, near = {name: getattr(nuisance, name) for name in nuisance.__all__}, {}
for name, (channels, kernels) in given["kernels"].items():
    program = nuisance.Compose([eval(kernel, known) for kernel in kernels]).parts[0].program
    for height, width in ((9, 13), (41, 37)):
        shape = (channels, height, width)
        delta = ops.nuisance_sample(7, index, draw, program, shape, backend="native")
        out[f"delta {name} {height}"] = delta
        for dtype in (torch.float32, torch.float64):
            x = given[f"images {height}"][:, :channels].to(dtype)
            args = x, delta.to(dtype), program
            image = out[f"image {name} {height} {dtype}"] = ops.nuisance(*args, backend="native")
            out[f"drawn {name} {height} {dtype}"] = ops.nuisance_draw(x, 8, index, draw, program, backend="native")
            codes, numbers, _ = program.layout(shape)
            grad = given[f"grad {height}"][:, :, :image.shape[2]].to(dtype)
            by_x, by_delta = torch.ops.robustperf.nuisance_backward(grad, *args[:2], codes, numbers, "native")
            near[f"by x {name} {height} {dtype}"], near[f"by delta {name} {height} {dtype}"] = by_x, by_delta
torch.save({"isa": _native.isa(), "isas": _native.isas(), "out": out, "near": near}, sys.argv[2])
"""

# of each program: channels, and the calls of robustperf.nuisance that it is composed of
KERNELS = {
    **{call: (channels, [call]) for channels, calls in {
        3: ["Brightness(0.6)", "Contrast(0.6)", "Saturation(0.6)", "Decolourise()", "Hue(0.5)", "Gamma(0.7)",
            "BackgroundColour(source='corner')", "BackgroundColour(source=(0.1, 0.5, 0.2))", "Rotation(180.0)",
            "Translation()", "Scale(0.5)", "Shear(30.0, 20.0)", "Affine()", "Affine(outside='border')", "Blur(1.3)",
            "Fog()", "GaussianNoise()", "ImpulseNoise(0.3)", "ShotNoise()", "L2Ball(1.5)", "L2Ball(1.5, clamp=True)",
            "LinfBall(0.1)"],
        1: ["Contrast(0.7)", "BackgroundColour()", "Affine(45.0)"], 5: ["Gamma(0.5)", "Affine(60.0)", "Fog(0.7)"],
    }.items() for call in calls},
    "much": (3, ["ShotNoise(100.0)", "Rotation(90.0)", "Contrast(0.3)", "GaussianNoise()", "Blur(1.3)", "Fog()",
                 "Affine()", "Gamma(0.3)", "BackgroundColour(source='corner')", "Hue(0.5)", "ImpulseNoise()"]),
    "grey": (1, ["Gamma(0.3)", "L2Ball(1.0)", "Blur(1.0)", "BackgroundColour()", "Contrast()", "Saturation()",
                 "Fog()"]),
}  # fmt: skip


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
    given |= {"draws": 5 * torch.randn(6, 75, 1003, generator=g), "targets": torch.randint(1003, (75,), generator=g)}
    given["coefficients"] = torch.randn(3, 1003, generator=g, dtype=torch.float64)
    given["draws"][1, 2, 0], given["draws"][:, 3, 0] = float("nan"), float("inf")
    given["draws"][2, 4, 0] = -float("inf")
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
    given["kernels"] = KERNELS
    for height, width in ((9, 13), (41, 37)):
        images = torch.rand(5, 5, height, width, generator=g)
        images[images < 0.1], images[2], images[:, :, 0, 0] = 0, images[2].round(), 0.3
        given[f"images {height}"] = images
        given[f"grad {height}"] = torch.randn(5, 5, 5, height, width, generator=g)
    torch.save(given, folder / "given.pt")
    (folder / "script.py").write_text(INPUTS)
    found = {}
    for isa in native.isas():
        run = start(isa, folder / "script.py", folder / "given.pt", folder / f"{isa}.pt")
        assert run.returncode == 0, run.stderr
        found[isa] = torch.load(folder / f"{isa}.pt", weights_only=True)
    return found


def test_the_selected_one_is_in_use(results):
    assert native.isas()[0] == "baseline" and native.isa() in native.isas()
    if not os.environ.get("ROBUSTPERF_CPU"):
        assert native.isa() == native.isas()[-1], "the widest one by default"
    for isa, found in results.items():
        assert found["isa"] == isa and found["isas"] == native.isas()


def test_all_agree_bit_for_bit(results):
    if len(results) < 2:
        pytest.skip(f"this processor has only {', '.join(results)}")
    baseline = results["baseline"]["out"]
    assert len(baseline) > 100
    for isa, found in results.items():
        assert found["out"].keys() == baseline.keys()
        different = [name for name, value in found["out"].items() if not torch.equal(bits(value), bits(baseline[name]))]
        assert not different, f"{isa} differs from the baseline"


def test_gradients_of_a_nuisance_agree_but_for_the_order_of_sums(results):
    baseline = results["baseline"]["near"]
    for isa, found in results.items():
        assert found["near"].keys() == baseline.keys()
        for name, value in found["near"].items():
            wrong = (value - baseline[name]).abs() / baseline[name].abs().amax().clamp_min(1e-30)
            assert wrong.max() < (1e-5 if value.dtype == torch.float32 else 1e-13), (isa, name)


def test_what_they_agree_on_is_not_trivial(results):
    out = results["baseline"]["out"]
    images = [value for name, value in out.items() if name.startswith(("image ", "drawn "))]
    assert len(images) == 8 * len(KERNELS)
    assert all(image.isfinite().all() and image.std() > 0.05 for image in images)
    gradients = results["baseline"]["near"].items()
    silent = [name for name, value in gradients if not value.any()]
    noise = {("delta", "ImpulseNoise(0.3)"), ("x", "ShotNoise()"), ("delta", "ShotNoise()"), ("x", "much")}
    assert {tuple(name.split()[1:3]) for name in silent} == noise
    assert all(value.isfinite().all() for _, value in gradients)
    feasible = out["feasible torch.float32 100 2"]
    assert 10 < feasible.sum() < 18 and out["delta torch.float32 100 2"][2].isnan().all()
    assert out["gap torch.float32"].isnan().sum() == 1 and out["gap torch.float32"].unique().numel() > 40
    for classes in (10, 1003):
        assert (out[f"best torch.float32 {classes} sample 0.0 index"] > 0).sum() > 40
        assert out[f"best torch.float32 {classes} sample 0.0 loss"].unique().numel() > 40
    assert out["closest torch.float64"].isfinite().all(1).sum() > 20


def test_an_unknown_name_fails_the_import():
    run = start("nonsense", "-c", "import robustperf")
    assert run.returncode != 0, "the reference would have replaced it silently"
    assert "ROBUSTPERF_CPU" in run.stderr and "'nonsense'" in run.stderr
    assert all(isa in run.stderr for isa in native.isas())


def test_an_empty_name_selects_the_widest():
    code = (
        "import sys\nfrom importlib.util import module_from_spec, spec_from_file_location\n"
        "spec = spec_from_file_location('_native', sys.argv[1])\n"
        "m = module_from_spec(spec)\n"
        "spec.loader.exec_module(m)\n"
        "assert m.isa() == m.isas()[-1]"
    )
    run = start("", "-c", code, native.__file__)
    assert run.returncode == 0, run.stderr
