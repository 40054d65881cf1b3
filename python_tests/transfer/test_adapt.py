"""What `TransferClassifier.adapt` tells of the map it has learned, and what it takes of `training.fit`."""

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


class Maps:
    """Stand-ins for T, of which it is known how many labels they change."""

    @staticmethod
    def dark(share):
        """Every so-manieth image becomes black."""

        def transfer(self, x):
            return x.where(torch.arange(len(x)).view(-1, 1, 1, 1) % round(1 / share) != 0, 0.0)

        return transfer


@pytest.mark.parametrize("share, warned", [(1.0, True), (0.1, True), (1e-9, False)])
@pytest.mark.parametrize("given", [False, True], ids=["fit's images", "validation"])
def test_a_map_that_harms_clean_images_is_told(monkeypatch, share, warned, given):
    model = fitted()
    X_clean, y = MORE if given else (X, Y)
    monkeypatch.setattr(PairedAutoencoder, "transfer", Maps.dark(share))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        model.adapt(1 - X[:50], validation=MORE if given else None)
    told = [str(warning.message) for warning in told if str(warning.message).startswith("adapt: ")]
    assert len(told) == warned
    if warned:
        before, after = np.mean(model.estimator_.predict(X_clean.reshape(len(y), -1)) == y), model.score(X_clean, y)
        assert f"about {before:.1%} of {len(y)} clean images x and about {after:.1%} of T(x)" in told[0]


def test_few_of_many_images_are_looked_at(monkeypatch):
    many, labels = np.tile(X, (5, 1, 1, 1)), np.tile(Y, 5)
    model = TransferClassifier(SVC(), PairedAutoencoder((1, 8, 8), 8, 4, 16), random_state=0, epochs=1)
    model.fit(many, labels)
    monkeypatch.setattr(PairedAutoencoder, "transfer", Maps.dark(1))
    with pytest.warns(RuntimeWarning, match="of 1,000 clean images"):
        model.adapt(1 - X[:50])


def test_the_validation_images_are_checked():
    model = fitted()
    with pytest.raises(ValueError, match="validation: expected a label for each of 200 images, got 100"):
        model.adapt(1 - X[:50], validation=(MORE[0], MORE[1][:100]))
    with pytest.raises(ValueError, match="validation: expected images of shape"):
        model.adapt(1 - X[:50], validation=(MORE[0][:, :, :4], MORE[1]))
    assert not hasattr(model, "autoencoder_")


@pytest.mark.filterwarnings("ignore:adapt. f is right")
def test_progress_and_resuming(tmp_path, capfd):
    whole = fitted(epochs=2).adapt(1 - X[:50])
    assert capfd.readouterr().err == ""
    fitted(epochs=1).adapt(1 - X[:50], out=tmp_path, progress=True)
    assert "epoch 1/1" in capfd.readouterr().err
    resumed = fitted(epochs=2).adapt(1 - X[:50], out=tmp_path, resume=True)
    for name, value in whole.autoencoder_.state_dict().items():
        assert torch.equal(value, resumed.autoencoder_.state_dict()[name])
    with pytest.raises(ValueError, match="out: .* holds an earlier run; resume=True"):
        fitted().adapt(1 - X[:50], out=tmp_path)


def test_a_network_shows_its_progress_too(tmp_path, capfd):
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
