"""Pages in a real headless browser; skips where ROBUSTPERF_BROWSER names no folder of npm packages with one.

To get one: npm install --prefix FOLDER @sparticuz/chromium puppeteer-core
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import robustperf as rp
from robustperf import nets

SCRIPT = Path(__file__).parents[1] / "support" / "browser.mjs"


@pytest.fixture(scope="module")
def packages():
    """The folder node_modules."""
    folder = Path(os.environ.get("ROBUSTPERF_BROWSER", "")) / "node_modules"
    if "ROBUSTPERF_BROWSER" not in os.environ or not folder.is_dir():
        pytest.skip("ROBUSTPERF_BROWSER: no folder with the npm packages @sparticuz/chromium and puppeteer-core")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    return folder


@pytest.fixture(scope="module")
def views(packages, tmp_path_factory):
    """What the browser found: each page at two widths, in light and in dark."""
    folder = tmp_path_factory.mktemp("pages")
    data = rp.data.load("digits").limit(24)
    models = {}
    for seed in range(3):
        torch.manual_seed(seed)
        models[f"a network with a rather long name, of seed {seed}"] = nets.build("small-cnn", size=8)
    settings = {"attacks": "fgsm,pgd(steps=5)", "samples": 5}
    rp.report(next(iter(models.values())), data, name="x" * 200, examples=2, **settings).save(folder / "report.html")
    (folder / "node_modules").symlink_to(packages)
    shutil.copy(SCRIPT, folder / "browser.mjs")
    rp.compare(models, data, **settings).save(folder / "compare.html")
    pages = [str(folder / name) for name in ("report.html", "compare.html")]
    command = ["node", "browser.mjs", str(folder), *pages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4 * len(pages)
    return found


def test_nothing_is_reported_and_nothing_is_fetched(views):
    for view in views:
        assert view["messages"] == []
        assert [url for url in view["requests"] if not url.startswith("data:image/png;base64,")] == view["requests"][:1]


def test_pictures_are_there(views):
    for view in views:
        assert all(image["width"] > 0 for image in view["images"])
        assert len(view["pictures"]) == 3
        for picture in view["pictures"]:
            assert picture["width"] > 300 and picture["height"] > 200 and picture["paths"] > 10 and picture["label"]
    assert max(len(view["images"]) for view in views) > 20


def test_pages_fit_a_phone(views):
    """No page scrolls sideways, and no element sticks out; text in pictures stays readable."""
    assert {view["width"] for view in views} == {375, 1280}
    for view in views:
        assert view["scrollWidth"] <= view["clientWidth"] == view["width"] and view["wide"] == []
        assert view["smallest"] >= 9


def luminance(colour):
    """Of sRGB channels in 0..255, as WCAG 2 defines it."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_contrasts_in_light_and_dark(views):
    for view in views:
        text, background = luminance(view["text"]), luminance(view["background"])
        assert (text < background) == (view["scheme"] == "light")
        assert (max(text, background) + 0.05) / (min(text, background) + 0.05) >= 7  # WCAG's AAA
        assert Path(view["shot"]).read_bytes().startswith(b"\x89PNG")
