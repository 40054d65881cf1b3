"""`report`: the page's tables against the library's own results; the command is in cli/test_report.py."""

import base64
import io
import math
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.svm import SVC
from torch import nn

import robustperf as rp
from python_tests.support.html_page import ReadPage, check_self_contained, interval
from python_tests.support.small_models import mlp, trained
from robustperf.nuisance import Brightness, Hue, Rotation
from robustperf.reports.pictures import curves_svg
from robustperf.robustness.margin_run import MarginRun

NORMS = (2, math.inf, 1)
TEXTS = {2: "L₂", math.inf: "L∞", 1: "L₁"}
ATTACKS = "fgsm,bg(steps=3)"
SETTINGS = {"attacks": ATTACKS, "samples": 10, "batch_size": 16, "examples": 3, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return trained(steps=12)


@pytest.fixture(scope="module")
def data():
    return rp.data.load("digits").limit(40)


@pytest.fixture(scope="module")
def kernels():
    return {"rotation(20)": Rotation(20), "brightness(0.4)": Brightness(0.4)}


@pytest.fixture(scope="module")
def report(model, data, kernels):
    return rp.report(model, data, name="a net", kernels=kernels, **SETTINGS)


@pytest.fixture(scope="module")
def html(report):
    return report.html


@pytest.fixture(scope="module")
def page(html):
    return check_self_contained(html)


def test_accuracy(page, model, data):
    right = model(data.x).argmax(1) == data.y
    rows = page.rows("accuracy-table")
    value, lower, upper = interval(rows["top-1 accuracy"][0])
    assert value == pytest.approx(right.double().mean().item(), abs=5e-5) and 0 < lower < value < upper <= 1
    loss = nn.functional.cross_entropy(model(data.x), data.y).item()
    assert float(rows["mean cross-entropy, nats"][0]) == pytest.approx(loss, rel=1e-3)
    for name, (points, accuracy) in list(page.rows("classes-table").items())[1:]:
        own = right[data.y == int(name)]
        assert int(points) == len(own) and interval(accuracy)[0] == pytest.approx(own.double().mean().item(), abs=5e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_margins_are_those_of_the_library(page, model, data, norm):
    settings = {"attacks": ATTACKS, "norm": norm, "batch_size": 16, "key": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ours, true = rp.margins(model, data.x, **settings), rp.margins(model, data.x, labels=data.y, **settings)
    curve = rp.MarginCurve.from_margins(ours)
    rows = page.rows(f"margins-table-{norm:g}")
    assert rows["median margin"] == [f"{curve.median:.4g}"]
    assert rows["R, area under the curve"] == [f"{curve.area:.4g}"]
    assert rows["area under the band"] == ["{:.4g} to {:.4g}".format(*curve.band(0.95).area)]
    assert rows["largest distance"] == [f"{ours.diameter:.4g}"]
    assert rows["none found"] == [f"{int((~ours.found).sum())} of 40"]
    _, *points = page.tables[f"curve-table-{norm:g}"]
    assert len(points) >= 4
    for text, unchanged, robust in points:
        numerator, _, denominator = text.partition("/")
        eps = float(numerator) / float(denominator or 1)
        band, accuracy = curve.band(0.95), true.robust_accuracy(eps)
        assert interval(unchanged)[0] == pytest.approx(curve.at(eps), abs=5e-5)
        assert interval(unchanged)[1:] == pytest.approx((band.lower(eps), band.upper(eps)), abs=5e-4)
        assert interval(robust)[0] == pytest.approx(accuracy.value, abs=5e-5)
        assert interval(robust)[1:] == pytest.approx((accuracy.lower, accuracy.upper), abs=5e-4)
    column = NORMS.index(norm)
    won = {name: cells[column] for name, cells in page.rows("attacks-table").items() if name in ours.attacks}
    assert won == {name: f"{value:.2%}" for name, value in ours.fractions.items()}
    noise = page.rows("diagnostics-table")["another label when evaluated again"][column]
    assert noise == f"{ours.diagnostics.changed} of {ours.diagnostics.repeated}"


def test_kernels_and_corruptions(page, model, data, kernels):
    index = torch.arange(len(data))
    for name, kernel in kernels.items():
        ours = rp.basic_robustness(model, data.x, kernel, samples=10, key=3)
        drawn = kernel.draw(data.x, key=3, index=index)[0]
        rho, certain, accuracy = page.rows("kernels-table")[name]
        assert interval(rho)[0] == pytest.approx(ours.rho.mean().item(), abs=5e-5)
        half = math.sqrt(math.log(2 / 0.05) / (2 * len(data)))  # Hoeffding's
        assert interval(rho)[1] == pytest.approx(ours.rho.mean().item() - half, abs=5e-4)
        assert certain == f"{(ours.rho == 1).double().mean().item():.2%}"
        right = model(drawn).argmax(1) == data.y
        assert interval(accuracy)[0] == pytest.approx(right.double().mean().item(), abs=5e-5)
    drawn = rp.nuisance.mnist_c("stripe").draw(data.x, key=3, index=index)[0]
    right = model(drawn).argmax(1) == data.y
    assert interval(page.rows("corruptions-table")["stripe"][0])[0] == pytest.approx(
        right.double().mean().item(), abs=5e-5
    )
    assert "zigzag" not in page.rows("corruptions-table") and "zigzag (x: zigzag expected" in page.text


def pixels(image):
    content = base64.b64decode(image["src"].partition(",")[2])
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))) / 255


