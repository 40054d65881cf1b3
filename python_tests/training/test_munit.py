"""MUNIT's losses by hand, and `fit` against a plain loop."""

from functools import partial

import pytest
import torch

import robustperf as rp
from python_tests.support.training import assert_same, weights_of
from robustperf.names import SHARES
from robustperf.nets.munit import MunitDiscriminator, Translator
from robustperf.nuisance.learned.domain import Pairs, domains_of
from robustperf.training import batches, fit
from robustperf.training.munit import FIGURES, Munit

WEIGHTS = {"image": 10.0, "content": 2.0, "style": 3.0, "adversarial": 0.5, "cycle": 4.0}
KEY, INDEX = 7, torch.tensor([3, 2**40])


def networks(share="all", dtype=torch.float64):
    torch.manual_seed(0)
    return Translator(1, 2, 3, share=share).to(dtype), MunitDiscriminator(1, (8, 8), 3).to(dtype)


def encoders_and_decoders(translator, domain):
    """(content, style, decode) of domain 0 or 1, one image batch at a time."""
    content = translator.contents[-1 if len(translator.contents) == 1 else domain]
    if len(translator.styles) == 2:
        return content, lambda x: translator.styles[domain](x)[0], translator.decoders[domain]
    told = partial(torch.full, fill_value=domain, dtype=torch.int64)
    return (
        content,
        lambda x: translator.styles[0](x)[domain],
        lambda c, s: translator.decoders[0](c, s, told((len(c),))),
    )


def l1(one, other):
    return (one - other).abs().mean()


@pytest.mark.parametrize("share", SHARES)
def test_the_losses_by_hand(share):
    translator, discriminator = networks(share)
    x = torch.rand(2, 2, 1, 8, 8, dtype=torch.float64)
    loss, *figures = Munit(discriminator, **WEIGHTS)(translator, x, torch.zeros(2).long(), key=KEY, index=INDEX)

    (content_a, style_a, decode_a), (content_b, style_b, decode_b) = (
        encoders_and_decoders(translator, domain) for domain in (0, 1)
    )
    a, b = 2 * x[:, 0] - 1, 2 * x[:, 1] - 1
    prior_a, prior_b = rp.random.normal(KEY, INDEX, 2, 2).double()
    c_a, c_b = content_a(a), content_b(b)
    a_to_b, b_to_a = decode_b(c_a, prior_b), decode_a(c_b, prior_a)
    expected = {
        "image": l1(decode_a(c_a, style_a(a)), a) + l1(decode_b(c_b, style_b(b)), b),
        "content": l1(content_b(a_to_b), c_a) + l1(content_a(b_to_a), c_b),
        "style": l1(style_b(a_to_b), prior_b) + l1(style_a(b_to_a), prior_a),
        "adversarial": sum(
            (score - 1).square().mean() for part in discriminator(b_to_a, a_to_b) for score in part
        ),
        "cycle": l1(decode_a(content_b(a_to_b), style_a(a)), a) + l1(decode_b(content_a(b_to_a), style_b(b)), b),
    }  # fmt: skip
    assert len(list(discriminator.a.scales)) == 3
    for name, found in zip(FIGURES, figures, strict=True):
        torch.testing.assert_close(found, expected[name].detach())
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    torch.testing.assert_close(loss, total)
    parameters = list(translator.parameters())
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(total, parameters), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(one, other)


