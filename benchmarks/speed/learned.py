"""Learned kernels compared with calls of the whole network: ten draws, steps of MRT and MAT, and a training iteration.

    python -m benchmarks.speed.learned [--out DIR]

The baseline is the network as R describes it in eager PyTorch: torch's instance normalisation with a separate scale and
shift, upsampling followed by a 5x5 convolution, and every draw a call of the whole network. "our network" calls ours in
the same way. The weights are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

from robustperf import nets, random
from robustperf.classifier import evaluating, laid_out
from robustperf.nets import munit_generator
from robustperf.nets.munit import MunitDiscriminator, Translator, initialise
from robustperf.nets.munit_generator import BlockConvolution, MunitGenerator, UpsampledConvolution
from robustperf.nuisance import LearnedKernel
from robustperf.training import MAT, MRT
from robustperf.training.munit import Munit

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

CLASSES, K = 10, 10
MEASURED = ("draw", "steps", "iteration")
BESIDE = ("bfloat16", "compiled")
COMPILED_NETWORK = "our network, compiled"


def generator_of(size: int, width: int) -> MunitGenerator:
    """A network with the initial weights of `learn`. The biases of its layers for the style are not 0, as after some
    training: with zeros the gradient in delta would be 0 at the centre, where MAT starts."""
    style_dim, downsamplings, blocks, _ = munit_generator.sizes_for(size, size)
    torch.manual_seed(0)
    network = MunitGenerator(3, style_dim, width, downsamplings, blocks)
    initialise(network)
    for layer in network.decoder.mlp:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias, std=0.1)
    return network.eval().requires_grad_(False)


def plain_norm(x, scale=None, shift=None):
    """AdaIN by torch's instance normalisation."""
    normal = functional.instance_norm(x)
    return normal if scale is None else normal * scale[:, :, None, None] + shift[:, :, None, None]


def plain_upsampling(self, x):
    """Upsampling, and then the 5x5 convolution."""
    padded = functional.pad(functional.interpolate(x, scale_factor=2), (2, 2, 2, 2), mode="replicate")
    return functional.conv2d(padded, self.weight, self.bias)


def plain_last(self, x):
    """The 7x7 convolution to three channels."""
    return functional.conv2d(functional.pad(x, (3, 3, 3, 3), mode="reflect"), self.weight, self.bias)


@contextmanager
def as_described():
    """Inside, the networks compute as R describes them."""
    with (
        patch.object(munit_generator, "instance_norm", plain_norm),
        patch.object(UpsampledConvolution, "forward", plain_upsampling),
        patch.object(BlockConvolution, "forward", plain_last),
    ):
        yield


def whole(network: MunitGenerator, x: torch.Tensor, style: torch.Tensor, plain: bool) -> torch.Tensor:
    """One call of the whole network."""
    if not plain:
        return network(x, style)
    with as_described():
        return network(x, style)


class Compared(nn.Module):
    """G as a module that is called for each draw, with its parameters frozen."""

    def __init__(self, network: MunitGenerator, plain: bool) -> None:
        super().__init__()
        self.network, self.plain = network.requires_grad_(False), plain

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return whole(self.network, x, style, self.plain)


def draw_contenders(size: int, width: int, batch: int, beside: Sequence[str] = ()) -> dict[str, Call]:
    """Ten draws of a batch."""
    network = generator_of(size, width)
    kernel, x, index = LearnedKernel(network), torch.rand(batch, 3, size, size), torch.arange(batch)
    delta = kernel.sample(0, index, K)
    last = x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def calls(run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        for style in delta:
            run(x, style)

    @torch.no_grad()
    def ours(x: torch.Tensor) -> None:
        kernel._forget()  # the content of these images is not there yet
        kernel.draw(x, key=0, index=index, draws=K)

    @torch.no_grad()
    def content_once(decode: Callable[..., torch.Tensor]) -> None:
        begun = kernel.generator.encode(x)
        for style in delta:
            decode(begun, style)

    def half() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            content_once(kernel.generator.decode)

    contenders: dict[str, Call] = {
        "as described": partial(calls, partial(whole, network, plain=True)), "our network": partial(calls, network),
        "draw": partial(ours, x), "draw, channels-last": partial(ours, last),
    }  # fmt: skip
    if "bfloat16" in beside:
        contenders["content once, bfloat16"] = half
    if "compiled" in beside:
        contenders["content once, compiled"] = partial(content_once, torch.compile(kernel.generator.decode))
    if COMPILED_NETWORK in beside:
        contenders[COMPILED_NETWORK] = partial(calls, torch.compile(network))
    return contenders


def draws(arguments) -> None:
    """Ten draws of a batch."""
    report = Report("learned_draw", f"{K} draws of a learned kernel", arguments.output)
    for size, width in arguments.cases:
        times = interleave(draw_contenders(size, width, arguments.batch, arguments.beside), arguments.repeats)
        for name, seconds in times.items():
            row = {"case": f"{size}x{size}, width {width}: {name}", "ms": 1e3 * seconds}
            ratios = {f"x faster than {other}": times[other] / seconds for other in ("as described", "our network")}
            report.add(**row, **ratios)
    report.show(bars=("case", "x faster than as described"))


def published_mrt(generator, q, model, x, y) -> torch.Tensor:
    """MRT by its authors' loop: train mode, one draw kept for the whole batch, each loss read on the host."""
    worst, most = x, 0.0
    with torch.no_grad():
        for _ in range(K):
            drawn = generator(x, 2 * torch.rand(len(x), q) - 1)
            loss = cross_entropy(model(drawn), y)
            if loss.item() > most:
                most, worst = loss.item(), drawn
    return cross_entropy(model(torch.cat([x, worst])), torch.cat([y, y]))


def published_mat(generator, q, model, x, y) -> torch.Tensor:
    """MAT by its authors' loop: from delta = 0 with gradient steps of 0.1."""
    delta = x.new_zeros(len(x), q)
    for _ in range(K):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(generator(x, delta)), y), delta)
        delta = (delta.detach() + 0.1 * gradient).clamp(-1, 1)
    return cross_entropy(model(torch.cat([x, generator(x, delta).detach()])), torch.cat([y, y]))