def test_nearest_images_are_at_their_distances(report, page, model, data):
    """The images decoded from the page change the label, at the distance written beside them, up to 8 bits."""
    table = page.rows("images-table")
    nearest = {alt["alt"]: alt for alt in page.of("img")}
    assert len(table) == 4
    ids = [int(name) for name in list(table)[1:]]
    ranks = report.margins[2].distance[ids]
    assert ranks.tolist() == sorted(ranks.tolist()) and ranks[0] == report.margins[2].distance.min()
    for name in list(table)[1:]:
        label, *cells = table[name]
        x = data.x[int(name)]
        assert int(label) == model(x[None]).argmax()
        assert torch.allclose(pixels(nearest[f"Point {name}, labelled {label}"]), x[0], atol=0.5 / 255)
        for norm, cell in zip(NORMS, cells, strict=True):
            distance, _, other = cell.split()
            image = nearest[f"Nearest adversarial image of point {name} in {TEXTS[norm]}, labelled {other}"]
            far = torch.linalg.vector_norm((pixels(image) - x[0]).flatten().double(), norm).item()
            rounding = torch.linalg.vector_norm(torch.full((64,), 0.5 / 255), norm).item()
            assert far == pytest.approx(float(distance), abs=rounding + 1e-3)
            assert float(distance) == pytest.approx(report.margins[norm].distance[int(name)].item(), rel=1e-3)


