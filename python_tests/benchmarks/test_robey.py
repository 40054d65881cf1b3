"""`benchmarks.paper.robey`: methods by name, accuracies that are kept, rows without data, and the tables' domains."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.common.options import parse
from benchmarks.paper import robey, robey_imagenet, robey_table4, robey_table5, robey_table7
from robustperf.data import Dataset
from robustperf.nuisance import Brightness, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, evaluate

SCALE = replace(robey.SMOKE, seeds=2)


def dataset(name="toy", n=70, shift=0.0):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    x = (0.2 * torch.rand(n, 3, 16, 16, generator=generator) + 0.25 * y[:, None, None, None] + shift).clamp(0, 1)
    return Dataset(name, x, y, 3)


def row(**kwargs):
    paper = {"near": {"ERM": 40.0, "MDA": (50.0, 80.0)}, "far": {}}
    tests = {"near": dataset("near"), "far": dataset("far", shift=0.3)}
    return robey.Row(dataset(), tests, Brightness(0.2), paper=paper, **kwargs)


def arguments(tmp_path, *given):
    parsed = parse(robey.parser("A table."), selections=("methods",), arguments=["--scale", "smoke", *given])
    parsed.runs = tmp_path
    return parsed


@pytest.mark.parametrize(
    "method, expected",
    [
        ("ERM", ERM()),
        ("ERM converged", ERM()),
        ("ERM+Aug", ERM()),
        ("MDA converged", MDA(Rotation(30), k=3)),
        ("PGD", AdversarialTraining()),
        ("MRT", MRT(Rotation(30), k=10)),
        ("MRT-5", MRT(Rotation(30), k=5)),
        ("MRT-5 per sample", MRT(Rotation(30), k=5, selection="sample")),
        ("MDA", MDA(Rotation(30), k=3)),
        ("MAT-20", MAT(Rotation(30), k=20)),
    ],
)
def test_methods_have_the_papers_settings(method, expected):
    assert robey.objective(method, Rotation(30)) == expected


def test_names_with_k():
    assert [robey_table7.with_k(name, 5) for name in ("MRT", "MRT per sample")] == ["MRT-5", "MRT-5 per sample"]


def test_a_table_has_means_deviations_and_the_papers_figures(tmp_path):
    given = arguments(tmp_path, "--methods", "ERM", "MDA")
    report = robey.report_of("trial", "A trial", given, SCALE)
    robey.fill(report, [row], given, SCALE)
    of_seeds = [robey.accuracies("MDA", row(), SCALE, seed, tmp_path / "smoke")["near"][0] for seed in range(2)]
    found = {line["case"]: line for line in report.rows}
    assert list(found) == ["near, ERM", "near, MDA", "far, ERM", "far, MDA"]
    mean = sum(of_seeds) / 2
    assert found["near, MDA"]["accuracy %"] == pytest.approx(mean)
    assert found["near, MDA"]["deviation"] == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / 2**0.5)
    assert found["near, MDA"]["above ERM"] == pytest.approx(mean - found["near, ERM"]["accuracy %"])
    assert found["near, MDA"]["paper %"] == 50.0 and found["near, MDA"]["paper above ERM"] == 10.0
    assert found["near, MDA"]["paper top-5 %"] == 80.0 and found["near, ERM"]["paper top-5 %"] is None
    assert found["far, MDA"]["paper %"] is None and "top-5 %" not in found["far, MDA"]


def test_what_was_computed_is_not_computed_again(tmp_path, monkeypatch):
    first = robey.accuracies("ERM", row(), SCALE, 0, tmp_path)
    (folder,) = (tmp_path / "classifiers").iterdir()
    monkeypatch.setattr(robey, "train", lambda *_: pytest.fail("trained again"))
    assert robey.accuracies("ERM", row(), SCALE, 0, tmp_path) == first
    monkeypatch.undo()
    robey.accuracies("ERM", row(), SCALE, 1, tmp_path)  # another seed
    other = replace(row(), kernel=Brightness(0.3))
    assert robey.accuracies("ERM", other, SCALE, 0, tmp_path) == first  # ERM does not use the kernel
    robey.accuracies("MDA", row(), SCALE, 0, tmp_path)
    robey.accuracies("MDA", other, SCALE, 0, tmp_path)
    assert len(list((tmp_path / "classifiers").iterdir())) == 4 and folder.exists()


def test_converged_erm_has_the_best_accuracy_of_its_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(robey, "_EVERY", 1)
    scale = replace(SCALE, longest=3)
    best = robey.accuracies("ERM converged", row(), scale, 0, tmp_path)
    (file,) = tmp_path.glob("classifiers/*/accuracies.json")
    by_epoch = json.loads(file.read_text())
    assert list(by_epoch) == ["1", "2", "3", "last"] and by_epoch["3"] == by_epoch["last"]
    for name in ("near", "far"):
        assert best[name][0] == max(each[name][0] for each in by_epoch.values())
    model = robey.train("ERM", row(), replace(scale, epochs=3), 0, tmp_path / "again")
    assert by_epoch["last"]["near"][0] == 100 * evaluate(model, row().tests["near"]).top(1)


def test_augmented_methods_train_on_both_domains_with_labels(tmp_path):
    both = row(target=dataset("target", 12))
    images = robey._training_images("ERM+Aug", both)
    assert len(images) == 82 and torch.equal(images.y[70:], both.target.y)
    assert robey._training_images("ERM", both) is both.train


@pytest.mark.filterwarnings("ignore:source")  # one epoch is short
def test_adda_adapts_to_the_target(tmp_path):
    both = row(target=dataset("target", 40, shift=0.3))
    assert set(robey.accuracies("ADDA", both, SCALE, 0, tmp_path)) == {"near", "far"}
    (folder,) = (tmp_path / "classifiers").iterdir()
    assert (folder / "adapted" / "model.safetensors").exists()


def test_rows_without_data_are_left_out(tmp_path, capsys):
    def absent():
        raise FileNotFoundError("svhn: no file")

    given = arguments(tmp_path, "--methods", "ERM")
    report = robey.report_of("trial", "A trial", given, SCALE)
    robey.fill(report, [absent, row], given, SCALE)
    assert len(report.rows) == 2 and "left out. svhn: no file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no row of the table has its data"):
        robey.fill(robey.report_of("trial", "A trial", given, SCALE), [absent], given, SCALE)


def test_a_known_kernel_has_a_report_of_its_own():
    parsed = parse(robey.parser("A table.", known=True), selections=("kernel",), arguments=["--kernel", "known"])
    assert robey.report_of("robey_table6", "R Table 6", parsed, SCALE).name == "robey_table6_known"


def test_a_learned_kernel_is_learned_once(tmp_path):
    given = arguments(tmp_path)
    first = robey.learned("toy a b", dataset("a"), dataset("b", shift=0.2), robey.SMOKE, given)
    assert robey.learned("toy a b", dataset("a"), dataset("b", shift=0.2), robey.SMOKE, given) == first
    assert (robey.kernel_folder("toy a b", robey.SMOKE, given) / "kernel.safetensors").exists()


def test_two_kernels_composed_as_printed():
    one, other = Brightness((0.0, 1.0)), Rotation((0.0, 40.0))
    both, x = robey_table4.composed(one, other), dataset(n=2).x  # G1(G2(x, delta), delta)
    delta = torch.tensor([[[0.5], [1.0]]])
    turned = other.normalised().transform(x, delta)[0]
    expected = one.normalised().transform(turned, delta)
    torch.testing.assert_close(both.transform(x, delta), expected)


def test_corruptions_of_tiny_imagenet():
    with pytest.raises(FileNotFoundError, match="the library has no snow"):
        robey_imagenet.known("brightness+snow")
    images = dataset(n=4)
    foggy = robey_imagenet.under(images, robey_imagenet.known("fog"), "fog")
    assert foggy.name == "toy fog" and torch.equal(foggy.y, images.y) and foggy.x.shape == images.x.shape
    assert (foggy.x.std(dim=(2, 3)) < images.x.std(dim=(2, 3)) + 0.2).all() and not torch.equal(foggy.x, images.x)


def test_grey_images_without_their_colours():
    grey = robey_table5._grey(dataset(n=3))
    assert torch.allclose(grey.x[:, 0], grey.x[:, 2], atol=1e-6) and grey.name == "toy grey"
