"""f∘T as a scikit-learn estimator, and what it learns from images without labels."""

import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.utils.estimator_checks import estimator_checks_generator

import robustperf as rp
from python_tests.support.transfer import quick, small
from robustperf import nets
from robustperf.nuisance import mnist_c
from robustperf.transfer import PairedAutoencoder, TransferClassifier


@pytest.mark.parametrize(
    "estimator, check",
    [
        pytest.param(estimator, check, id=f"{name}-{getattr(check, 'func', check).__name__}")
        for name, made in (("svc", SVC()), ("probabilities", LogisticRegression(max_iter=300)))
        # the checks use features that are no pixels, hence bounds=None; they never call `adapt`
        for estimator, check in estimator_checks_generator(TransferClassifier(made, bounds=None), mark="skip")
    ],
)
def test_estimator_checks(estimator, check):
    check(estimator)


def test_before_adapt_it_equals_the_estimator(digits):
    X, y = digits
    plain, model = SVC().fit(X[:300], y[:300]), quick().fit(X[:300], y[:300])
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    np.testing.assert_array_equal(model.decision_function(X), plain.decision_function(X))
    np.testing.assert_array_equal(model.transform(X), X)
    assert model.score(X, y) == plain.score(X, y) and not hasattr(model, "autoencoder_")


def test_after_adapt_it_is_the_estimator_of_the_maps_output(digits):
    X, y = digits
    given = small()
    model = quick(autoencoder=given).fit(X[:300], y[:300]).adapt(1 - X[300:400])
    T = model.autoencoder_.transfer(torch.tensor(X, dtype=torch.float32).view(-1, 1, 8, 8)).flatten(1).numpy()
    np.testing.assert_array_equal(model.transform(X), T.astype(np.float64))
    np.testing.assert_array_equal(model.predict(X), SVC().fit(X[:300], y[:300]).predict(T))
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    own = small()  # the same training by hand; what was given stays as it was
    assert torch.equal(given.encoder[0].weight, own.encoder[0].weight)
    clean, shifted = (torch.tensor(rows, dtype=torch.float32).view(-1, 1, 8, 8) for rows in (X[:300], 1 - X[300:400]))
    own.fit(clean, shifted, epochs=1, seed=rp.random.fold_in(model._key, 0), progress=False)
    for now, then in zip(model.autoencoder_.parameters(), own.parameters(), strict=True):
        assert torch.equal(now, then)


def test_it_adapts_to_a_shift_without_labels():
    train, test = rp.data.load("digits", "train"), rp.data.load("digits", "test")
    x, y = train.x.numpy(), train.y.numpy()
    striped, tested = (
        mnist_c("stripe").draw(data.x, key=0, index=torch.arange(len(data)))[0].numpy() for data in (train, test)
    )
    torch.manual_seed(0)
    model = TransferClassifier(
        SVC(C=5, gamma=0.05),
        PairedAutoencoder((1, 8, 8), code=32, width=16, hidden=128),
        epochs=12,
        lr=3e-3,
        random_state=0,
    ).fit(x[:600], y[:600])
    before = model.score(tested, test.y.numpy())
    after = model.adapt(striped[600:]).score(tested, test.y.numpy())
    assert before < 0.6 and after > 0.75


def test_adapt_continues_from_the_current_weights(digits):
    X, y = digits
    model = quick().fit(X[:200], y[:200]).adapt(1 - X[200:300])
    first = model.autoencoder_
    kept = [value.clone() for value in first.parameters()]
    model.adapt(X[300:400] ** 2)
    own = first
    clean, shifted = (torch.tensor(rows, dtype=torch.float32).view(-1, 1, 8, 8) for rows in (X[:200], X[300:400] ** 2))
    assert model.adaptations_ == 2 and model.autoencoder_ is not first
    assert all(torch.equal(now, then) for now, then in zip(first.parameters(), kept, strict=True))
    own.fit(clean, shifted, epochs=1, seed=rp.random.fold_in(model._key, 1), progress=False)
    for now, then in zip(model.autoencoder_.parameters(), own.parameters(), strict=True):
        assert torch.equal(now, then)
    model.fit(X[:200], y[:200])  # starts again
    assert model.adaptations_ == 0 and not hasattr(model, "autoencoder_")


