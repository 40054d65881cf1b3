"""`learn`: its files, runs that are killed and resumed to the same bits, faults, and domains that are refused."""

import csv
import json

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import robustperf as rp
from python_tests.support import processes
from python_tests.support.learned import domains, images
from python_tests.support.training import assert_same
from robustperf.data import Dataset
from robustperf.names import SHARES
from robustperf.nuisance import LearnedKernel, learn
from robustperf.training.munit import FIGURES, Munit

A, B = domains()
QUICK = {"width": 2, "iterations": 6, "checkpoint_steps": 2, "progress": False}


@pytest.fixture(autouse=True)
def few_pictures(request, monkeypatch):
    """Pictures, which take most of the time, where the test is about them only."""
    if "picture" not in request.node.name and "tensorboard" not in request.node.name:
        monkeypatch.setattr("robustperf.nuisance.learned.run.LearningRun._draw", lambda *arguments: None)


def quick(a=A, b=B, **settings):
    return learn(a, b, **{**QUICK, **settings})


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_files(tmp_path):
    kernel = quick(out=tmp_path, snapshots=[1, 5], classifier=lambda x: torch.stack([x.mean((1, 2, 3))] * 2, 1))
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock", "settings.json", "checkpoint.safetensors", "model.safetensors", "discriminator.safetensors",
        "metrics.csv", "steps.csv", "quality.csv", "kernel.safetensors", "snapshots",
    }  # fmt: skip
    assert LearnedKernel.load(tmp_path) == kernel
    assert kernel.dim == 2 and kernel.facts["iterations"] == 6 and kernel.facts["image_shape"] == [1, 8, 8]
    translator = rp.nets.munit.Translator(1, width=2)
    translator.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert LearnedKernel(translator.generator()) == kernel
    for step in (1, 5):
        snapshot = LearnedKernel.load(tmp_path / "snapshots" / str(step))
        # a run of so many iterations does not end there: its pairs are others; the snapshot is of these weights
        assert snapshot.facts["iterations"] == step and snapshot != kernel
    assert [row["iteration"] for row in rows_of(tmp_path / "quality.csv")] == ["1", "2", "4", "5", "6"]
    last = rows_of(tmp_path / "quality.csv")[-1]
    found = kernel.quality(A, B, limit=128)
    assert float(last["brightness"]) == pytest.approx(found.brightness) and float(last["label_kept"]) == 1
    assert float(last["brightness_distance"]) == pytest.approx(found.brightness_distance)
    steps = rows_of(tmp_path / "steps.csv")
    assert len(steps) == 6 and list(steps[0]) == ["step", "loss", "accuracy", *FIGURES, "discriminator_loss"]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["objective"] == "Munit(image=10.0, content=1.0, style=1.0, adversarial=1.0, cycle=10.0)"


def test_the_picture(tmp_path):
    quick(out=tmp_path, iterations=1)
    picture = imread(tmp_path / "kernel.png")
    height, width = picture.shape[:2]
    assert width > height and picture.std() > 0.1


def test_a_snapshot_is_the_kernel_of_the_run_at_that_iteration(tmp_path):
    kept = {}
    loss = Munit.loss

    def recorded(self, model, x, y, *, key, index):
        kept[len(kept)] = LearnedKernel(model.generator())  # before this update
        return loss(self, model, x, y, key=key, index=index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Munit, "loss", recorded)
        quick(out=tmp_path, snapshots=[1, 3])
    assert LearnedKernel.load(tmp_path / "snapshots" / "1") == kept[1]
    assert LearnedKernel.load(tmp_path / "snapshots" / "3") == kept[3]


@pytest.mark.parametrize("share", SHARES)
def test_the_seed_determines_the_kernel_and_the_callers_generator_is_untouched(share):
    before = torch.get_rng_state()
    one, again, other = (quick(share=share, iterations=2, seed=seed) for seed in (3, 3, 4))
    assert one == again and one != other and torch.equal(torch.get_rng_state(), before)
    assert one.facts["share"] == share


def test_a_gap_in_brightness_closes():
    """Far from converged, but in the direction of B."""
    kernel = quick(width=4, iterations=60, batch_size=4, lr=4e-3, seed=1)
    found = kernel.quality(A, B)
    assert abs(found.brightness - found.brightness_b) < 0.3 * abs(found.brightness_a - found.brightness_b)


