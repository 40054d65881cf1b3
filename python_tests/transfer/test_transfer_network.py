"""f∘T with a network as f, and networks as scikit-learn classifiers."""

from collections import Counter

import numpy as np
import pytest
import sklearn.utils.validation
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from python_tests.support.transfer import quick, small
from robustperf import check, nets
from robustperf.transfer import ModuleClassifier, PairedAutoencoder, TransferClassifier


def test_a_network_gets_pixels_from_0_to_1(digits):
    X, y = digits
    torch.manual_seed(0)
    network = ModuleClassifier(nets.SmallCNN(size=8, width=2), epochs=1, random_state=0)
    one, many, own = quick(network), quick(network, bounds=(0, 256)), quick(network, bounds=None)
    one.fit(X[:200], y[:200]), many.fit(256 * X[:200], y[:200]), own.fit(256 * X[:200] - 99, y[:200])
    frozen = quick(FrozenEstimator(one.estimator_), bounds=(0, 256)).fit(256 * X[:200], y[:200])
    for adapt in (False, True):
        if adapt:
            for model in (one, many, own, frozen):
                low, high = model.bounds_
                model.adapt(high - (high - low) * X[200:300])
        expected = one.predict_proba(X)
        for model, images in ((many, 256 * X), (frozen, 256 * X), (own, 256 * X - 99)):
            np.testing.assert_allclose(model.predict_proba(images), expected, atol=1e-3)
            np.testing.assert_array_equal(model.predict(images), model.classes_[model.predict_proba(images).argmax(1)])


def test_a_network_of_few_images(digits):
    X, y = digits
    network = nets.SmallCNN(size=8, width=2)
    for validation in (0.1, None):
        model = ModuleClassifier(network, epochs=1, batch_size=32, validation=validation)
        model.fit(X[:20], np.arange(20) % 10)
        assert model.predict(X).shape == (len(X),)
    for batch_size in ("32", 0, 2.5, None):
        with pytest.raises(ValueError, match="batch_size: expected an integer above 0, got"):
            ModuleClassifier(network, batch_size=batch_size).fit(X[:20], np.arange(20) % 10)
        with pytest.raises(ValueError, match="batch_size: expected an integer above 0, got"):
            small().fit(torch.zeros(5, 1, 8, 8), batch_size=batch_size)


def test_a_network_is_trained_by_fit(digits):
    X, y = digits
    torch.manual_seed(0)
    network = nets.SmallCNN(size=8, width=8)
    before = [value.clone() for value in network.parameters()]
    trained = ModuleClassifier(network, epochs=10, lr=3e-3, random_state=0)
    model = quick(trained).fit(X[:600], y[:600])
    assert model.score(X[600:], y[600:]) > 0.7
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))
    model.adapt(1 - X[600:700])
    assert model.predict_proba(X).sum(1) == pytest.approx(1)
    done = quick(ModuleClassifier(model.estimator_.module_, prefit=True)).fit(X[:50], y[:50])
    np.testing.assert_array_equal(done.predict(X), model.estimator_.predict(X))


def test_a_network_without_a_module_classifier(digits, monkeypatch):
    X, y = digits
    monkeypatch.setattr(
        ModuleClassifier.__init__, "__kwdefaults__", {**ModuleClassifier.__init__.__kwdefaults__, "epochs": 1}
    )
    torch.manual_seed(0)
    network = nets.SmallCNN(size=8, width=2)
    found = [quick(network).fit(X[:100], y[:100]).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    search = GridSearchCV(ModuleClassifier(network), {"lr": [1e-3, 1e-2]}, cv=2, error_score="raise")
    assert search.fit(X[:200].reshape(-1, 1, 8, 8), y[:200]).best_estimator_.module_ is not network


def test_bad_networks(digits):
    X, y = digits
    network = nets.SmallCNN(size=8, width=2)
    with pytest.raises(TypeError, match="module: expected a torch.nn.Module, got SVC"):
        ModuleClassifier(SVC()).fit(X, y)
    with pytest.raises(ValueError, match="module: expected 3 outputs, one for each label, got 10"):
        ModuleClassifier(network).fit(X, y % 3)
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class"):
        ModuleClassifier(network).fit(X, 0 * y)
    with pytest.raises(ValueError, match=r"X: expected pixels within \[0, 1\]"):
        ModuleClassifier(network).fit(2 * X, y)
    with pytest.raises(ValueError, match="image_shape: expected"):
        ModuleClassifier(network).fit(X[:, :60], y)
    with pytest.raises(NotFittedError):
        ModuleClassifier(network).predict(X)
    with pytest.raises(ValueError, match=r"X: expected pixels within \[0, 1\]"):
        ModuleClassifier(network, prefit=True).fit(X, y).predict(2 * X)


@pytest.mark.parametrize("frozen", [False, True], ids=["cloned", "frozen"])
def test_a_network_gets_the_output_of_the_map_directly(digits, monkeypatch, frozen):
    """X is scaled and validated once; T's output goes to the network as a tensor."""
    X, y = digits
    torch.manual_seed(0)
    network = ModuleClassifier(nets.SmallCNN(size=8, width=2), epochs=1, random_state=0)
    if frozen:
        network = FrozenEstimator(network.fit(X[:200], y[:200]))
    model = quick(network, bounds=(0, 255)).fit(255 * X[:200], y[:200])
    counted, images, validate_data = Counter(), check.images, sklearn.utils.validation.validate_data
    scaled, forward = TransferClassifier._scaled, nets.SmallCNN.forward
    inputs, outputs = [], []

    def count(name, function):
        def counting(*arguments, **options):
            counted[name] += 1
            return function(*arguments, **options)

        return counting

    monkeypatch.setattr(check, "images", count("pixels", images))
    monkeypatch.setattr(sklearn.utils.validation, "validate_data", count("validation", validate_data))
    monkeypatch.setattr(TransferClassifier, "_scaled", count("scaling", scaled))
    monkeypatch.setattr(nets.SmallCNN, "forward", lambda self, x: inputs.append(x.clone()) or forward(self, x))
    transfer = PairedAutoencoder._transfer
    monkeypatch.setattr(
        PairedAutoencoder, "_transfer", lambda self, x: outputs.append(transfer(self, x)) or outputs[-1]
    )
    for adapted in (False, True):
        if adapted:
            model.adapt(255 - 255 * X[200:300])
        for method in (model.predict, model.predict_proba):
            counted.clear(), inputs.clear(), outputs.clear()
            method(255 * X)
            assert counted == {"validation": 1, "scaling": 1}
        if adapted:
            assert torch.equal(torch.cat(inputs), outputs[0])
    with pytest.raises(ValueError, match=r"X: expected pixels within \[0, 255\], got 0 to 510"):
        model.predict(510 * X)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(np.where(X > 0.9, np.nan, X))


def test_a_frozen_network_of_other_images(digits):
    X, y = digits
    network = ModuleClassifier(nets.SmallCNN(size=8, width=2), epochs=1, random_state=0).fit(X[:50], y[:50] % 10)
    message = "estimator: expected a network fitted on images of 16 values, got one fitted on images of 64"
    with pytest.raises(ValueError, match=message):
        quick(FrozenEstimator(network), autoencoder=None).fit(X[:50, :16], y[:50])
