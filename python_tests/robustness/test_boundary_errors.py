"""Wrong arguments of the line search and of the closest boundary."""

import math

import pytest
import torch

from python_tests.support.boundary import (
    mlp,
    uniforms,
)
from robustperf import closest_boundary, line_search

OP = "line_search_step"  # for the `backend` fixture


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": lambda v: v.mul(255).byte()}, TypeError, "x: expected torch.float32 or torch.float64, got torch.uint8"),
        ({"x": lambda v: v[0]}, ValueError, r"x: expected a batch"),
        ({"x": lambda v: v.tolist()}, TypeError, "x: expected a tensor, got list"),
        ({"x": lambda v: v * math.nan}, ValueError, "x: expected finite pixels, got nan"),
        ({"x_adv": lambda v: v * math.nan}, ValueError, "x_adv: expected finite pixels, got nan"),
        ({"x_adv": lambda v: v / 0}, ValueError, "x_adv: expected finite pixels, got"),
        ({"x_adv": lambda v: v.float()}, TypeError, "x_adv: expected torch.float64, got torch.float32"),
        ({"x_adv": lambda v: v.long()}, TypeError, "x_adv: "),
        ({"x_adv": lambda v: v[:, :2]}, ValueError, r"x_adv: expected shape \[4, 3\], got \[4, 2\]"),
        ({"x_adv": lambda v: v[:2]}, ValueError, r"x_adv: expected shape \[4, 3\], got \[2, 3\]"),
        ({"x_adv": lambda v: v.tolist()}, TypeError, "x_adv: expected a tensor, got list"),
        ({"labels": lambda v: v + 4}, ValueError, r"labels: expected labels in 0\.\.3, got"),
        ({"labels": lambda v: v - 4}, ValueError, r"labels: expected labels in 0\.\.3, got -"),
        ({"labels": lambda v: v.int()}, TypeError, "labels: expected torch.int64, got torch.int32"),
        ({"labels": lambda v: v[:3]}, ValueError, r"labels: expected shape \[4\], got \[3\]"),
        ({"labels": lambda v: v.to("meta")}, ValueError, "labels: expected a tensor on cpu, got one on meta"),
        ({"labels": lambda v: v.tolist()}, TypeError, "labels: expected a tensor, got list"),
    ],
)
def test_wrong_tensors(change, error, match):
    net = mlp(3, seed=1)
    values = {"x": uniforms(4, 3, seed=2), "x_adv": uniforms(4, 3, seed=3)}
    values["labels"] = net(values["x"]).argmax(1)
    for name, function in change.items():
        values[name] = function(values[name])
    with pytest.raises(error, match=match):
        line_search(net, values["x"], values["x_adv"], labels=values["labels"])


def test_wrong_images_beside_known_gaps():
    gaps = (None, torch.full((4,), -1.0, dtype=torch.float64))
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        line_search(mlp(3, seed=1), [[0.0] * 3] * 4, uniforms(4, 3, seed=3), gaps=gaps)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda c: c[0], ValueError, "candidates: expected shape"),
        (lambda c: c[0, 0], ValueError, "candidates: expected shape"),
        (lambda c: c[:, :3], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 3, 3\]"),
        (lambda c: c[:, :, :2], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 4, 2\]"),
        (lambda c: c[..., None], ValueError, r"candidates: expected shape \[A, 4, 3\], got \[2, 4, 3, 1\]"),
        (lambda c: c.float(), TypeError, "candidates: expected torch.float64, got torch.float32"),
        (lambda c: c.long(), TypeError, "candidates: "),
        (lambda c: c.to("meta"), ValueError, "candidates: expected a tensor on cpu, got one on meta"),
        (lambda c: list(c), TypeError, "candidates: expected a tensor, got list"),
        (lambda c: c.index_fill(1, torch.tensor([2]), math.nan), ValueError, "candidates: expected finite pixels"),
        (lambda c: c.index_fill(1, torch.tensor([2]), -math.inf), ValueError, "candidates: expected finite pixels"),
    ],
)
def test_wrong_candidates(change, error, match):
    with pytest.raises(error, match=match):
        closest_boundary(mlp(3, seed=1), uniforms(4, 3, seed=2), change(uniforms(2, 4, 3, seed=3)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"tol": 0.0}, "tol: "),
        ({"tol": 1.0}, "tol: "),
        ({"tol": -1e-3}, "tol: "),
        ({"tol": math.nan}, "tol: "),
        ({"tol": "fine"}, "tol: "),
        ({"method": "secant"}, "method: expected one of chandrupatla, bisection, got 'secant'"),
        ({"probes": -1}, "probes: "),
        ({"probes": 1.5}, "probes: "),
        ({"probes": True}, "probes: "),
    ],
)
def test_wrong_settings(arguments, match):
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    with pytest.raises(ValueError, match=match):
        line_search(net, x, x_adv, **arguments)
    with pytest.raises(ValueError, match=match):
        closest_boundary(net, x, x_adv[None], **arguments)