def test_an_adaptation_that_fails_changes_nothing(digits):
    X, y = digits
    model = quick().fit(X[:200], y[:200]).adapt(1 - X[200:300])
    before = model.transform(X)
    model.set_params(lr=1e30)
    with pytest.raises(FloatingPointError):
        model.set_params(epochs=5).adapt(1 - X[200:300])
    np.testing.assert_array_equal(model.transform(X), before)


def test_without_images_it_learns_from_the_clean_images_only(digits):
    X, y = digits
    model = quick().fit(X[:200], y[:200]).adapt()
    for now, then in zip(model.autoencoder_.shifted.parameters(), small().shifted.parameters(), strict=True):
        assert torch.equal(now, then)
    assert not np.array_equal(model.transform(X), X)


def test_the_same_from_the_same_random_state(digits):
    X, y = digits
    found = [
        TransferClassifier(SVC(), epochs=1, random_state=seed).fit(X[:100], y[:100]).adapt(X[100:150]).transform(X)
        for seed in (1, 1, 2, np.random.RandomState(1))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[3])
    assert not np.array_equal(found[0], found[2])


def test_the_default_is_appendix_b(digits):
    X, y = digits
    model = TransferClassifier(SVC(), epochs=1).fit(X[:100], y[:100]).adapt(X[100:150])
    shapes = [tuple(value.shape) for value in PairedAutoencoder((1, 8, 8)).parameters()]
    assert [tuple(value.shape) for value in model.autoencoder_.parameters()] == shapes
    assert model.get_params()["epochs"] == 1 and TransferClassifier(SVC()).get_params()["epochs"] == 100


@pytest.mark.parametrize("shape", [(-1, 64), (-1, 8, 8), (-1, 1, 8, 8)])
def test_rows_or_images(digits, shape):
    X, y = digits
    rows = quick().fit(X[:200], y[:200]).adapt(1 - X[200:300])
    images = quick().fit(X[:200].reshape(shape), y[:200]).adapt(1 - X[200:300].reshape(shape))
    made = images.transform(X.reshape(shape))
    assert made.shape == X.reshape(shape).shape and images.image_shape_ == (1, 8, 8)
    np.testing.assert_array_equal(made.reshape(-1, 64), rows.transform(X))
    np.testing.assert_array_equal(images.predict(X.reshape(shape)), rows.predict(X))


def test_images_of_three_channels():
    x, y = np.random.default_rng(0).random((40, 3, 8, 12)), np.arange(40) % 2
    for options, X in (
        ({}, x),
        ({"image_shape": (3, 8, 12)}, x.reshape(40, -1)),
        ({"autoencoder": small((3, 8, 12))}, x.reshape(40, -1)),
    ):
        model = quick(**{"autoencoder": None, **options}).fit(X, y).adapt(X)
        assert model.image_shape_ == model.autoencoder_.image_shape == (3, 8, 12)
        assert model.transform(X).shape == X.shape


def test_labels_are_kept(digits):
    X, y = digits
    names = np.array([f"digit {label}" for label in y], dtype=object)
    model = quick().fit(X[:300], names[:300]).adapt(X[300:350])
    assert set(model.predict(X)) <= set(names) and model.classes_.tolist() == sorted(set(names))


def test_pixels_from_0_to_255(digits):
    X, y = digits
    one, many = quick().fit(X[:200], y[:200]), quick(bounds=(0, 255)).fit(255 * X[:200], y[:200])
    one.adapt(1 - X[200:300])
    many.adapt(255 - 255 * X[200:300])
    np.testing.assert_allclose(many.transform(255 * X), 255 * one.transform(X), atol=0.5)


