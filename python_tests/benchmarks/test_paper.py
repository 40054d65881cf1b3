"""`benchmarks.paper.tibo_transfer`: which images are clean and which are shifted; normalisation; averages over sets."""

import argparse
import statistics

import pytest
import torch

from benchmarks.common.options import Output
from benchmarks.paper import tibo_transfer as tibo
from robustperf.data import Dataset


@pytest.mark.parametrize("name", ["smoke", "cpu", "full"])
def test_no_originals_of_shifted_images_are_among_the_clean(name):
    scale = tibo.SCALES[name]
    for count in (0, *scale.shifted):
        clean, parts = tibo.split(scale, count, seed=3)
        clean = set(clean.tolist())
        seen = {each: set(rows.tolist()) for each, rows in parts.items()}
        assert clean | set().union(*seen.values()) <= set(range(scale.images))
        if count == tibo.HALF:
            sizes = scale.images // 2, scale.images - scale.images // 2
            assert set(seen) == set(tibo.SETS) and len(set(map(frozenset, seen.values()))) == 1
        else:
            sizes = scale.images - 15 * count, count
        assert len(clean) == sizes[0]
        shifted = [seen[each] for each in tibo.CORRUPTIONS if each in seen]
        assert len(shifted) == (15 if count else 0)
        for rows, numbers in zip(shifted, (parts[each] for each in tibo.CORRUPTIONS if each in seen), strict=True):
            assert len(rows) == len(numbers) == sizes[1] and not rows & clean
        if count not in (0, tibo.HALF):  # no image under two corruptions; identity's are clean
            assert len(set().union(*shifted)) == 15 * count
            assert len(seen["identity"]) == count


def test_more_shifted_images_than_there_are():
    scale = tibo.SCALES["smoke"]
    assert len(tibo.split(scale, 6, seed=0)[0]) == 96 - 90
    with pytest.raises(ValueError, match="count: expected at most 6 images of each shift, of 96 in all, got 7"):
        tibo.split(scale, 7, seed=0)


def test_averages_over_sixteen_sets_and_over_fifteen():
    of_sets = {each: [float(i), 2.0 * i] for i, each in enumerate(tibo.SETS)}  # identity is number 5
    assert tibo.averages(of_sets) == [7.5, 15.0]
    assert tibo.averages(of_sets, tibo.CORRUPTIONS) == pytest.approx([115 / 15, 230 / 15])
    for kind in ("NN", "SVM"):
        want = statistics.mean(row[1] for each, row in tibo.PAPER[kind].items() if each != "identity")
        assert tibo.paper_corrupted(kind, "GAUSS") == pytest.approx(want)
    assert tibo.paper_corrupted("SVM", "PLAIN") == pytest.approx((16 * 69.7 - 98.4) / 15)
    assert tibo.paper_corrupted("NN", "SEPARATE 7") is None


def squares(n: int) -> Dataset:
    """28 x 28 pixels: a square in a quarter of the image, of one grey in two, names its class."""
    x, y = torch.zeros(n, 1, 28, 28), torch.arange(n) % 4
    for row in range(n):
        top, left = 14 * int(y[row] // 2), 14 * int(y[row] % 2)
        x[row, :, top + 3 : top + 11, left + 3 : left + 11] = 1.0 if row % 8 < 4 else 0.5
    return Dataset("mnist", x, y, 10)


def evaluation(monkeypatch, folder, how: str, *methods: str) -> tibo.Evaluation:
    monkeypatch.setattr(tibo, "load", lambda name, split, root: squares(96))
    options = ["--scale", "smoke", "--normalise", how, "--runs", str(folder)]
    return tibo.Evaluation(tibo.parser("trial").parse_args([*options, *(["--methods", *methods] if methods else [])]))


def test_classifiers_see_normalised_images(monkeypatch, tmp_path):
    seen = {}

    class Recorded(tibo.SVC):
        def fit(self, x, y):
            seen["train"] = torch.from_numpy(x)
            return super().fit(x, y)

    monkeypatch.setattr(tibo, "SVC", Recorded)
    for how in ("none", "minmax", "standard"):
        run = evaluation(monkeypatch, tmp_path / how, how, "PLAIN")
        found = run.run(["SVM"])["SVM"]
        assert list(found) == ["PLAIN"] and found["PLAIN"].keys() == set(tibo.SETS)
        x, bright = seen["train"], run.test_images("brightness").flatten(1)
        low, high = bright.amin(1), bright.amax(1)
        if how == "none":
            assert low.eq(0.5).all() and x.amax(1).unique().tolist() == [0.5, 1.0]
        else:
            assert low.eq(0).all() and high.eq(1).all() and found["PLAIN"]["brightness"] == [100.0]
        if how == "standard":
            assert x.mean(1).abs().max() < 1e-5 and (x.std(1, correction=0) - 1).abs().max() < 1e-5
        elif how == "minmax":
            assert x.amin(1).eq(0).all() and x.amax(1).eq(1).all()


def test_auto_encoders_map_min_max_images_before_the_classifier_standardises(monkeypatch, tmp_path):
    monkeypatch.setitem(tibo.SCALES, "smoke", tibo.replace(tibo.SCALES["smoke"], images=40, tests=8))
    seen = {}
    monkeypatch.setattr(tibo.PairedAutoencoder, "transfer", lambda self, x: seen.setdefault("x", x))
    monkeypatch.setattr(tibo, "Standardise", lambda: seen.setdefault("model", tibo.nn.Identity()))
    found = evaluation(monkeypatch, tmp_path, "standard", "TRANSFER").run(["NN"])["NN"]
    assert list(found) == ["TRANSFER 0"] and all(0 <= value <= 100 for (value,) in found["TRANSFER 0"].values())
    assert seen["x"].shape[0] == seen["x"].flatten(1).amax(1).eq(1).sum() and seen["x"].min() == 0 and "model" in seen


def test_a_normalisation_has_a_run_and_a_report_of_its_own(monkeypatch, tmp_path):
    evaluation(monkeypatch, tmp_path, "minmax")
    with pytest.raises(ValueError, match="other settings: normalise was 'minmax' and is 'standard'"):
        evaluation(monkeypatch, tmp_path, "standard")
    (tmp_path / "old").mkdir()
    tibo.record_settings(tmp_path / "old", {"scale": tibo.asdict(tibo.SCALES["smoke"])}, resume=False)
    evaluation(monkeypatch, tmp_path / "old", "none")  # as runs were recorded before there was a choice
    names = {
        how: tibo.report("table", "Table", argparse.Namespace(normalise=how, scale="smoke", output=Output())).name
        for how in ("none", "minmax")
    }
    assert names == {"none": "table", "minmax": "table_minmax"}


def test_methods_choose_columns():
    scale = tibo.SCALES["cpu"]
    assert tibo.columns(scale, ["JOINT", "PLAIN"]) == ["PLAIN", "JOINT 128", "JOINT half"]
    assert len(tibo.columns(scale)) == 7
