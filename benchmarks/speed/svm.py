"""Prediction by an SVM compared with scikit-learn's SVC.predict, on MNIST with T's RBF kernel, gamma = 0.05 and C = 5;
and with scikit-learn-intelex where it is installed.

    python -m benchmarks.speed.svm --data-root DIR [--fit N] [--points N] [--out DIR]

scikit-learn takes minutes for all points, so it is timed on --peer-points of them; its labels and decision values are
compared on all, once.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from sklearn.svm import SVC

from robustperf import ops
from robustperf.data import load
from robustperf.transfer import SVMModule

from ..common.cases import EAGER, OURS, Case
from ..common.options import add_data_root, add_timing, parse, parser
from ..common.report import Report
from ..common.tables import dtype_name
from ..common.timing import Call, interleave


def cases(quick: bool) -> list[Case]:
    """`eager` is our reference in PyTorch; the pixels are those of the 8x8 digits, without --quick of 28x28."""

    def make(size: int, points: int, gradient: bool) -> dict[str, Call]:
        train, test = (load("digits", split).resized(size) for split in ("train", "test"))
        svc = SVC(gamma=4 / size**2, C=5, decision_function_shape="ovo")
        svc.fit(train.x.flatten(1).double().numpy(), train.y.numpy())
        module, x = SVMModule.from_sklearn(svc), test.x[:points]
        flat = x.flatten(1).double().numpy()

        def with_gradient() -> None:
            images = x.detach().requires_grad_()
            torch.autograd.grad(module(images).amax(1).sum(), images)

        ours = with_gradient if gradient else partial(module.predict, x)

        def reference() -> None:
            with ops.preferring("reference"):
                ours()

        calls = {OURS: ours, EAGER: reference}
        if not gradient:
            calls["scikit-learn"] = lambda: svc.predict(flat)
            if find_spec("sklearnex"):
                from sklearnex.svm import SVC as FastSVC

                fast = FastSVC(gamma=svc.gamma, C=5).fit(train.x.flatten(1).double().numpy(), train.y.numpy())
                calls["scikit-learn-intelex"] = lambda: fast.predict(flat)
        return calls

    size = 8 if quick else 28
    what = [("labels", points, False) for points in (1, 10, 360)] + [("gradients", 360, True)]
    return [
        Case(f"svm, {name} in calls of {points}, {size}x{size}", partial(make, size, points, gradient))
        for name, points, gradient in what
    ]


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=5, threads=1)
    add_data_root(options)
    options.add_argument("--fit", type=int, default=10_000, help="images to fit on")
    options.add_argument("--points", type=int, default=10_000, help="images to predict")
    options.add_argument("--peer-points", type=int, default=500, help="of those, that scikit-learn is timed on")
    arguments = parse(options, selections=("peer_points",))
    train, test = load("mnist", "train", arguments.data_root), load("mnist", "test", arguments.data_root)
    x, y = train.x[: arguments.fit].flatten(1).double().numpy(), train.y[: arguments.fit].numpy()
    svc = SVC(gamma=0.05, C=5, decision_function_shape="ovo").fit(x, y)
    points = test.x[: arguments.points]
    flat = points.flatten(1).double().numpy()
    few = flat[: arguments.peer_points]
    modules = {dtype: SVMModule.from_sklearn(svc, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    inputs = {dtype: points.to(dtype) for dtype in modules}

    @torch.no_grad()
    def forward():
        return torch.cat([modules[torch.float32](part) for part in inputs[torch.float32].split(1024)])

    def gradient():
        images = points[: arguments.peer_points].requires_grad_()
        torch.autograd.grad(modules[torch.float32](images).amax(1).sum(), images)

    calls = {
        "scikit-learn, SVC.predict": lambda: svc.predict(few),
        "scikit-learn, SVC.predict, calls of 1": lambda: svc.predict(few[:1]),
        "scikit-learn, SVC.decision_function, calls of 1": lambda: svc.decision_function(few[:1]),
    }
    if find_spec("sklearnex"):
        from sklearnex.svm import SVC as FastSVC

        fast = FastSVC(gamma=0.05, C=5).fit(x, y)
        calls["scikit-learn-intelex, SVC.predict"] = lambda: fast.predict(flat)
    calls |= {
        "SVMModule.predict, float32": lambda: modules[torch.float32].predict(inputs[torch.float32]),
        "SVMModule.predict, float64": lambda: modules[torch.float64].predict(inputs[torch.float64]),
        "SVMModule.forward, float32": forward,
        "SVMModule, labels and gradients, float32": gradient,
    }
    small = {f"SVMModule.predict, float32, calls of {size}": size for size in (100, 10, 4, 1)}
    calls |= {
        name: partial(modules[torch.float32].predict, inputs[torch.float32][:size]) for name, size in small.items()
    }
    calls["SVMModule.decisions, float32, calls of 1"] = lambda: modules[torch.float32].decisions(points[:1])
    count = {name: 1 if name.endswith("calls of 1") else len(points) for name in calls} | small
    count["scikit-learn, SVC.predict"] = count["SVMModule, labels and gradients, float32"] = len(few)
    times = interleave(calls, arguments.repeats, warmup=1)
    each = {name: seconds / count[name] for name, seconds in times.items()}

    labels, decisions = svc.predict(flat), svc.decision_function(flat)
    differences = {}
    for dtype, module in modules.items():
        with torch.no_grad():
            parts = inputs[dtype].split(1024)
            ours = torch.cat([module.decisions(part) for part in parts])
            argmax = torch.cat([module(part).argmax(1) for part in parts])
        differences[f"SVMModule.predict, {dtype_name(dtype)}"] = (
            int((module.predict(inputs[dtype]).numpy() != labels).sum()),
            int((module.classes_[argmax.numpy()] != labels).sum()),
            float(np.abs(ours.double().numpy() - decisions).max()),
        )  # fmt: skip
    report = Report(
        "svm",
        f"SVC(rbf) of {arguments.fit} MNIST images, {len(svc.support_)} support vectors, on "
        f"{len(points)} points, {arguments.threads} threads",
        arguments.output,
    )
    for name in calls:
        labels_differ, argmax_differ, error = differences.get(name, (None, None, None))
        report.add(
            **{
                "case": name,
                "μs per point": each[name] * 1e6,
                "x faster than scikit-learn": each["scikit-learn, SVC.predict"] / each[name],
                "other labels": labels_differ,
                "other argmax": argmax_differ,
                "decision error": error,
            }
        )
    report.show(bars=("case", "x faster than scikit-learn"))


if __name__ == "__main__":
    main()