@pytest.mark.parametrize(
    "estimator, name",
    [
        (SVR(), "SVR"),
        (None, "NoneType"),
        (SVC, "<class .*SVC'>"),
        (MinMaxScaler(), "MinMaxScaler"),
        ("svc", "str"),
    ],
)
def test_other_estimators_are_rejected(digits, estimator, name):
    X, y = digits
    message = f"estimator: expected a scikit-learn classifier or a torch.nn.Module, got {name}"
    with pytest.raises(TypeError, match=message):
        TransferClassifier(estimator).fit(X, y)


def test_bounds_from_the_data(digits):
    X, y = digits
    model = quick(bounds=None).fit(3 * X[:200] - 1, y[:200]).adapt(3 * X[200:300] - 1)
    assert model.bounds_ == (-1.0, 2.0)
    made = model.transform(5 * X)
    assert made.min() >= -1 and made.max() <= 2


def test_probabilities_and_decisions_exist_where_the_estimator_has_them(digits):
    X, y = digits
    for estimator, has in (
        (SVC(), "decision_function"),
        (KNeighborsClassifier(), "predict_proba"),
        (nets.SmallCNN(size=8, width=2), "predict_proba"),
    ):
        lacks = ({"decision_function", "predict_proba"} - {has}).pop()
        model = quick(estimator)
        assert hasattr(model, has) and not hasattr(model, lacks)
        with pytest.raises(AttributeError, match=f"has no attribute '{lacks}'"):
            getattr(model, lacks)
    model = quick(KNeighborsClassifier()).fit(X[:300], y[:300]).adapt(X[300:350])
    assert model.predict_proba(X).shape == (len(X), 10)
    assert quick(LinearSVC()).fit(X[:100], y[:100]).decision_function(X).shape == (len(X), 10)


def test_clones_pickles_and_parameters(digits):
    X, y = digits
    model = quick(SVC(C=3)).fit(X[:200], y[:200]).adapt(1 - X[200:300])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    other = clone(model)
    assert other.get_params()["estimator__C"] == 3 and not hasattr(other, "estimator_")
    again = other.fit(X[:200], y[:200]).adapt(1 - X[200:300])
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert clone(quick(nets.SmallCNN(size=8))).get_params()["estimator"].shape == (1, 8, 8)


def test_in_a_pipeline_and_a_grid_search(digits):
    X, y = digits
    X, y, shifted = X[:200], y[:200], 1 - X[200:260]
    pipeline = make_pipeline(MinMaxScaler(clip=True), quick())
    pipeline.fit(X, y, transferclassifier__X_shifted=shifted)
    assert pipeline[-1].adaptations_ == 1 and pipeline.score(X, y) <= 1
    behind = make_pipeline(quick(), FunctionTransformer(), SVC()).fit(X, y)  # as a transformer
    assert behind.predict(X).shape == (200,)
    search = GridSearchCV(quick(), {"estimator__C": [1, 10], "lr": [1e-3]}, cv=2, error_score="raise")
    search.fit(X, y, X_shifted=shifted)
    assert search.best_estimator_.adaptations_ == 1 and search.best_params_["estimator__C"] in (1, 10)


def test_a_frozen_estimator_is_taken_as_fitted(digits):
    X, y = digits
    svc = SVC().fit(X, y)
    model = quick(FrozenEstimator(svc)).fit(X[:100], y[:100])
    np.testing.assert_array_equal(model.predict(X), svc.predict(X))
    np.testing.assert_array_equal(model.classes_, svc.classes_)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda X: X + 0.5, ValueError, r"X: expected pixels within \[0, 1\], got 0.5 to 1.5"),
        (lambda X: X - 1e-3, ValueError, r"X: expected pixels within \[0, 1\]"),
        (lambda X: np.where(X > 0.9, np.nan, X), ValueError, "Input X contains NaN"),
        (lambda X: np.where(X > 0.9, np.inf, X), ValueError, "Input X contains infinity"),
    ],
)
def test_bad_images(digits, change, error, message):
    X, y = digits
    with pytest.raises(error, match=message):
        quick().fit(change(X), y)
    model = quick().fit(X[:100], y[:100])
    for call in (model.predict, model.transform, model.decision_function):
        with pytest.raises(error, match=message):
            call(change(X))
    with pytest.raises(error, match=message.replace("X: ", "X_shifted: ")):
        model.adapt(change(X))


