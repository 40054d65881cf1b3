import pytest
import torch
from safetensors.torch import save_file

from robustperf import nets
from robustperf.nets import checkpoint


@pytest.mark.parametrize("name, kwargs", [("small-cnn", {"size": 8, "width": 4}), ("resnet20", {"width": 4}),
                                          ("tibo-cnn", {"size": 8, "width": 4, "hidden": 8})])
def test_a_round_trip_keeps_architecture_and_weights(tmp_path, name, kwargs):
    model = nets.build(name, **kwargs)
    checkpoint.save(tmp_path / "model.safetensors", model)
    loaded = checkpoint.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


def test_weights_for_a_network_of_ones_own(tmp_path):
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match="names no architecture"):
        checkpoint.load(tmp_path / "linear.safetensors")
    assert checkpoint.load(tmp_path / "linear.safetensors", torch.nn.Linear(3, 2)).weight.eq(1).all()
    with pytest.raises(ValueError, match="do not fit Linear"):
        checkpoint.load(tmp_path / "linear.safetensors", torch.nn.Linear(4, 2))


def test_damage(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="checkpoint: no file"):
        checkpoint.load(path)
    checkpoint.save(path, nets.build("small-cnn", size=8))
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected a safetensors file"):
            checkpoint.load(path)


@pytest.mark.parametrize("metadata, message", [
    ({"architecture": "alexnet", "arguments": "{}"}, "alexnet"),
    ({"architecture": "small-cnn", "arguments": "{"}, "model.safetensors"),
    ({"architecture": "small-cnn", "arguments": '{"depth": 3}'}, "depth"),
])  # fmt: skip
def test_a_header_that_cannot_be_built(tmp_path, metadata, message):
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / "model.safetensors")