@pytest.mark.parametrize("norm", [3, 0, -1, "l2", math.nan, None])
def test_wrong_norm(norm):
    with pytest.raises(ValueError, match="norm: expected 1, 2 or inf"):
        closest_boundary(mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(1, 4, 3, seed=3), norm=norm)


def test_wrong_gaps():
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    labels, gap = net(x).argmax(1), torch.ones(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="gaps: expected labels beside a gap at x"):
        line_search(net, x, x_adv, gaps=(gap, None))
    for wrong, error in (
        (gap.float(), TypeError),
        (gap[:3], ValueError),
        (gap.tolist(), TypeError),
        (gap.to("meta"), ValueError),
    ):
        with pytest.raises(error, match=r"gaps\[0\]: "):
            line_search(net, x, x_adv, gaps=(wrong, None), labels=labels)
        with pytest.raises(error, match=r"gaps\[1\]: "):
            line_search(net, x, x_adv, gaps=(gap, wrong), labels=labels)
    for wrong, error in (
        (gap, ValueError),
        (torch.ones(3, 4, dtype=torch.float64), ValueError),
        (torch.ones(2, 4), TypeError),
    ):
        with pytest.raises(error, match=r"gaps\[1\]: "):
            closest_boundary(net, x, torch.stack([x_adv, x_adv]), gaps=(None, wrong))
    with pytest.raises(ValueError, match="gaps: expected known gaps at x, got NaN"):
        line_search(net, x, x_adv, gaps=(gap * math.nan, None), labels=labels)


def test_labels_out_of_range_with_known_gaps(backend, device):
    """A label that the model does not have is an error, not a crossing, also where x is not evaluated again."""
    net, x, x_adv = mlp(3, seed=1).to(device), uniforms(4, 3, seed=2).to(device), uniforms(4, 3, seed=3).to(device)
    if device.type != "cpu":
        pytest.skip("labels are checked on the CPU only: no host-device synchronisation")
    for label in (4, 11, -1):
        with pytest.raises(ValueError, match=r"labels: expected labels in 0\.\.3"):
            line_search(
                net,
                x,
                x_adv,
                labels=torch.full((4,), label),
                backend=backend,
                gaps=(torch.ones(4, dtype=torch.float64), None),
            )


@pytest.mark.parametrize(
    ("wrap", "error", "match"),
    [
        (lambda net: "net", TypeError, "model: expected a module or a callable, got str"),
        (lambda net: lambda x: net(x)[:, :1], ValueError, r"model\(x\): expected logits of at least two classes"),
        (lambda net: lambda x: net(x)[:, 0], ValueError, r"model\(x\): expected shape \[4, C\], got \[4\]"),
        (lambda net: lambda x: net(x)[1:], ValueError, r"model\(x\): expected shape \[4, C\], got \[3, 4\]"),
        (lambda net: lambda x: net(x)[None], ValueError, r"model\(x\): expected shape \[4, C\], got \[1, 4, 4\]"),
        (lambda net: lambda x: (net(x),), TypeError, r"model\(x\): expected a tensor, got tuple"),
        (lambda net: lambda x: net(x).long(), TypeError, r"model\(x\): expected .*, got torch.int64"),
        (lambda net: lambda x: net(x).to("meta"), ValueError, r"model\(x\): expected a tensor on cpu, got one on meta"),
    ],
)
def test_wrong_models(wrap, error, match):
    net, x, x_adv = mlp(3, seed=1), uniforms(4, 3, seed=2), uniforms(4, 3, seed=3)
    with pytest.raises(error, match=match):
        line_search(wrap(net), x, x_adv)
    with pytest.raises(error, match=match):
        closest_boundary(wrap(net), x, x_adv[None])
