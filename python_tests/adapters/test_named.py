"""Networks of other libraries by name: their preprocessing is inside; each library is stood in for, and tried if it is
installed."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import robustperf as rp
from python_tests.support.libraries import MEAN, STD, Network, stand_in, stand_in_timm


@pytest.fixture
def timm(monkeypatch):
    return stand_in_timm(monkeypatch)


def normalised(x):
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def x():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_timm(timm, x):
    model = rp.load_model("timm:resnet18.a1_in1k")
    assert timm.calls == [("resnet18.a1_in1k", True, 3)]
    assert model.image_shape == (3, 8, 8) and not model.training
    torch.testing.assert_close(model(x), model.module(normalised(x)))
    assert rp.load_model("timm:hf-hub:user/net", pretrained=False, num_classes=5)(x).shape == (4, 5)
    assert timm.calls[1:] == [("hf-hub:user/net", False, 5)]
    with pytest.raises(ValueError, match="expected a classifier of timm, got 'resnet81'; did you mean 'resnet18'"):
        rp.load_model("timm:resnet81")
    with pytest.raises(ValueError, match="model: expected a classifier, got timm:resnet18, which has no classes"):
        rp.load_model("timm:resnet18", num_classes=0)


PROCESSOR = {
    "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD), "do_rescale": True,
    "rescale_factor": 1 / 255, "do_resize": True, "size": {"height": 8, "width": 8},
}  # fmt: skip


@pytest.fixture
def transformers(monkeypatch):
    """transformers with one model, whose configuration and processor a test may change."""
    module = stand_in(monkeypatch, "transformers")
    module.config = {"num_labels": 3, "num_channels": 3}
    module.processor = dict(PROCESSOR)

    def made(*_, config, **__):
        return Network(config.num_labels, lambda z: SimpleNamespace(logits=z, loss=None))

    module.AutoConfig = SimpleNamespace(from_pretrained=lambda name, **k: SimpleNamespace(**{**module.config, **k}))
    module.AutoModelForImageClassification = SimpleNamespace(
        from_pretrained=made, from_config=lambda config: made(config=config)
    )
    module.AutoImageProcessor = SimpleNamespace(from_pretrained=lambda name: SimpleNamespace(**module.processor))
    return module


def test_hugging_face(transformers, x):
    model = rp.load_model("hf:user/vit")
    torch.testing.assert_close(model(x), model.module.linear(normalised(x).flatten(1)))
    assert model.image_shape == (3, 8, 8)
    assert rp.load_model("hf:user/vit", pretrained=False, num_classes=7)(x).shape == (4, 7)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, lambda bytes_: (bytes_ / 255 - 0.4) / 0.2),
        ({"do_normalize": False}, lambda bytes_: bytes_ / 255),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, lambda bytes_: (bytes_ / 127.5 - 1 - 0.4) / 0.2),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0}, lambda bytes_: bytes_ / 127.5 - 1),
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [63.0]}, lambda bytes_: (bytes_ - 127.5) / 63),
    ],
)
def test_arithmetic_of_a_processor(transformers, changed, expected):
    """What a processor computes of a byte is computed of the byte / 255."""
    transformers.processor.update(changed)
    model = rp.load_model("hf:user/vit")
    seen = []
    model.module.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(torch.full((1, 3, 8, 8), 200 / 255))
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(expected(200.0), rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ({"do_center_crop": True, "crop_size": {"height": 8, "width": 6}, "size": {"shortest_edge": 9}}, (3, 8, 6)),
        ({"do_center_crop": True, "crop_size": 8}, (3, 8, 8)),
        ({"size": {"shortest_edge": 9}}, (3, 9, 9)),
        ({"size": SimpleNamespace(height=7, width=5)}, (3, 7, 5)),
        ({"do_resize": False}, None),
    ],
)
def test_size_of_a_processor(transformers, changed, shape):
    transformers.processor.update(changed)
    assert rp.load_model("hf:user/vit").image_shape == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_labels": 1}, "one label for each image, got hf:user/vit with 1 labels"),
        ({"problem_type": "multi_label_classification"}, "the problem type multi_label_classification"),
    ],
)
def test_hugging_face_model_of_another_task(transformers, config, message):
    transformers.config.update(config)
    with pytest.raises(ValueError, match=message):
        rp.load_model("hf:user/vit")


def test_hugging_face_model_of_texts(transformers, monkeypatch):
    monkeypatch.setattr(Network, "main_input_name", "input_ids")
    with pytest.raises(ValueError, match="a classifier of images, got hf:user/bert, which takes input_ids"):
        rp.load_model("hf:user/bert")


@pytest.fixture
def torchvision(monkeypatch):
    preset = SimpleNamespace(mean=MEAN, std=STD, crop_size=[8])
    models = stand_in(
        monkeypatch,
        "torchvision.models",
        list_models=lambda module: ["alexnet"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: preset)),
        get_model=lambda name, weights, num_classes=3: Network(num_classes),
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))


def test_torchvision(torchvision, x):
    model = rp.load_model("torchvision:alexnet")
    torch.testing.assert_close(model(x), model.module(normalised(x)))
    assert rp.load_model("torchvision:alexnet", pretrained=False, num_classes=5)(x).shape == (4, 5)
    with pytest.raises(ValueError, match="num_classes: expected None with the pretrained weights.*got 5"):
        rp.load_model("torchvision:alexnet", num_classes=5)
    with pytest.raises(ValueError, match="expected a classifier of torchvision, got 'fcn'"):
        rp.load_model("torchvision:fcn")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "model: expected LIBRARY:NAME, such as timm:resnet18, got 'resnet18'"),
        ("timm:", "model: expected LIBRARY:NAME"),
        (None, "model: expected LIBRARY:NAME.*got None"),
        ("tim:resnet18", "model: library: expected one of timm, hf, torchvision, onnx, got 'tim'; did you mean 'timm'"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(ValueError, match=message):
        rp.load_model(name)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("timm:a", "timm", "timm"), ("hf:a", "transformers", "hf"),
                                  ("torchvision:a", "torchvision.models", "torchvision")]
)  # fmt: skip
def test_missing_library_names_its_extra(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{extra}: expected {module}, .*'robustperf\[{extra}\]'"):
        rp.load_model(name)


def test_installed_timm(x):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    model = rp.load_model("timm:test_resnet", pretrained=False, num_classes=4)
    config = timm.data.resolve_model_data_config(model.module)
    assert model.image_shape == config["input_size"]
    x = torch.rand(2, *model.image_shape)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(model(x), model.module((x - mean) / std))


def test_installed_torchvision():
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    model = rp.load_model("torchvision:squeezenet1_1", pretrained=False, num_classes=4)
    x = torch.rand(1, 3, 256, 256)
    preset = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    with torch.no_grad():
        torch.testing.assert_close(model(x[..., 16:240, 16:240]), model.module(preset(x)))


def test_installed_transformers(tmp_path, x):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", **PROCESSOR})
    )
    model = rp.load_model(f"hf:{tmp_path}")
    torch.testing.assert_close(model(x), network(normalised(x)).logits)
    assert rp.margins(model, x, attacks="fgsm").found.dtype == torch.bool
