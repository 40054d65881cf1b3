import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustperf import nets
from robustperf.nets import weights_file


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("small-cnn", {"size": 8, "width": 4}),
        ("resnet20", {"width": 4}),
        ("tibo-cnn", {"size": 8, "width": 4, "hidden": 8}),
    ],
)
def test_a_round_trip_keeps_architecture_and_weights(tmp_path, name, kwargs):
    model = nets.build(name, **kwargs)
    weights_file.save(tmp_path / "model.safetensors", model)
    loaded = weights_file.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


def test_weights_for_a_custom_network(tmp_path):
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match="names no architecture"):
        weights_file.load(tmp_path / "linear.safetensors")
    assert weights_file.load(tmp_path / "linear.safetensors", torch.nn.Linear(3, 2)).weight.eq(1).all()
    with pytest.raises(ValueError, match="do not fit Linear"):
        weights_file.load(tmp_path / "linear.safetensors", torch.nn.Linear(4, 2))


def test_damaged_files(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="checkpoint: no file"):
        weights_file.load(path)
    weights_file.save(path, nets.build("small-cnn", size=8))
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected a safetensors file"):
            weights_file.load(path)


@pytest.mark.parametrize("metadata, message", [
    ({"architecture": "alexnet", "arguments": "{}"}, "alexnet"),
    ({"architecture": "small-cnn", "arguments": "{"}, "model.safetensors"),
    ({"architecture": "small-cnn", "arguments": '{"depth": 3}'}, "depth"),
])  # fmt: skip
def test_a_header_that_cannot_be_built(tmp_path, metadata, message):
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=message):
        weights_file.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 30_000_000},
        {"classes": 10**12},
        {"classes": 10**18},
        {"classes": 10**30},
        {"width": 50_000},
        {"in_channels": 10**8},
        {"size": 100_000},
    ],
)
def test_sizes_in_a_header_take_no_memory_before_the_weights_have_them(tmp_path, change):
    name, arguments = "tibo-cnn", {"size": 8, "width": 4, "hidden": 8, "layers": 2}
    weights = nets.build(name, **arguments).state_dict()
    header = {"architecture": name, "arguments": json.dumps(arguments | change)}
    save_file(weights, tmp_path / "model.safetensors", metadata=header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="checkpoint: .*model.safetensors") as caught:
        weights_file.load(tmp_path / "model.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "arguments",
    [
        "[" * 100_000,
        '{"classes": ' + "[" * 900 + "]" * 900 + "}",
        "[]",
        "3",
        "null",
        '{"layers": 1000000000000}',
        '{"layers": 4000000000, "size": 8}',
        '{"classes": "' + "9" * 100_000 + '"}',
    ],
)
def test_the_error_for_a_malicious_header_is_one_line(tmp_path, arguments):
    save_file(
        {"weight": torch.ones(1)},
        tmp_path / "model.safetensors",
        metadata={"architecture": "tibo-cnn", "arguments": arguments},
    )
    with pytest.raises(ValueError, match="checkpoint: .*model.safetensors") as caught:
        weights_file.load(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool])
def test_integer_weights_are_refused(tmp_path, dtype):
    net = nets.build("small-cnn", size=8)
    weights = net.state_dict()
    name = next(iter(weights))
    header = {"architecture": "small-cnn", "arguments": '{"size": 8}'}
    save_file(weights | {name: weights[name].to(dtype)}, tmp_path / "model.safetensors", metadata=header)
    for model in (None, nets.build("small-cnn", size=8)):
        with pytest.raises(ValueError, match=f"do not fit SmallCNN: {name}: expected torch.float32, found {dtype}"):
            weights_file.load(tmp_path / "model.safetensors", model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_floating_point_weights_of_another_width_are_converted(tmp_path, dtype):
    made = nets.build("small-cnn", size=8).state_dict()
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in made.items()}
    save_file(
        weights, tmp_path / "model.safetensors", metadata={"architecture": "small-cnn", "arguments": '{"size": 8}'}
    )
    loaded = weights_file.load(tmp_path / "model.safetensors").state_dict()
    for name, value in weights.items():
        assert loaded[name].dtype == made[name].dtype and torch.equal(loaded[name].to(value.dtype), value)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    torch.manual_seed(0)
    one = nets.build("small-cnn", in_channels=1, classes=10, size=8)
    other = nets.build("small-cnn", size=8, classes=10, in_channels=1)  # the arguments in another order
    other.load_state_dict(one.state_dict())
    files = set()
    for model in [one, other] * 8:
        weights_file.save(tmp_path / "model.safetensors", model)
        files.add((tmp_path / "model.safetensors").read_bytes())
    assert len(files) == 1


def test_a_file_is_safetensors_whatever_the_header_says(tmp_path):
    tensors = {"b": torch.tensor(1.5), "a": torch.arange(3), "empty": torch.zeros(0, 2), "é": torch.ones(2).bool()}
    for header in ({}, {"z": 'é\u2028"\\', "a": "", "architecture": "unknown"}):
        weights_file.write(tmp_path / "t.safetensors", tensors, header)
        found, metadata = weights_file.read(tmp_path / "t.safetensors")
        assert metadata == header and found.keys() == tensors.keys()
        for name, value in tensors.items():
            assert found[name].dtype == value.dtype and torch.equal(found[name], value)
        length = int.from_bytes((tmp_path / "t.safetensors").read_bytes()[:8], "little")
        assert length % 8 == 0  # the format aligns the data


def test_the_digest_depends_on_the_weights_only(tmp_path):
    net = nets.build("small-cnn", size=8)
    weights_file.save(tmp_path / "one.safetensors", net)
    save_file(load_file(tmp_path / "one.safetensors"), tmp_path / "two.safetensors", metadata={"by": "another program"})
    one, two = (weights_file.digest(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one == two and len(one) == 64
    found = {one}
    weights = load_file(tmp_path / "one.safetensors")
    name = max(weights, key=lambda name: weights[name].dim())
    for change in (
        {name: weights[name] + 1},
        {name: weights[name].double()},
        {name: weights[name].flatten()},
        {"more": torch.zeros(0)},
    ):
        save_file(weights | change, tmp_path / "two.safetensors")
        found.add(weights_file.digest(tmp_path / "two.safetensors"))
    assert len(found) == 5


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights_file.save("~/model.safetensors", nets.build("small-cnn", size=8))
    assert (tmp_path / "model.safetensors").exists() and weights_file.load("~/model.safetensors").shape == (1, 8, 8)
