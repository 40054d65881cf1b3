from dataclasses import fields

import numpy as np
import pytest
import torch

from robustperf.robustness import Margins
from robustperf.robustness.margin_run import MarginRun, load_margins, save_margins


def some_margins(count=3, points=True):
    return Margins(
        distance=torch.tensor([0.5, torch.inf, 0.0], dtype=torch.float64)[:count],
        attack=torch.tensor([1, -1, -1])[:count], evaluations=torch.tensor([5, 3, 0])[:count],
        found=torch.tensor([True, False, True])[:count], point=torch.rand(3, 1, 2, 2)[:count] if points else None,
        attack_evaluations=torch.tensor([[1, 2, 3], [4, 5, 6]])[:, :count], attacks=("FGSM", "BG"), norm=2.0,
        diameter=2.0,
    )  # fmt: skip


def same(a, b):
    for field in fields(Margins):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize("count", [3, 0])
def test_a_round_trip_keeps_everything(tmp_path, count, points):
    margins = some_margins(count, points)
    save_margins(tmp_path / "margins.npz", margins)
    same(load_margins(tmp_path / "margins.npz"), margins)


def test_another_npz_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="expected the margins that robustperf writes"):
        load_margins(tmp_path / "other.npz")


def test_parts_become_the_result(tmp_path):
    run = MarginRun(tmp_path / "run", {"seed": 1, "eps": float("inf")})
    run.keep(0, some_margins())
    assert run.done(0) and not run.done(3)
    again = MarginRun(tmp_path / "run", {"seed": 1, "eps": float("inf")}, resume=True)
    assert again.done(0)
    again.keep(3, some_margins())
    found = again.collect([0, 3])
    assert found.distance.tolist() == [0.5, torch.inf, 0.0] * 2
    assert found.attack_evaluations.tolist() == [[1, 2, 3] * 2, [4, 5, 6] * 2]
    assert not (tmp_path / "run" / "parts").exists()
    same(again.collect([0, 3]), found)


def test_a_folder_in_use_is_refused(tmp_path):
    MarginRun(tmp_path, {"seed": 1, "gone": 1})
    with pytest.raises(ValueError, match="holds an earlier run"):
        MarginRun(tmp_path, {"seed": 1})
    with pytest.raises(ValueError, match="gone was 1 and is None; new was None and is 2; seed was 1 and is 3"):
        MarginRun(tmp_path, {"seed": 3, "new": 2}, resume=True)


def test_forget_removes_the_run_and_nothing_else(tmp_path):
    run = MarginRun(tmp_path, {"seed": 1})
    run.keep(0, some_margins())
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    MarginRun.forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    MarginRun(tmp_path, {"seed": 2})