def test_images_of_another_shape(digits):
    X, y = digits
    model = quick().fit(X[:100], y[:100])
    with pytest.raises(ValueError, match="X has 49 features, but TransferClassifier is expecting 64"):
        model.adapt(X[:, :49])
    with pytest.raises(ValueError, match=r"X_shifted: expected images of shape \(1, 8, 8\), got \(1, 4, 16\)"):
        model.adapt(X.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match=r"image_shape: expected that of the images, 64 values, got \(1, 8, 4\)"):
        quick(image_shape=(1, 8, 4)).fit(X, y)
    with pytest.raises(ValueError, match=r"image_shape: expected that of the images, \(1, 16, 4\)"):
        quick().fit(X.reshape(-1, 16, 4), y)
    with pytest.raises(ValueError, match=r"image_shape: expected \(C, H, W\) for images of 60 values.*got None"):
        quick(autoencoder=None).fit(X[:, :60], y).adapt(X[:, :60])
    with pytest.raises(ValueError, match="image_shape: expected sides divisible by 4, got 7 x 7"):
        quick(autoencoder=None).fit(X[:, :49], y).adapt(X[:, :49])
    with pytest.raises(ValueError, match=r"image_shape: expected that of autoencoder, \(1, 8, 8\), got \(1, 4, 16\)"):
        quick(image_shape=(1, 4, 16)).fit(X, y)


def test_other_bad_input(digits):
    X, y = digits
    for call in (quick().predict, quick().transform, quick().adapt, quick().decision_function):
        with pytest.raises(NotFittedError):
            call(X)
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class"):
        quick().fit(X, np.zeros(len(X)))
    with pytest.raises(TypeError, match="autoencoder: expected a PairedAutoencoder, got Linear"):
        quick(autoencoder=torch.nn.Linear(2, 2)).fit(X, y)
    with pytest.raises(ValueError, match="bounds: expected finite lower < upper"):
        quick(bounds=(1, 0)).fit(X, y)
    with pytest.raises(ValueError, match="epochs: expected an integer above 0, got 0"):
        quick(epochs=0).fit(X, y, X_shifted=X)


@pytest.mark.parametrize("of_all", [True, False], ids=["config", "set_output"])
def test_data_frames_have_the_images_as_rows(digits, of_all):
    pandas = pytest.importorskip("pandas")
    X, y = digits[0][:100], digits[1][:100]
    model = quick().fit(X, y).adapt(X[:20])
    expected = model.transform(X)
    with sklearn.config_context(transform_output="pandas" if of_all else "default"):
        framed = model if of_all else clone(model).set_output(transform="pandas").fit(X, y).adapt(X[:20])
        for shape in ((64,), (8, 8), (1, 8, 8)):
            found = framed.transform(X.reshape(-1, *shape))
            assert isinstance(found, pandas.DataFrame) and list(found.columns) == list(model.get_feature_names_out())
            np.testing.assert_array_equal(found.to_numpy(), expected)
        np.testing.assert_array_equal(framed.predict(X), model.predict(X))
        if of_all:
            plain = clone(model).set_output(transform="default").fit(X, y)
            assert plain.transform(X.reshape(-1, 8, 8)).shape == (100, 8, 8)
    assert model.transform(X.reshape(-1, 8, 8)).shape == (100, 8, 8)
