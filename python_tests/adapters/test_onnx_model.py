"""ONNX files: onnxruntime's values, and the gradients of the same network in PyTorch."""

import copy
import warnings

import numpy as np
import pytest
import torch

import robustperf as rp
from python_tests.support.onnx_files import save, small_network

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
OnnxModel = rp.adapters.OnnxModel


@pytest.fixture
def x():
    return torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def path(tmp_path):
    _, nodes, weights = small_network()
    return save(tmp_path / "model.onnx", nodes, weights, shape=(3, 6, 6))


def runtime(path, x):
    """onnxruntime's logits."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.detach().numpy()})[0])


def test_values_are_those_of_onnxruntime_with_and_without_gradients(path, x):
    model = OnnxModel(path)
    assert torch.equal(model(x), runtime(path, x))
    assert torch.equal(model(x.clone().requires_grad_()).detach(), runtime(path, x))
    torch.testing.assert_close(model(x), small_network()[0](x))


def test_gradient_is_that_of_the_network(path, x):
    model, network = OnnxModel(path), small_network()[0]
    assert model.no_gradient is None
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(own)[:, 1].sum().backward()
    network(other)[:, 1].sum().backward()
    torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("attacks", ["fgsm,pgd,bg"])
def test_every_point_found_crosses_in_onnxruntime(path, x, attacks):
    found = rp.margins(OnnxModel(path), x, attacks=attacks, keep_points=True)
    assert found.found.all()
    assert (runtime(path, found.point).argmax(1) != runtime(path, x).argmax(1)).all()
    expected = rp.margins(small_network()[0], x, attacks=attacks)
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-3, atol=1e-5)


def test_points_cross_where_the_deployed_model_does_though_its_gradients_are_of_another(tmp_path, x):
    """A file whose network in PyTorch has a boundary elsewhere: the labels are still onnxruntime's."""
    _, nodes, weights = small_network()
    path = save(tmp_path / "model.onnx", nodes, weights, shape=(3, 6, 6))
    model = OnnxModel(path)
    model._graph._weights["5_bias"] = model._graph._weights["5_bias"] + torch.tensor([0.0, 0.5, -0.5, 0.25])
    with pytest.warns(RuntimeWarning, match="differs from onnxruntime's by 0.5.*attacks may be weaker"):
        found = rp.margins(model, x, attacks="bg", keep_points=True)
    crossed = found.point[found.found]
    assert len(crossed)
    assert (runtime(path, crossed).argmax(1) != runtime(path, x[found.found]).argmax(1)).all()


def test_fixed_batch_size(tmp_path, x):
    _, nodes, weights = small_network()
    path = save(tmp_path / "model.onnx", nodes, weights, shape=(3, 6, 6), batch=2)
    torch.testing.assert_close(OnnxModel(path)(x), small_network()[0](x))


def test_input_in_double_precision(tmp_path, x):
    torch.manual_seed(0)
    linear = torch.nn.Linear(108, 4).double()
    weights = {"w": linear.weight.detach().numpy(), "b": linear.bias.detach().numpy()}
    nodes = [("Flatten", ["x"], ["f"], {}), ("Gemm", ["f", "w", "b"], ["y"], {"transB": 1})]
    path = save(tmp_path / "model.onnx", nodes, weights, shape=(3, 6, 6), dtype=np.float64)
    expected = linear(x.double().flatten(1))
    for given in (x, x.double()):
        torch.testing.assert_close(OnnxModel(path)(given), expected)
        gradient = torch.autograd.grad(OnnxModel(path)(own := given.clone().requires_grad_())[:, 0].sum(), own)[0]
        torch.testing.assert_close(gradient.flatten(1), linear.weight[:1].detach().to(given.dtype).expand(5, -1))


def test_several_outputs_are_a_dict_for_wrap(tmp_path, x):
    _, nodes, weights = small_network()
    nodes = [*nodes, ("Softmax", ["y"], ["probabilities"], {})]
    path = save(tmp_path / "model.onnx", nodes, weights, shape=(3, 6, 6), outputs=("y", "probabilities"))
    assert set(OnnxModel(path)(x)) == {"y", "probabilities"}
    model = rp.wrap(OnnxModel(path), mean=0.5, std=0.25, outputs="probabilities")
    logits = small_network()[0]((x - 0.5) / 0.25)
    torch.testing.assert_close(model(x), logits.log_softmax(1))
    own = x.clone().requires_grad_()
    other = x.clone().requires_grad_()
    model(own)[:, 0].sum().backward()
    small_network()[0]((other - 0.5) / 0.25).log_softmax(1)[:, 0].sum().backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_without_a_known_gradient_labels_remain(tmp_path, x):
    nodes = [("Flatten", ["x"], ["f"], {}), ("Hardmax", ["f"], ["y"], {})]
    path = save(tmp_path / "model.onnx", nodes, {}, shape=(3, 6, 6))
    model = OnnxModel(path)
    assert torch.equal(model(x), runtime(path, x))
    assert model.no_gradient == "no gradient of the ONNX operators Hardmax"
    with pytest.raises(RuntimeError, match="of the ONNX operators Hardmax; use an attack that needs labels"):
        rp.margins(model, x, attacks="bg")
    with pytest.warns(RuntimeWarning, match="labels only were queried.*of the ONNX operators Hardmax"):
        found = rp.margins(model, x, keep_points=True)
    assert found.access == "labels" and found.found.all()
    labels = rp.label_only.LabelOnly(lambda points: runtime(path, points).argmax(1), classes=108)
    torch.testing.assert_close(found.distance, rp.margins(labels, x).distance)
    assert (runtime(path, found.point).argmax(1) != runtime(path, x).argmax(1)).all()


def test_named_model(path, x):
    model = rp.load_model(f"onnx:{path}")
    assert torch.equal(model(x), runtime(path, x))
    with pytest.raises(ValueError, match="onnx:FILE"):
        rp.load_model(f"onnx:{path}", num_classes=3)


def test_copy(path, x):
    assert torch.equal(copy.deepcopy(rp.wrap(OnnxModel(path)))(x), runtime(path, x))


def test_wrong_files_and_inputs(tmp_path, path, x):
    with pytest.raises(FileNotFoundError):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match="file: expected an ONNX file, got .*bad.onnx"):
        OnnxModel(tmp_path / "bad.onnx")
    integers = save(tmp_path / "int.onnx", [("Identity", ["x"], ["y"], {})], {}, shape=(3,), dtype=np.int64)
    with pytest.raises(ValueError, match=r"one floating-point input, got .* with x: tensor\(int64\)"):
        OnnxModel(integers)
    with pytest.raises(ValueError, match=r"x: expected images that .*model.onnx takes, got shape \[5, 2, 6, 6\]"):
        OnnxModel(path)(x[:, :2])


def test_no_warning_where_both_agree(path, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OnnxModel(path)(x.requires_grad_()).sum().backward()