KILLED = """
import os, signal, sys
import torch
from python_tests.nuisance.test_learn import quick
from robustperf.training.munit import Munit

torch.set_num_threads(1)
calls, inner = int(sys.argv[1]), Munit.discriminator_loss

def discriminator_loss(*arguments, **named):  # after the translator's update
    global calls
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    calls -= 1
    return inner(*arguments, **named)

Munit.discriminator_loss = discriminator_loss
quick(out=sys.argv[2], resume=True, snapshots=[3])
"""


def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    kernel = quick(out=straight, snapshots=[3])
    processes.killed(KILLED, "3", str(resumed), log=tmp_path / "log")
    assert LearnedKernel.load(resumed).facts["iterations"] == 2  # what was there is whole
    assert quick(out=resumed, resume=True, snapshots=[3]) == kernel
    for name in ("model", "discriminator", "checkpoint"):
        left, right = (load_file(folder / f"{name}.safetensors") for folder in (straight, resumed))
        steps = [each.pop("further.steps", torch.zeros(0)) for each in (left, right)]
        torch.testing.assert_close(*steps, rtol=0, atol=0, equal_nan=True)  # there is no accuracy
        assert_same(left, right)
    for name in ("kernel.safetensors", "snapshots/3/kernel.safetensors", "quality.csv", "steps.csv"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes(), name
    assert quick(out=resumed, resume=True, snapshots=[3]) == kernel  # nothing is left to do


def test_a_loss_that_is_not_finite_stops_it_with_the_last_kernel(tmp_path, monkeypatch):
    inner, calls = Munit.loss, []

    def loss(self, *arguments, **named):
        calls.append(None)
        total, *figures = inner(self, *arguments, **named)
        return (total * (torch.nan if len(calls) == 6 else 1), *figures)

    monkeypatch.setattr(Munit, "loss", loss)
    with pytest.raises(FloatingPointError, match=r"loss: expected a finite number, got nan at step 6 .* is of step 4; "
                       r".*kernel\.safetensors is the kernel of iteration 4$"):  # fmt: skip
        quick(out=tmp_path, snapshots=[1, 5])
    assert LearnedKernel.load(tmp_path).facts["iterations"] == 4
    assert LearnedKernel.load(tmp_path / "snapshots" / "5").facts["iterations"] == 5
    with pytest.raises(FloatingPointError, match="got nan at step 1 "):
        calls[:] = [None] * 5
        quick()


def test_mixed_precision():
    kernel = quick(mixed_precision="bf16")
    assert kernel.draw(A, key=0, index=torch.arange(len(A))).isfinite().all() and kernel != quick()


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quick(out=tmp_path, log_with="tensorboard")
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    steps = rows_of(tmp_path / "steps.csv")
    for name in ("cycle", "discriminator_loss"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx([float(row[name]) for row in steps])
    assert [event.step for event in events.Scalars("quality/spread")] == [2, 4, 6]
    assert [event.step for event in events.Images("kernel")] == [2, 4, 6]


def test_data_sets_of_any_kind_give_the_same_kernel():
    class Read(torch.utils.data.Dataset):
        def __init__(self, x, paired):
            self.x, self.paired = x, paired

        def __len__(self):
            return len(self.x)

        def __getitem__(self, place):
            return (self.x[place], 0) if self.paired else self.x[place]

    expected = quick(iterations=2)
    assert quick(Read(A, True), Read(B, False), iterations=2) == expected
    labelled = Dataset("dark", A, torch.zeros(len(A)).long(), 1)
    named = quick(labelled, (B.numpy(), torch.arange(len(B))), iterations=2)
    assert named == expected and named.facts["a"] == "dark"


def test_more_channels_than_a_picture_has(tmp_path):
    kernel = quick(*domains(channels=5), out=tmp_path, iterations=2)
    assert kernel.draw(images(2, 5), key=0, index=torch.arange(2)).shape == (1, 2, 5, 8, 8)
    assert not (tmp_path / "kernel.png").exists()


def test_large_images_get_large_networks():
    kernel = quick(*domains(count=3, size=64), iterations=1)
    assert kernel.dim == 8 and kernel.generator.settings["downsamplings"] == 2
    assert kernel.generator.settings["residual_blocks"] == 4
    assert quick(iterations=1, style_dim=5, residual_blocks=2).dim == 5


@pytest.mark.parametrize("a, b, message", [
    (A, B[..., :4, :], r"b: expected images \[C, H, W\] with sides of at least 8 pixels that are divisible by 4"),
    (A, images(12, 1, 12), r"b: expected images of the shape of a, \[1, 8, 8\], got \[1, 12, 12\]"),
    (A, images(12, 3), r"b: expected images of the shape of a, \[1, 8, 8\], got \[3, 8, 8\]"),
    (images(12, 1, 10), B, r"a: expected images .* divisible by 4, got \[1, 10, 10\]"),
    (A, A, "b: expected another domain than a, got the same images"),
    (A, A.clone(), "b: expected another domain than a, got the same images"),
    (A[:1], B, "a: expected at least one batch of 2 images, got 1: images"),
    (A, B[:0], "b: expected images, got none"),
    (A, B + 0.1, r"b: expected pixels within \[0, 1\], got 1\."),
    (A - 0.1, B, r"a: expected pixels within \[0, 1\], got -0\."),
    (A * torch.nan, B, "a: expected finite pixels, got nan"),
    (A[0], B, r"a: expected shape \[N, C, H, W\], got \[1, 8, 8\]"),
])  # fmt: skip
def test_domains_that_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        quick(a, b)


def test_images_outside_0_1_that_are_read_from_disk():
    class Read(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, place):
            return A[place] + (place == 7)

    with pytest.raises(ValueError, match=r"a: expected pixels within \[0, 1\], got 1\..* \(in image"):
        quick(Read(), B, iterations=60)


@pytest.mark.parametrize("settings, message", [
    ({"iterations": 0}, "iterations: expected an integer above 0"),
    ({"batch_size": 2.5}, "batch_size: expected an integer above 0"),
    ({"snapshots": [7], "out": "runs"}, r"snapshots: expected an integer in 1\.\.6, got 7"),
    ({"snapshots": [3]}, "out: expected a folder for snapshots, checkpoints and logs, got None"),
    ({"resume": True}, "out: expected a folder"),
    ({"share": "style"}, "share: expected one of none, content, all, got 'style'"),
    ({"distribution": "gauss"}, "distribution: expected one of uniform, normal"),
    ({"lr": 0}, "lr: expected a finite number above 0"),
    ({"cycle": -1}, "cycle: expected a finite number >= 0"),
    ({"style_dim": 0}, "style_dim: expected an integer above 0"),
    ({"downsamplings": 3}, r"downsamplings: expected an integer in 1\.\.2"),
    ({"seed": -1}, "seed: expected"),
])  # fmt: skip
def test_wrong_arguments(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        quick(**settings)
    assert not list(tmp_path.iterdir())


def test_data_that_are_no_images():
    with pytest.raises(TypeError, match="a: expected a data set or images, got a DataLoader; pass its data set"):
        quick(DataLoader(torch.utils.data.TensorDataset(A), batch_size=2), B)
    with pytest.raises(TypeError, match="a: expected torch.float32 or torch.float64, got torch.uint8"):
        quick((255 * A).to(torch.uint8), B)
    with pytest.raises(TypeError, match="b: expected a Dataset, a torch data set with a length"):
        quick(A, 3)


def test_a_classifier_of_other_images_fails_at_once(tmp_path):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        quick(out=tmp_path / "g", classifier=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 2)))
    assert not (tmp_path / "g").exists()


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch):
    def fails(*arguments, **named):
        raise RuntimeError("no font")

    monkeypatch.setattr("robustperf.plot.image_grid", fails)
    with pytest.warns(UserWarning, match="learn: the picture could not be drawn: no font"):
        kernel = quick(out=tmp_path, iterations=1)
    assert LearnedKernel.load(tmp_path) == kernel


def test_another_run_in_the_folder(tmp_path):
    quick(out=tmp_path, iterations=2)
    with pytest.raises(ValueError, match="holds an earlier run; resume=True resumes it"):
        quick(out=tmp_path, iterations=2)
    with pytest.raises(ValueError, match=r"holds a run with other settings: .*objective was .*cycle=10\.0.*cycle=5"):
        quick(out=tmp_path, iterations=2, resume=True, cycle=5)
    with pytest.raises(ValueError, match=r"holds a run with other settings: model was 'Translator"):
        quick(out=tmp_path, iterations=2, resume=True, style_dim=4)
    with pytest.raises(ValueError, match=r"holds a run with other settings: train was 'pairs of images, 12 images"):
        quick(A, 1 - A, out=tmp_path, iterations=2, resume=True)