def passes_alone(method: str, network: MunitGenerator, model, x, y) -> torch.Tensor:
    """The passes of our networks in a step of MRT or MAT, and nothing else: no draws, selection, checks or updates."""
    delta = x.new_zeros(len(x), network.settings["style_dim"])
    with evaluating(model):
        with torch.no_grad():
            begun = network.encode(x)
        for _ in range(K):
            with torch.set_grad_enabled(method == "MAT"):
                delta = delta.detach().requires_grad_()
                loss = cross_entropy(model(laid_out(model, network.decode(begun, delta))), y)
                if method == "MAT":
                    torch.autograd.grad(loss, delta)
        with torch.no_grad():
            drawn = network.decode(begun, delta)
    return cross_entropy(model(laid_out(model, torch.cat([x, drawn]))), torch.cat([y, y]))


def ours_of(objective, model, x, y) -> torch.Tensor:
    return objective(model, x, y, key=random.key(0), index=torch.arange(len(x)))


def step(loss_of: Callable[..., torch.Tensor], batch: int, size: int) -> Callable[[], None]:
    """A function that makes one training step of a new network on images that were not there in the step before."""
    torch.manual_seed(0)
    model = nets.RobeyCNN(classes=CLASSES, size=size, batch_norm=True).train()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    x, y = torch.rand(batch, 3, size, size), torch.randint(CLASSES, (batch,))

    def run() -> None:
        x[0, 0, 0, 0] = torch.rand(())
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()

    return run


def step_contenders(name: str, size: int, width: int, batch: int) -> dict[str, Call]:
    """A step of MRT-10 or MAT-10, R A.2's CNN with batch normalisation; and what bounds it."""
    network = generator_of(size, width)
    kernel, style_dim = LearnedKernel(network), munit_generator.sizes_for(size, size)[0]
    loop, objective = {"MRT": (published_mrt, MRT), "MAT": (published_mat, MAT)}[name]
    losses = {
        "published": partial(loop, Compared(network, True), style_dim),
        "published, our network": partial(loop, Compared(network, False), style_dim),
        "ours": partial(ours_of, objective(kernel, k=K)),
        "passes of our networks alone": partial(passes_alone, name, network),
    }
    return {which: step(loss_of, batch, size) for which, loss_of in losses.items()}


def steps(arguments) -> None:
    """Steps of MRT-10 and MAT-10."""
    report = Report("learned_steps", f"Steps with a learned kernel, batch {arguments.batch}", arguments.output)
    for size, width in arguments.cases:
        for name in ("MRT", "MAT"):
            times = interleave(step_contenders(name, size, width, arguments.batch), arguments.repeats)
            for which, seconds in times.items():
                report.add(**{
                    "case": f"{name}-{K}, {size}x{size}, width {width}: {which}", "ms": 1e3 * seconds,
                    "x faster than published": times["published"] / seconds,
                })  # fmt: skip
    report.show(bars=("case", "x faster than published"))


