"""The Python blocks of the pages run, in order, in one namespace for each page; what links name exists."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import nn

import robustperf as rp
from robustperf.data import Dataset
from robustperf.nuisance import Brightness, Rotation

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in [*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What takes minutes in a page, and what runs in its place.
SHORTER = {
    "iterations=2500": "iterations=2, width=4",
    "snapshots=[250]": "snapshots=[1]",
    "snapshots/250": "snapshots/1",
    "epochs=20": "epochs=1",
    "epochs=5, optimizer": "epochs=1, optimizer",
    "test.x[:100]": "test.x[:10]",
    "x[:20]": "x[:4]",
    "margins(model, test.x))": "margins(model, test.x[:10]))",
    "weight=0.5), train": "weight=0.5), train, epochs=1",
    "TiboGenerator(in_channels=3)": "TiboGenerator(in_channels=3, width=4)",
    "TransferClassifier(SVC(gamma=0.05, C=5))": "TransferClassifier(SVC(gamma=0.05, C=5), small, epochs=1)",
    "names, 1024)": "names, 8)",
    "joint=False, epochs=100": "joint=False, epochs=1, autoencoder=large",
    "snow:3 | rain:2 & brightness:-80": "brightness:-80",
    "RandomForestClassifier()": "RandomForestClassifier(3)",
}


def linear(*shape, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def images():
    """The names that pages on margins and kernels use: three images [1, 4, 4] and their classifier."""
    x = torch.rand(3, 1, 4, 4)
    model = linear(1, 4, 4)
    y = model(x).argmax(1)
    curve = rp.MarginCurve.from_margins(rp.margins(model, x))
    return {"rp": rp, "torch": torch, "model": model, "x": x, "y": y, "index": torch.arange(3), "key": 0, "step": 0,
            "x_adv": 1 - x, "candidates": torch.rand(2, 3, 1, 4, 4), "w": torch.randn(3, 16),
            "c": torch.full((3,), 0.1), "kernel": Brightness(0.4), "other": curve, "robust": curve,
            "models": {"plain": model}, "labeller": lambda images: images.mean((1, 2, 3)).gt(0.5).long()}  # fmt: skip


def table():
    """A table of three rows of four features in [0, 1], beside `images`."""
    return {**images(), "X": np.random.default_rng(0).random((3, 4)), "y": torch.arange(3) % 2}


def signs():
    """A classifier of GTSRB's 43 classes; `small_data` stands for the data set."""
    return {"rp": rp, "torch": torch, "model": linear(3, 32, 32, classes=43), "key": 0, "step": 0,
            "x": torch.rand(8, 3, 32, 32), "y": torch.arange(8), "index": torch.arange(8),
            "kernel": Rotation(30) + Brightness(0.4)}  # fmt: skip


def digits():
    data = rp.data.load("digits", "test")
    X, y = data.x.flatten(1).numpy(), data.y.numpy()
    small = rp.transfer.PairedAutoencoder(image_shape=(1, 8, 8), code=8, width=4, hidden=16)
    return {"rp": rp, "SVC": SVC, "small": small, "X": X[:300], "y": y[:300], "X_shifted": 0.5 * X[300:400],
            "X_new": 0.5 * X[400:420], "svc": SVC().fit(X[:300], y[:300]), "x": X[:5],
            "large": rp.transfer.PairedAutoencoder(code=8, width=4, hidden=16),
            "mnist": rp.data.Dataset("mnist", torch.rand(40, 1, 28, 28), torch.arange(40) % 10, 10),
            "x_foggy": torch.rand(2, 1, 28, 28)}  # fmt: skip


GIVEN = {
    "backends.md": images, "bounds.md": images, "data.md": signs, "kernels.md": images, "label_only.md": table,
    "learned_models.md": signs, "report.md": images, "tight_margins.md": images,
    "training.md": signs, "transfer.md": digits,
}  # fmt: skip


def small_data(name, split="train", *args, domain=None, **kwargs):
    """160 random images, the first half of them dark and the others bright, in place of any data set but digits."""
    if name == "digits":
        return LOAD(name, split, *args, **kwargs)
    x = torch.rand(160, 3, 32, 32) * torch.tensor([0.28, 0.5]).repeat_interleave(80).view(-1, 1, 1, 1)
    x[80:] += 0.5
    classes = 60 if name == "tiny-imagenet" else 43
    data = Dataset(name, x, torch.arange(160) % classes, classes)
    return data if domain is None else rp.data.domain(data, domain)


LOAD = rp.data.load


def test_every_page_with_names_of_its_own_is_there():
    assert set(GIVEN) <= set(PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search((DOCS / page).read_text(encoding="utf-8"))])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rp.data, "load", small_data)
    torch.manual_seed(0)
    text = (DOCS / page).read_text(encoding="utf-8")
    names = GIVEN[page]() if page in GIVEN else {}
    for number, block in enumerate(BLOCK.findall(text), 1):
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")))
def test_links_to_the_api_name_what_is_there(page):
    for target in re.findall(r"\]\(#(robustperf[\w.]*)\)", (DOCS / page).read_text(encoding="utf-8")):
        value, parts = rp, target.split(".")[1:]
        for number, part in enumerate(parts):
            try:
                value = getattr(value, part)
            except AttributeError:  # a module that its package does not name
                value = importlib.import_module(".".join(["robustperf", *parts[: number + 1]]))


def test_papers_covers_what_both_papers_number():
    text = (DOCS / "papers.md").read_text(encoding="utf-8")
    tibo, robey = text.split("## R: ")
    for number in (1, 2, 3, 4, 5, 6, 7, 9, 10):
        assert re.search(rf"[Ee]qs?\. (\d, )?{number}\b", tibo), number
    for number in range(1, 6):
        assert re.search(rf"Tables? ([\d, ]+)?{number}\b", tibo), number
        assert re.search(rf"(Definition|Example) {min(number, 4)}\b", tibo), number
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 10):
        assert f"Table {number}" in robey, number
    for number in range(1, 5):
        assert f"Algorithm {number}" in robey, number
    for number in ("2.1", "2.2", "3.1", "3.4", "4.1", "4.2", "4.3", "5.1", "6.1"):
        assert number in robey, number
