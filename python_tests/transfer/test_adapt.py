"""`TransferClassifier.adapt`: its warning about a harmful map, and its options of `training.fit`."""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.svm import SVC

import robustperf as rp
from robustperf.transfer import ModuleClassifier, PairedAutoencoder, TransferClassifier

DATA = rp.data.load("digits", "train")
X, Y = DATA.x[:300].numpy(), DATA.y[:300].numpy()
MORE = DATA.x[300:500].numpy(), DATA.y[300:500].numpy()


def fitted(**options):
    torch.manual_seed(0)
    return TransferClassifier(
        SVC(), PairedAutoencoder((1, 8, 8), 8, 4, 16), random_state=0, **{"epochs": 1, **options}
    ).fit(X, Y)


def blackens(fraction):
    """A stand-in for T that turns this fraction of the images black."""

    def transfer(self, x):
        return x.where(torch.arange(len(x)).view(-1, 1, 1, 1) % round(1 / fraction) != 0, 0.0)

    return transfer


@pytest.mark.parametrize("fraction, warns", [(1.0, True), (0.1, True), (1e-9, False)])
@pytest.mark.parametrize("given", [False, True], ids=["fit's images", "validation"])
def test_a_map_that_harms_clean_images_is_reported(monkeypatch, fraction, warns, given):
    model = fitted()
    X_clean, y = MORE if given else (X, Y)
    monkeypatch.setattr(PairedAutoencoder, "_transfer", blackens(fraction))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        model.adapt(1 - X[:50], validation=MORE if given else None)
    messages = [str(warning.message) for warning in caught if str(warning.message).startswith("adapt: ")]
    assert len(messages) == warns
    if warns:
        before, after = np.mean(model.estimator_.predict(X_clean.reshape(len(y), -1)) == y), model.score(X_clean, y)
        expected = f"on {len(y)} clean images x, the accuracy of f(x) is {before:.1%} and that of f(T(x)) {after:.1%}"
        assert expected in messages[0]


def test_the_warning_is_based_on_1000_of_many_images(monkeypatch):
    many, labels = np.tile(X, (5, 1, 1, 1)), np.tile(Y, 5)
    model = TransferClassifier(SVC(), PairedAutoencoder((1, 8, 8), 8, 4, 16), random_state=0, epochs=1)
    model.fit(many, labels)
    monkeypatch.setattr(PairedAutoencoder, "_transfer", blackens(1))
    with pytest.warns(RuntimeWarning, match="on 1,000 clean images"):
        model.adapt(1 - X[:50])


def test_the_validation_images_are_checked():
    model = fitted()
    with pytest.raises(ValueError, match="validation: expected a label for each of 200 images, got 100"):
        model.adapt(1 - X[:50], validation=(MORE[0], MORE[1][:100]))
    with pytest.raises(ValueError, match="validation: expected images of shape"):
        model.adapt(1 - X[:50], validation=(MORE[0][:, :, :4], MORE[1]))
    assert not hasattr(model, "autoencoder_")


@pytest.mark.filterwarnings("ignore:adapt. on")
def test_progress_and_resuming(tmp_path, capfd):
    uninterrupted = fitted(epochs=2).adapt(1 - X[:50])
    assert capfd.readouterr().err == ""
    fitted(epochs=1).adapt(1 - X[:50], out=tmp_path, progress=True)
    assert "epoch 1/1" in capfd.readouterr().err
    resumed = fitted(epochs=2).adapt(1 - X[:50], out=tmp_path, resume=True)
    for name, value in uninterrupted.autoencoder_.state_dict().items():
        assert torch.equal(value, resumed.autoencoder_.state_dict()[name])
    with pytest.raises(ValueError, match="out: .* holds an earlier run; resume=True"):
        fitted().adapt(1 - X[:50], out=tmp_path)


def test_a_networks_training_shows_its_progress_on_request(tmp_path, capfd):
    torch.manual_seed(0)
    model = ModuleClassifier(rp.nets.build("small-cnn", size=8), epochs=1, image_shape=(1, 8, 8))
    model.fit(X, Y)
    assert capfd.readouterr().err == ""
    model.fit(X, Y, progress=True, out=tmp_path)
    assert "epoch 1/1" in capfd.readouterr().err and (tmp_path / "model.safetensors").exists()


def test_images_where_scikit_learn_returns_data_frames():
    pytest.importorskip("pandas", reason="pandas is not installed")
    model = fitted()
    with sklearn.config_context(transform_output="pandas"):
        frame = model.transform(X)
    assert frame.shape == (300, 64) and np.array_equal(frame.to_numpy(), X.reshape(300, 64))
    assert np.array_equal(model.transform(X), X)
    assert model.set_output(transform="pandas").transform(X).shape == (300, 64)
