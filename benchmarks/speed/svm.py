"""Prediction by a support vector machine beside scikit-learn's SVC.predict, on MNIST with T's RBF, gamma = 0.05 and
C = 5; and beside scikit-learn-intelex where it is installed.

    python benchmarks/speed/svm.py --data-root DIR [--fit N] [--points N] [--out DIR]

scikit-learn takes minutes for all points, so that it is timed on --peer-points of them and its labels and decision
values are looked at on all, once.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Report, interleave, parser

from robustperf.data import load
from robustperf.transfer import SVMModule


def main() -> None:
    options = parser(__doc__.partition("\n\n")[0].replace("\n", " "))
    options.add_argument("--data-root", type=Path, default=None)
    options.add_argument("--fit", type=int, default=10_000, help="images to fit on")
    options.add_argument("--points", type=int, default=10_000, help="images to predict")
    options.add_argument("--peer-points", type=int, default=500, help="of those, for scikit-learn's turns")
    options.set_defaults(repeats=5)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    train, test = load("mnist", "train", arguments.data_root), load("mnist", "test", arguments.data_root)
    x, y = train.x[: arguments.fit].flatten(1).double().numpy(), train.y[: arguments.fit].numpy()
    svc = SVC(gamma=0.05, C=5, decision_function_shape="ovo").fit(x, y)
    points = test.x[: arguments.points]
    flat = points.flatten(1).double().numpy()
    few = flat[: arguments.peer_points]
    modules = {dtype: SVMModule.from_sklearn(svc, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    seen = {dtype: points.to(dtype) for dtype in modules}

    def gradient():
        images = points[: arguments.peer_points].requires_grad_()
        torch.autograd.grad(modules[torch.float32](images).amax(1).sum(), images)

    calls = {"scikit-learn, SVC.predict": lambda: svc.predict(few)}
    if find_spec("sklearnex"):
        from sklearnex.svm import SVC as FastSVC

        fast = FastSVC(gamma=0.05, C=5).fit(x, y)
        calls["scikit-learn-intelex, SVC.predict"] = lambda: fast.predict(flat)
    calls |= {
        "SVMModule.predict, float32": lambda: modules[torch.float32].predict(seen[torch.float32]),
        "SVMModule.predict, float64": lambda: modules[torch.float64].predict(seen[torch.float64]),
        "SVMModule, labels and gradients, float32": gradient,
    }
    small = {f"SVMModule.predict, float32, calls of {size}": size for size in (100, 10, 1)}
    calls |= {name: partial(modules[torch.float32].predict, seen[torch.float32][:size]) for name, size in small.items()}
    count = {name: len(points) for name in calls} | small
    count["scikit-learn, SVC.predict"] = count["SVMModule, labels and gradients, float32"] = len(few)
    times = interleave(calls, arguments.repeats, warmup=1)
    each = {name: seconds / count[name] for name, seconds in times.items()}

    labels, decisions = svc.predict(flat), svc.decision_function(flat)
    off = {}
    for dtype, module in modules.items():
        with torch.no_grad():
            parts = seen[dtype].split(1024)
            ours = torch.cat([module.decisions(part) for part in parts])
            largest = torch.cat([module(part).argmax(1) for part in parts])
        off[f"SVMModule.predict, {str(dtype).removeprefix('torch.')}"] = (
            int((module.predict(seen[dtype]).numpy() != labels).sum()),
            int((module.classes_[largest.numpy()] != labels).sum()),
            float(np.abs(ours.double().numpy() - decisions).max()),
        )  # fmt: skip
    report = Report(
        "svm",
        f"SVC(rbf) of {arguments.fit} MNIST images, {len(svc.support_)} support vectors, on "
        f"{len(points)} points, {arguments.threads} threads",
        arguments.out,
    )
    for name in calls:
        others, largest, error = off.get(name, (None, None, None))
        report.add(
            **{
                "way": name,
                "μs a point": each[name] * 1e6,
                "x faster than scikit-learn": each["scikit-learn, SVC.predict"] / each[name],
                "other labels": others,
                "other largest outputs": largest,
                "decision error": error,
            }
        )
    report.show(bars=("way", "x faster than scikit-learn"))


if __name__ == "__main__":
    main()
