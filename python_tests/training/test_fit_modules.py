"""How `fit` treats the modules and the optimizer it is given: wrappers, modes, rates."""

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.support.training import assert_same, net, train, weights_of
from robustperf import nets
from robustperf.nets import weights_file
from robustperf.training import ERM, MRT, CoTrain, evaluate

DATA = rp.data.Dataset(
    "random", torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 10, 10
)


def small():
    torch.manual_seed(0)
    return nets.build("small-cnn", size=8, width=2)


def compiled(model):
    return torch.compile(model, backend="eager")


def parts_wrapped(model):
    model.features = nn.DataParallel(compiled(model.features))
    model.head[1] = compiled(model.head[1])
    return model


WRAPPERS = {"compile": compiled, "DataParallel": nn.DataParallel, "both": lambda m: compiled(nn.DataParallel(m)),
            "both, reversed": lambda m: nn.DataParallel(compiled(m)), "parts": parts_wrapped,
            "parts and whole": lambda m: nn.DataParallel(parts_wrapped(m))}  # fmt: skip
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


@every_wrapper
def test_files_have_the_names_of_the_network(tmp_path, wrap):
    plain = small()
    train(plain, DATA, ERM(), out=tmp_path / "plain")
    model = wrap(small())
    train(model, DATA, ERM(), out=tmp_path / "wrapped")
    for name in ("model", "checkpoint"):
        (want, header), (got, wrapped) = (
            weights_file.read(tmp_path / folder / f"{name}.safetensors") for folder in ("plain", "wrapped")
        )
        assert_same(got, want)
        if name == "model":
            assert wrapped == header and set(want) == set(small().state_dict())
    x = DATA.x[:4]
    assert torch.equal(weights_file.load(tmp_path / "wrapped" / "model.safetensors").eval()(x), plain.eval()(x))
    # a wrapped network resumes the run of a plain one, and vice versa
    again, longer = wrap(small()), small()
    train(again, DATA, ERM(), out=tmp_path / "plain", resume=True, epochs=3)
    train(longer, DATA, ERM(), out=tmp_path / "wrapped", resume=True, epochs=3)
    assert_same(weights_file.weights_of(again), weights_of(longer))


@every_wrapper
def test_files_of_a_wrapped_network_are_read(tmp_path, wrap):
    from safetensors.torch import save_file

    model = wrap(small())
    save_file(
        {name: value.clone() for name, value in model.state_dict().items()},
        tmp_path / "old.safetensors",
        metadata={"architecture": "small-cnn", "arguments": '{"size": 8, "width": 2}'},
    )
    for read in (
        weights_file.load(tmp_path / "old.safetensors"),
        weights_file.load(tmp_path / "old.safetensors", small()),
        weights_file.load(tmp_path / "old.safetensors", wrap(small())),
    ):
        assert_same(weights_file.weights_of(read), weights_of(small()))


class Named(nn.Module):
    """A network with a submodule that has the name a wrapper uses."""

    def __init__(self):
        super().__init__()
        self.module, self.flat = nn.Linear(64, 10), nn.Flatten()

    def forward(self, x):
        return self.module(self.flat(x))


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, compiled])
def test_a_submodule_may_be_called_module(tmp_path, wrap):
    model = wrap(net(kind=Named))
    weights_file.save(tmp_path / "model.safetensors", model)
    assert set(weights_file.read(tmp_path / "model.safetensors")[0]) == {"module.weight", "module.bias"}
    for other in (wrap(net(1, kind=Named)), net(1, kind=Named)):
        loaded = weights_file.load(tmp_path / "model.safetensors", other)
        assert_same(weights_file.weights_of(loaded), weights_file.weights_of(model))
    with pytest.raises(ValueError, match="do not fit"):
        weights_file.load(tmp_path / "model.safetensors", small())