@pytest.mark.parametrize("place", range(3))
def test_curves_are_drawn_to_scale(html, report, place):
    """Each vertex of the line lies on the curve, in the coordinates of the axes' rectangle."""
    svg = html.split("<svg")[1 + place].partition("</svg>")[0]
    x, y, width, height = map(float, re.search(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"', svg).groups())
    path = re.search(r'd="([^"]+)"[^>]*stroke: var\(--c0\); stroke-width: 2', svg)[1]
    vertices = torch.tensor([[float(v) for v in each] for each in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]).double()
    curve = rp.MarginCurve.from_margins(report.margins[NORMS[place]])
    eps = (vertices[:, 0] - x) / width * 1.05 * curve.distances.max()
    level = 1.02 - (vertices[:, 1] - y) / height * 1.04
    nearby = torch.stack([curve.at((eps + shift * curve.median).clamp(min=0)) for shift in (-1e-4, 0, 1e-4)])
    assert len(vertices) > 40 and level[0] == pytest.approx(1, abs=1e-3)
    assert ((level - nearby).abs().min(0).values < 1e-3).all()
    assert "currentColor" in svg and f"distance ε in {TEXTS[NORMS[place]]}" in svg


def test_many_points_give_a_small_picture():
    distances = torch.rand(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    svg, right = curves_svg({"": rp.MarginCurve(distances, 5.0)}, 2, confidence=0.95, ids="a", label="<a>")
    assert len(svg) < 200_000 and right == pytest.approx(1.05, abs=1e-3) and 'aria-label="&lt;a&gt;"' in svg


HOSTILE = "<script>alert(1)</script>&\"'"


def test_hostile_names_are_text(tmp_path, model):
    """Names of models, classes, kernels, facts and commands stay text."""
    numbers = np.random.default_rng(0)
    names = ["<img src=x onerror=alert(1)>", "<script>alert(2)<"]
    for name in names:
        (tmp_path / "<b>data" / "test" / name).mkdir(parents=True)
        for place in range(2):
            Image.fromarray(numbers.integers(0, 256, (8, 8), np.uint8)).save(
                tmp_path / "<b>data" / "test" / name / f"{place}.png"
            )
    folder = rp.data.ImageFolder(tmp_path / "<b>data", "test", size=8)
    found = rp.report(
        mlp(2, values=192), folder, name=HOSTILE, attacks="fgsm", norms=[2], kernels={HOSTILE: Brightness(0.1)},
        samples=2, examples=2, facts={HOSTILE: HOSTILE}, command=HOSTILE,
    )  # fmt: skip
    page = check_self_contained(found.html)
    assert set(page.rows("classes-table")) == {"class", *names}
    assert set(page.rows("kernels-table")) == {"kernel", HOSTILE} and page.rows("facts-table")[HOSTILE] == [HOSTILE]
    assert f"Robustness of {HOSTILE}" in page.text and "<b>data" in page.text
    frame = HTMLParser()
    attributes = []
    frame.handle_starttag = lambda tag, given: attributes.append(dict(given))
    frame.feed(found._repr_html_())
    assert len(attributes) == 1 and attributes[0]["srcdoc"] == found.html


def test_a_linear_classifier_has_exact_margins():
    torch.manual_seed(0)
    linear, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), rp.data.load("digits").limit(12)
    found = rp.report(linear, data, norms=[2], kernels=[], corruptions=False)
    page = check_self_contained(found.html)
    assert page.rows("margins-table-2")["exact, from a closed form"] == ["12 of 12"]
    assert page.rows("attacks-table")["closed form"][0] == "100.00%"
    assert torch.equal(found.margins[2].distance, rp.margins(linear, data.x).distance)
    assert not found.kernels and "kernels" not in "".join(page.ids)


def test_warnings_of_the_margins_are_on_the_page(data):
    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x).softmax(1)

    found = rp.report(Softmax(), data, norms=["inf"], attacks="fgsm", kernels=[], corruptions=False, examples=0)
    page = check_self_contained(found.html)
    assert "L∞: the outputs look like probabilities at 100.00% of the points" in " ".join(page.text.split())
    assert not page.of("img") and "images-table" not in page.tables


def test_an_interrupted_run_resumes(tmp_path, monkeypatch, model, data, kernels, report):
    keep, kept = MarginRun.keep, []

    def interrupted(run, start, part):
        if len(kept) == 4:
            raise KeyboardInterrupt
        kept.append(start)
        keep(run, start, part)

    arguments = {"kernels": kernels, "folder": tmp_path / "run", **SETTINGS}
    with monkeypatch.context() as patched:
        patched.setattr(MarginRun, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rp.report(model, data, **arguments)
    with pytest.raises(ValueError, match="holds an earlier run; resume=True resumes it"):
        rp.report(model, data, **arguments)
    with pytest.raises(ValueError, match="seed was 3 and is 4"):
        rp.report(model, data, **{**arguments, "seed": 4}, resume=True)
    with pytest.raises(ValueError, match="model was"):
        rp.report(mlp(seed=9), data, **arguments, resume=True)
    found = rp.report(model, data, **arguments, resume=True)
    monkeypatch.setattr("robustperf.reports.measure.margins", None)
    monkeypatch.setattr("robustperf.reports.measure.basic_robustness", None)
    again = rp.report(model, data, **arguments, resume=True)  # everything is in the folder
    for each in (found, again):
        for norm in NORMS:
            assert torch.equal(each.margins[norm].distance, report.margins[norm].distance)
        assert each.kernels["rotation(20)"].rho == report.kernels["rotation(20)"].rho
        assert torch.equal(each.examples.points[1.0], report.examples.points[1.0])
        assert {**each.summary(), "seconds": 0} == {**report.summary(), "seconds": 0}


@pytest.mark.parametrize("change, message", [
    ({"norms": []}, "norms: expected at least one"), ({"norms": [2, "2"]}, "norms: expected at least one, each once"),
    ({"norms": [3]}, "norm: expected 0, 1, 2 or inf, got 3"), ({"attacks": "fgms"}, "attacks: expected one of"),
    ({"kernels": [Hue(0.1)]}, "hue expected RGB images"), ({"samples": 0}, "samples: expected"),
    ({"confidence": 1}, "confidence: expected"), ({"seed": -1}, "seed: expected"), ({"examples": -1}, "examples: "),
    ({"batch_size": 0}, "batch_size: "), ({"data": (torch.zeros(0, 1, 8, 8), torch.zeros(0))}, "data: expected"),
    ({"data": (2 * torch.ones(1, 1, 8, 8), torch.zeros(1))}, r"data: expected pixels within \[0, 1\]"),
    ({"data": (torch.zeros(2, 1, 9, 9), torch.zeros(2))}, "data: expected images that the model takes"),
    ({"data": (torch.zeros(2, 64), torch.zeros(2)), "kernels": [Rotation(3)]}, "kernels: expected none for data"),
    ({"data": (torch.zeros(2, 64), torch.zeros(2)), "corruptions": True}, "corruptions: expected images"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_bad_input(model, data, change, message):
    with pytest.raises(ValueError, match=message):
        rp.report(model, **{"data": data, **change})


@pytest.mark.parametrize(
    "wrong", [SVC(), rp.LabelOnly(lambda x: x.sum((1, 2, 3)) > 9, classes=2)], ids=["SVC", "LabelOnly"]
)
def test_models_without_logits(data, wrong):
    with pytest.raises(TypeError, match="model: expected a module or a callable that returns logits"):
        rp.report(wrong, data)


def test_a_model_without_gradients_is_queried(data):
    """As an ONNX file of unknown operators: it gives labels."""

    class Opaque(nn.Module):
        no_gradient = "an operator is unknown"

        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            with torch.no_grad():
                return self.net(x)

    found = rp.report(Opaque(), data.limit(3), norms=[2], kernels=[], corruptions=False, examples=1)
    page = check_self_contained(found.html)
    assert found.margins[2].access == "labels" and found.margins[2].found.all()
    assert "labels only were queried" in page.text and "SurFree" in page.rows("attacks-table")


def test_rows_of_features_have_no_pictures(model, data):
    found = rp.report(model, (data.x.flatten(1)[:6], data.y[:6]), attacks="fgsm", norms=[2])
    page = check_self_contained(found.html)
    assert not page.of("img") and not found.kernels and found.examples is None and len(found.evaluation.rank) == 6


def test_saving_needs_a_folder(tmp_path, report):
    report.save(tmp_path / "page.html")
    assert ReadPage((tmp_path / "page.html").read_text(encoding="utf-8")).tables
    with pytest.raises(FileNotFoundError, match="in a folder that exists"):
        report.save(tmp_path / "nowhere" / "page.html")
