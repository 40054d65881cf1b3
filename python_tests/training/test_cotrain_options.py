"""Co-training beyond Algorithm 1: several updates of the generator in a step, and the weight of the distance."""

import pytest
import torch

import robustperf as rp
from python_tests.support.training import assert_same, train, weights_of
from python_tests.training.test_cotrain import INDEX, KEY, X, assert_equal, by_hand_9, models, pair
from robustperf import nets
from robustperf.cli.build import build_objective
from robustperf.training import CoTrain, batches
from robustperf.training.learner import Learner


@pytest.mark.parametrize("distance_weight", [0, 0.05, 4])
def test_the_weight_scales_the_distance_in_equation_9(distance_weight):
    f, g = models()
    loss, distance = CoTrain(f, g, 1, distance_weight=distance_weight).generator_loss(X, key=KEY, index=INDEX)
    expected, expected_distance, _ = by_hand_9(f, g, distance_weight)
    assert_equal(loss, expected, g)
    assert distance.item() == pytest.approx(expected_distance, rel=1e-12)


def test_the_paper_has_one_step_and_a_weight_of_1():
    objective = CoTrain(*models(), 1)
    assert objective.generator_steps == 1 and objective.distance_weight == 1
    assert CoTrain(*models(), 1) != CoTrain(*models(), 1, generator_steps=2)


def plain_loop(digits, updates, epochs):
    """The weights of both models and a row (loss, generator's loss, distance) for each step, for 200 digits."""
    f, g = pair(kind=nets.SmallCNN, size=8, width=4)
    objective = CoTrain(f, g, 0.5, distance_weight=0.1)
    key = rp.random.key(5)
    g_key = rp.random.fold_in(key, rp.random.Salt.GENERATOR)
    optimizer, g_optimizer = torch.optim.Adam(f.parameters(), lr=1e-3), torch.optim.Adam(g.parameters(), lr=1e-2)
    order = [rows for epoch in range(epochs) for rows in batches(200, 32, key=key, epoch=epoch)]
    g_order = [rows for number in range(epochs * updates) for rows in batches(200, 32, key=g_key, epoch=number)]
    rows = []
    for step, index in enumerate(order):
        optimizer.zero_grad()
        loss = objective(f, digits.x[index], digits.y[index], key=rp.random.fold_in(key, step), index=index)
        loss.backward()
        optimizer.step()
        found = []
        for number in range(step * updates, (step + 1) * updates):
            index = g_order[number]
            g_optimizer.zero_grad()
            g_loss, distance = objective.generator_loss(
                digits.x[index], key=rp.random.fold_in(g_key, number), index=index
            )
            g_loss.backward()
            g_optimizer.step()
            found.append([g_loss.item(), distance.item()])
        rows.append([loss.item(), *torch.tensor(found, dtype=torch.float64).mean(0).tolist()])
    return weights_of(f), weights_of(g), torch.tensor(rows, dtype=torch.float64)


def test_n_steps_are_n_updates_each_on_a_batch_of_its_own(digits):
    expected, g_expected, rows = plain_loop(digits, updates=3, epochs=2)
    f, g = pair(kind=nets.SmallCNN, size=8, width=4)
    objective = CoTrain(f, g, 0.5, generator_steps=3, distance_weight=0.1, lr=1e-2)
    fitted = train(f, digits, objective, validation=None, optimizer="adam", lr=1e-3)
    assert g.layers[1].num_batches_tracked == 2 * 6 * 3  # a forward pass in train mode for each update
    assert_same(weights_of(f), expected)
    assert_same(weights_of(g), g_expected)
    torch.testing.assert_close(fitted.steps[:, [0, 2, 3]], rows, rtol=1e-12, atol=0)


class Stopped(Exception):
    pass


def test_an_interrupted_run_is_resumed_to_the_same_bits(digits, tmp_path):
    def stop(step):
        if step == 8:  # within the second epoch; the last checkpoint is of step 6
            raise Stopped

    expected, g_expected, _ = plain_loop(digits, updates=2, epochs=2)
    settings = {"validation": None, "optimizer": "adam", "lr": 1e-3, "checkpoint_steps": 4, "out": tmp_path}
    for after_step in (stop, None):
        f, g = pair(kind=nets.SmallCNN, size=8, width=4)
        objective = CoTrain(f, g, 0.5, generator_steps=2, distance_weight=0.1, lr=1e-2)
        try:
            train(f, digits, objective, resume=True, after_step=after_step, **settings)
        except Stopped:
            assert after_step is stop
    assert_same(weights_of(f), expected)
    assert_same(weights_of(g), g_expected)


def test_on_the_command_line():
    classifier = nets.SmallCNN(1)
    text = "cotrain(30, width=4, layers=1, generator_steps=5, distance_weight=0.01)"
    objective = build_objective(text, None, None, None, classifier, 1)
    assert (objective.weight, objective.generator_steps, objective.distance_weight) == (30, 5, 0.01)
    default = build_objective("cotrain(30, width=4)", None, None, None, classifier, 1)
    assert (default.generator_steps, default.distance_weight) == (1, 1)
    with pytest.raises(ValueError, match="generator_step'; did you mean 'generator_steps'"):
        build_objective("cotrain(30, generator_step=5)", None, None, None, classifier, 1)


@pytest.mark.parametrize("change, message", [
    ({"generator_steps": 0}, "generator_steps: expected an integer above 0, got 0"),
    ({"generator_steps": 1.5}, "generator_steps: expected an integer above 0, got 1.5"),
    ({"distance_weight": -1}, "distance_weight: expected a finite number >= 0, got -1"),
    ({"distance_weight": float("nan")}, "distance_weight: expected a finite number >= 0, got nan"),
])  # fmt: skip
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        CoTrain(*models(), 1, **change)


def test_several_updates_need_batches_of_their_own():
    _, g = models()
    with pytest.raises(ValueError, match="updates: expected 1 without own_batches, got 2"):
        Learner("peer", g, lambda *_, **__: None, updates=2)