def training_step(size: int, width: int, pairs: int, *, plain: bool, **how) -> Callable[[], None]:
    """An iteration of `learn`: the translator's update and the discriminators'. With `plain` by eager code that trains
    the discriminators on translations of their own, as MUNIT's two updates do."""
    style_dim, downsamplings, blocks, layers = munit_generator.sizes_for(size, size)
    torch.manual_seed(0)
    translator = Translator(3, style_dim, width, downsamplings, blocks, share=how.get("share", "all"))
    discriminator = MunitDiscriminator(3, (size, size), width, layers)
    objective = Munit(discriminator)
    adam = partial(torch.optim.Adam, lr=4e-4, betas=(0.5, 0.999), weight_decay=1e-4, fused=not plain)
    of_translator, of_discriminator = adam(translator.parameters()), adam(discriminator.parameters())
    x, index, y = torch.rand(pairs, 2, 3, size, size), torch.arange(pairs), torch.zeros(pairs).long()
    if how.get("channels_last"):
        translator.to(memory_format=torch.channels_last)
        discriminator.to(memory_format=torch.channels_last)
    model = torch.compile(translator) if how.get("compiled") else translator
    if how.get("compiled"):
        model.settings = translator.settings

    def update(optimizer, loss) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def iteration() -> None:
        update(of_translator, objective(model, x, y, key=0, index=index)[0])
        if plain:
            with torch.no_grad():
                a, b = 2 * x[:, 0] - 1, 2 * x[:, 1] - 1
                (style_a, style_b), (of_a, of_b) = random.normal(1, index, 2, style_dim), translator._content(a, b)
                vars(objective)["_images"] = a, b, *translator._decode(of_b, style_a, of_a, style_b)
        update(of_discriminator, objective.discriminator_loss(discriminator, x, y, key=0, index=index))

    def run() -> None:
        with as_described() if plain else torch.autocast("cpu", torch.bfloat16, enabled=bool(how.get("bfloat16"))):
            iteration()

    return run


def iterations(arguments) -> None:
    """A training iteration."""
    report = Report("learned_iteration", f"An iteration of learn, {arguments.pairs} pairs", arguments.output)
    for size, width in arguments.cases:
        make = partial(training_step, size, width, arguments.pairs)
        contenders = {
            "eager": make(plain=True), "ours": make(plain=False),
            "ours, channels-last": make(plain=False, channels_last=True),
        }  # fmt: skip
        if "bfloat16" in arguments.beside:
            contenders["ours, bfloat16"] = make(plain=False, bfloat16=True)
        if "compiled" in arguments.beside:
            contenders["ours, compiled"] = make(plain=False, compiled=True)
        times = interleave(contenders, arguments.repeats)
        for name, seconds in times.items():
            report.add(**{
                "case": f"{size}x{size}, width {width}: {name}", "ms": 1e3 * seconds,
                "x faster than eager": times["eager"] / seconds,
            })  # fmt: skip
    report.show(bars=("case", "x faster than eager"))


def cases(quick: bool) -> list[Case]:
    """`eager` is the network as R describes it, and its iteration by eager code."""

    def draw(size: int, width: int, batch: int) -> dict[str, Call]:
        calls = draw_contenders(size, width, batch, () if quick else (COMPILED_NETWORK,))
        calls = {OURS: calls.pop("draw"), EAGER: calls.pop("as described"), **calls}
        return {COMPILED if name == COMPILED_NETWORK else name: call for name, call in calls.items()}

    def of_step(name: str, size: int, width: int, batch: int) -> dict[str, Call]:
        calls = step_contenders(name, size, width, batch)
        return {OURS: calls.pop("ours"), EAGER: calls.pop("published"), **calls}

    def iteration(size: int, width: int, pairs: int) -> dict[str, Call]:
        make = partial(training_step, size, width, pairs)
        return {OURS: make(plain=False), EAGER: make(plain=True)}

    size, width, batch = (16, 8, 8) if quick else (32, 16, 16)
    network = f"{size}x{size}, width {width}"
    found = [Case(f"learned, {K} draws, {network}, batch {batch}", partial(draw, size, width, batch))]
    for name in ("MRT",) if quick else ("MRT", "MAT"):
        make = partial(of_step, name, size, width, batch)
        found.append(Case(f"learned, {name}-{K} step, {network}, batch {batch}", make))
    if not quick:
        found.append(Case(f"learned, an iteration of learn, {network}, 2 pairs", partial(iteration, size, width, 2)))
    return found


def _case(text: str) -> tuple[int, int]:
    size, width = map(int, text.split(":"))
    return size, width


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    options.add_argument("--batch", type=int, default=64, help="images in a draw and in a step")
    options.add_argument("--pairs", type=int, default=2, help="in a training iteration")
    options.add_argument("--cases", type=_case, nargs="+", default=[(32, 64), (32, 16)], metavar="SIZE:WIDTH")
    options.add_argument("--beside", nargs="+", choices=BESIDE, default=[], help="slow on many CPUs")
    options.add_argument("--what", nargs="+", choices=MEASURED, default=MEASURED)
    arguments = parse(options, selections=("cases", "what", "beside"))
    for name, measure in zip(MEASURED, (draws, steps, iterations), strict=True):
        if name in arguments.what:
            measure(arguments)


if __name__ == "__main__":
    main()