def test_a_wrapped_generator(tmp_path):
    model, generator = small(), compiled(nets.TiboGenerator(1, width=2, layers=1))
    train(model, DATA, CoTrain(model, generator, 1.0), epochs=1, out=tmp_path)
    assert set(weights_file.read(tmp_path / "generator.safetensors")[0]) == set(generator._orig_mod.state_dict())


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.free, self.drop = nn.BatchNorm2d(1), nn.BatchNorm2d(1), nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.drop(self.free(self.frozen(x))))


@pytest.mark.parametrize("objective", [ERM(), MRT(rp.nuisance.Brightness(0.2), k=2)], ids=lambda o: type(o).__name__)
def test_modules_in_eval_mode_stay_in_it(objective):
    model = net(kind=Normed)
    model.frozen.eval()
    model.drop.eval()
    before = weights_of(model)
    modes = {name: module.training for name, module in model.named_modules()}
    fitted = train(model, DATA, objective, epochs=3, validation=0.2)
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(model.frozen, name), before[f"frozen.{name}"])
        assert not torch.equal(getattr(model.free, name), before[f"free.{name}"])
    assert fitted.steps.isfinite().all()  # accuracies too


def test_a_model_in_eval_mode_with_a_part_in_train_mode():
    model = net(kind=Normed).eval()
    model.head.train()
    fitted = train(model, DATA, ERM(), epochs=2)
    assert not model.training and model.head.training and not model.free.training
    assert fitted.steps.isfinite().all()


def test_a_model_that_is_in_eval_mode_as_a_whole_is_trained():
    asleep, awake = net().eval(), net()
    train(asleep, DATA, ERM())
    train(awake, DATA, ERM())
    assert_same(weights_of(asleep), weights_of(awake))


class Overrides(Normed):
    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self


def test_an_overridden_train_method_is_called():
    model = net(kind=Overrides)
    train(model, DATA, ERM())
    assert model.frozen.num_batches_tracked == 0 and model.free.num_batches_tracked > 0


def test_a_frozen_generator_module():
    model, generator = small(), nets.TiboGenerator(1, width=2, layers=1)
    generator.layers[1].eval()
    train(model, DATA, CoTrain(model, generator, 1.0), epochs=2)
    assert generator.layers[1].num_batches_tracked == 0 and generator.layers[0].training


@pytest.mark.parametrize("lr, expected", [
    (None, [[1e-3] * 6, [0.1] * 6]), (0.5, [[0.5] * 6, [50.0] * 6]),
    ((0.6, 0.1), [[0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [60.0, 50, 40, 30, 20, 10]]),
    ({0: 0.1, 1: 0.01}, [[0.1] * 3 + [0.01] * 3, [10.0] * 3 + [1.0] * 3]),
])  # fmt: skip
def test_parameter_groups_keep_the_ratio_of_their_rates(tmp_path, lr, expected):
    rates = []

    class Recorded(torch.optim.SGD):
        def step(self, *arguments):
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(*arguments)

    def run(epochs, resume):
        model = net(kind=Named)
        optimizer = Recorded([{"params": [model.module.weight], "lr": 1e-3}, {"params": [model.module.bias]}], lr=0.1)
        train(
            model, DATA, ERM(), epochs=epochs, optimizer=optimizer, lr=lr, validation=None, out=tmp_path, resume=resume
        )

    run(2, False)
    assert torch.tensor(rates).T.tolist() == [pytest.approx(each, rel=1e-6) for each in expected]
    if not isinstance(lr, tuple):
        rates.clear()
        run(3, True)
        assert rates == [pytest.approx([each[-1] for each in expected])] * 3


def test_a_first_group_without_a_rate_is_refused_under_a_schedule():
    model = net(kind=Named)
    optimizer = torch.optim.SGD([{"params": [model.module.weight], "lr": 0.0}, {"params": [model.module.bias]}], lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer: expected a rate above 0 .*\[0.0, 0.1\]"):
        train(model, DATA, ERM(), optimizer=optimizer, lr=0.1)


def test_evaluation_restores_the_modes():
    model = net(kind=Normed)
    model.frozen.eval()
    evaluate(model, DATA)
    assert model.training and model.free.training and not model.frozen.training
