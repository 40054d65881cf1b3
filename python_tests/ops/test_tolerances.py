"""The comparisons that the operations' tests share: each takes the right value and refuses a slightly wrong one."""

import pytest
import torch

from python_tests.support import best_of_k, line_search, nuisance, projection
from robustperf.ops import halfspace_box_projection


@pytest.mark.parametrize("wrong", [2e-6, -2e-6, float("nan")])
def test_close(wrong):
    want = torch.rand(2, 3, dtype=torch.float64)
    nuisance.close(want.float(), want, 1e-6)
    got = want.clone()
    got[1, 2] += wrong
    with pytest.raises(AssertionError):
        nuisance.close(got, want, 1e-6)


@pytest.mark.parametrize("name, change", [("loss", lambda t: t + 3e-6), ("index", lambda t: (t + 1) % 3)])
def test_best_of_k_against_its_truth(monkeypatch, name, change):
    logits, target = best_of_k.sample(3, 8, 5)
    right = dict(zip(("loss", "index"), best_of_k.run(logits, target, "reference", torch.device("cpu")), strict=True))
    best_of_k.check(logits, target, "reference", torch.device("cpu"))
    right[name] = change(right[name])
    monkeypatch.setattr(best_of_k, "run", lambda *args, **settings: tuple(right.values()))
    for ties in (False, True):
        with pytest.raises(AssertionError):
            best_of_k.check(logits, target, "reference", torch.device("cpu"), ties=ties)


@pytest.mark.parametrize("norm", projection.NORMS)
def test_optimality_of_a_projection(norm):
    x, w, c = projection.sample(6, 5, torch.float64)[:3]
    delta, _ = halfspace_box_projection(x, w, c, norm=norm, backend="reference")
    projection.check_optimal(x, w, c, delta, norm)
    farther = delta.clone()
    farther[2] *= 1 + 1e-6
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        projection.check_optimal(x, w, c, farther, norm)
    assert projection.error(delta, delta).tolist() == [0.0] * 6
    assert projection.error(farther, delta)[2] == pytest.approx(1e-6)


def test_what_holds_for_every_search():
    run = line_search.Run(line_search.Problem(4, 2, lambda p, a, s: 0.3 - s), "reference", torch.device("cpu"))
    line_search.check(run)
    right = run.state.clone()
    for field, change in (("best_step", 1e-3), ("radius", -1e-3), ("evaluations", 1.0), ("best_line", 1.0)):
        run.state = right.clone()
        run.state[1, line_search.FIELD[field]] += change
        with pytest.raises(AssertionError):
            line_search.check(run)
