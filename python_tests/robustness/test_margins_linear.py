"""Linear classifiers: the margin itself, against linear programmes and a bisection of the multiplier."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import nn

from python_tests.support.labels import linear_margins
from robustperf import Margins, margins
from robustperf.robustness.linear import affine_of

NORMS = [1, 2, math.inf]
RNG = np.random.default_rng(0)
X = RNG.random((90, 4)) * [1, 10, 100, 3]
Y = (X @ [2, -0.3, 0.03, 1] > 3).astype(int) + (X[:, 1] > 7)
BOX = (X.min(0), X.max(0))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_of_one_layer(norm, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to(dtype)
    x = torch.rand(15, 1, 3, 4, dtype=dtype)
    found = margins(net, x, norm=norm, keep_points=True)
    weight, bias = (p.detach().double().numpy() for p in net[1].parameters())
    exact = linear_margins(weight, bias, x.flatten(1).double().numpy(), 0.0, 1.0, norm)
    np.testing.assert_allclose(found.distance.numpy(), exact, rtol=1e-6, atol=1e-12)
    assert found.exact.all() and found.attacks == ("closed form",) and found.access == "model"
    some = found.found
    assert some.sum() > 10 and (net(found.point[some]).argmax(1) != net(x[some]).argmax(1)).all()
    length = torch.linalg.vector_norm((found.point - x).flatten(1)[some], norm, dim=1, dtype=torch.float64)
    assert (length >= found.distance[some] * (1 - 1e-9)).all()
    torch.testing.assert_close(length, found.distance[some], rtol=1e-4, atol=1e-4)
    assert found.point[some].min() >= 0 and found.point[some].max() <= 1 and "exact=15" in repr(found)


ESTIMATORS = [
    LogisticRegression(max_iter=2000), LinearSVC(), OneVsRestClassifier(LogisticRegression(max_iter=500)),
    make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(MinMaxScaler(), LinearSVC()),
    make_pipeline(MaxAbsScaler(), LogisticRegression()), make_pipeline(RobustScaler(), StandardScaler(), LinearSVC()),
    make_pipeline(StandardScaler(), MLPClassifier((3,), activation="identity", max_iter=100, random_state=0)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_estimators_with_bounds_of_each_feature(estimator, classes):
    """W and b from the estimator's own decision values at 0 and at the unit vectors."""
    estimator.fit(X, Y.clip(max=classes - 1))

    def decide(rows):
        z = (
            estimator.predict_proba(rows) if not hasattr(estimator, "decision_function")
            else estimator.decision_function(rows)
        )  # fmt: skip
        if not hasattr(estimator, "decision_function"):
            z = np.log(z)
            z = z - z[:, :1]
        return np.stack([np.zeros_like(z), z], 1) if z.ndim == 1 else z

    centre = X.mean(0)
    slope = np.stack([(decide((centre + s)[None]) - decide((centre - s)[None]))[0] / 2 for s in np.eye(4)], 1)
    bias = decide(centre[None])[0] - slope @ centre
    for norm in NORMS:
        found = margins(estimator, X[:8], norm=norm, bounds=BOX)
        exact = linear_margins(slope, bias, X[:8], *BOX, norm)
        np.testing.assert_allclose(found.distance.numpy(), exact, rtol=1e-6, atol=1e-9)
        assert found.exact.all() and found.access == "module"


def test_linear_svc_of_two_classes():
    """|d| / ‖w‖ where the box is not active."""
    for estimator in (SVC(kernel="linear"), make_pipeline(StandardScaler(), SVC(kernel="linear"))):
        estimator.fit(X, Y > 0)
        found = margins(estimator, X, bounds=(-1e3, 1e3))
        svc = estimator if isinstance(estimator, SVC) else estimator[-1]
        weight = svc.coef_[0] / (1 if svc is estimator else estimator[0].scale_)
        exact = np.abs(estimator.decision_function(X)) / np.linalg.norm(weight)
        np.testing.assert_allclose(found.distance.numpy(), exact, rtol=1e-6)
        assert found.exact.all()