def test_the_discriminators_loss_by_hand_on_the_translations_of_the_same_step():
    translator, discriminator = networks()
    objective, x = Munit(discriminator), torch.rand(2, 2, 1, 8, 8, dtype=torch.float64)
    y = torch.zeros(2).long()
    loss = objective(translator, x, y, key=KEY, index=INDEX)[0]
    loss.backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    found = objective.discriminator_loss(discriminator, x, y, key=KEY, index=INDEX)
    made = translator(x[:, 0], x[:, 1], *rp.random.normal(KEY, INDEX, 2, 2).double())
    real, translated = discriminator(made.a, made.b), discriminator(made.translated_a, made.translated_b)
    expected = sum((score - 1).square().mean() for part in real for score in part)
    expected = expected + sum(score.square().mean() for part in translated for score in part)
    torch.testing.assert_close(found, expected)
    before = [parameter.grad.clone() for parameter in translator.parameters()]
    found.backward()
    assert all(map(torch.equal, before, (parameter.grad for parameter in translator.parameters())))
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_without_a_cycle_it_is_not_computed():
    translator, discriminator = networks()
    x = torch.rand(1, 2, 1, 8, 8, dtype=torch.float64)
    loss, *figures = Munit(discriminator, cycle=0)(translator, x, torch.zeros(1).long(), key=KEY, index=INDEX[:1])
    assert figures[FIGURES.index("cycle")] == 0
    parts = dict(zip(FIGURES, figures, strict=True))
    torch.testing.assert_close(
        loss.detach(), 10 * parts["image"] + parts["content"] + parts["style"] + parts["adversarial"]
    )


def test_fit_against_a_plain_loop():
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Pairs(*domains_of(images[:6] / 4, images[6:]), 8)
    adam = partial(torch.optim.Adam, lr=1e-3)
    fitted_translator, fitted_discriminator = networks(dtype=torch.float32)
    settings = {"validation": None, "epochs": 1, "batch_size": 2, "optimizer": adam, "seed": 5, "progress": False}
    fitted = fit(fitted_translator, Munit(fitted_discriminator), data, **settings)

    translator, discriminator = networks(dtype=torch.float32)
    objective, key = Munit(discriminator), rp.random.key(5)
    optimizers = adam(translator.parameters()), adam(discriminator.parameters())
    loaded = list(
        rp.data.batches.load_batches(
            data, rows := batches(8, 2, key=key, epoch=0), torch.device("cpu"),
            keys=[rp.random.fold_in(key, step) for step in range(4)],
        )
    )  # fmt: skip
    for step, ((x, y, index), expected) in enumerate(zip(loaded, rows, strict=True)):
        assert torch.equal(index, expected)
        loss, *_ = objective(translator, x, y, key=rp.random.fold_in(key, step), index=index)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        other = objective.discriminator_loss(discriminator, x, y, key=0, index=index)
        optimizers[1].zero_grad()
        other.backward()
        optimizers[1].step()
        assert fitted.steps[step, 0] == loss.item()
    assert_same(weights_of(fitted_translator), weights_of(translator))
    assert_same(weights_of(fitted_discriminator), weights_of(discriminator))
    assert fitted.columns == ("loss", "accuracy", *FIGURES, "discriminator_loss")


def test_pairs_are_random_and_the_same_for_a_key():
    values = torch.arange(10) / 10
    a, b = values[:5, None, None, None].expand(5, 1, 8, 8), values[5:, None, None, None].expand(5, 1, 8, 8)
    data = Pairs(*domains_of(a, b), 400)
    rows = torch.arange(400).split(100)
    cpu = torch.device("cpu")
    first, again, other = (
        torch.cat([x[:, :, 0, 0, 0] for x, _, _ in rp.data.batches.load_batches(data, rows, cpu, keys=keys)])
        for keys in ((1, 2, 3, 4), (1, 2, 3, 4), (5, 6, 7, 8))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    counts = torch.zeros(5, 5)
    for one, two in (10 * first).round().long().tolist():
        counts[one, two - 5] += 1
    # 400 pairs in 25 equal cells: chi-squared with 24 degrees of freedom
    assert ((counts - 16).square() / 16).sum() < 52


@pytest.mark.parametrize("name", FIGURES)
def test_a_negative_weight(name):
    with pytest.raises(ValueError, match=f"{name}: expected a finite number >= 0, got -1"):
        Munit(networks()[1], **{name: -1})