def test_no_other_label_in_the_box():
    net = nn.Linear(2, 2).double()
    net.weight.data, net.bias.data = torch.eye(2).double(), torch.tensor([5.0, 0.0]).double()
    x = torch.rand(4, 2).double()
    found = margins(net, x, keep_points=True)
    assert found.distance.isinf().all() and not found.found.any() and found.exact.all() and found.point.isnan().all()
    assert (found.attack == -1).all()
    wider = margins(net, x, bounds=(-math.inf, math.inf))
    torch.testing.assert_close(wider.distance, (x[:, 0] - x[:, 1] + 5) / math.sqrt(2))


def test_labels_and_batches():
    torch.manual_seed(0)
    net, x = nn.Linear(6, 3).double(), torch.rand(21, 6).double()
    labels = torch.randint(3, (21,))
    found = margins(net, x, labels=labels, batch_size=4, keep_points=True)
    wrong = net(x).argmax(1) != labels
    assert 0 < wrong.sum() < 21 and (found.distance[wrong] == 0).all() and torch.equal(found.point[wrong], x[wrong])
    assert torch.equal(found.distance[~wrong], margins(net, x).distance[~wrong]) and found.labelled
    assert found == margins(net, x, labels=labels, keep_points=True)
    with pytest.raises(ValueError, match="labels: expected labels in 0..2, got 3"):
        margins(net, x, labels=labels + 1)
    assert len(margins(net, x[:0])) == 0


def test_attacks_that_are_named_run():
    net, x = nn.Linear(6, 3).double(), torch.rand(8, 6).double()
    found = margins(net, x, attacks="bg")
    assert found.attacks == ("BG",) and not found.exact.any()
    torch.testing.assert_close(found.distance, margins(net, x).distance, rtol=1e-5, atol=1e-7)


def test_saved_and_loaded(tmp_path):
    found = margins(nn.Linear(6, 3), torch.rand(8, 6))
    found.save(tmp_path / "margins.npz")
    assert Margins.load(tmp_path / "margins.npz") == found and Margins.load(tmp_path / "margins.npz").exact.all()


def hooked():
    layer = nn.Linear(4, 3).double()
    layer.register_forward_hook(lambda module, inputs, output: output**3)
    return layer


class Subclass(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 3


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double(),
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).double(),
        nn.Linear(5, 3).double(),
        nn.Linear(4, 3),
        nn.Linear(4, 1).double(),
        hooked(),
        Subclass(4, 3).double(),
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 2)).double(),
        lambda x: x,
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_models_are_not_linear(model):
    assert affine_of(model, torch.rand(2, 4).double()) is None


class Flag(nn.Module):
    """With attributes that have the names of a linear classifier's."""

    def __init__(self):
        super().__init__()
        self.affine, self.affine_logits, self.layer = True, None, nn.Linear(4, 3).double()

    def forward(self, x):
        return self.layer(x) ** 3


def test_attributes_of_modules_are_not_called():
    net = Flag()
    x = torch.rand(5, 4).double()
    assert affine_of(net, x) is None and not margins(net, x).exact.any()


def test_a_data_set_is_read_once():
    net, x, y = nn.Linear(6, 3).double(), torch.rand(9, 6).double(), torch.randint(3, (9,))

    class Data(torch.utils.data.Dataset):
        read = 0

        def __len__(self):
            return 9

        def __getitem__(self, place):
            self.read += 1
            return x[place], y[place]

    data = Data()
    found = margins(net, data, labels="true")
    assert found == margins(net, x, labels=y) and found.exact.all() and data.read <= 10  # one to see its shape


def test_a_layer_on_the_last_axis_is_not_linear_in_images():
    assert affine_of(nn.Linear(4, 2).double(), torch.rand(2, 1, 4).double()) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [
    make_pipeline(Normalizer(), LinearSVC()), make_pipeline(MinMaxScaler(clip=True), LinearSVC()), SVC(),
    SVC(kernel="linear"), MLPClassifier((3,), max_iter=5),
], ids=repr)  # fmt: skip
def test_estimators_that_are_not_linear_are_searched(estimator):
    """Their exact modules, by attacks."""
    estimator.fit(X, Y)
    found = margins(estimator, X[:6], bounds=BOX)
    assert not found.exact.any() and found.access == "module" and found.attacks == ("ShrinkingBall",)


def test_an_estimator_that_chooses_its_penalty():
    estimator = LogisticRegressionCV(Cs=2, cv=2, max_iter=2000).fit(X / X.max(0), Y)
    assert margins(estimator, X[:6] / X.max(0)).exact.all()
