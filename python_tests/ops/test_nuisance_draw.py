"""Draws within one pass over an image: those of `nuisance_sample` put through `nuisance`, bit for bit."""

import math

import pytest
import torch

from robustperf.ops import nuisance, nuisance_draw, nuisance_sample
from robustperf.ops.program import FOG_NODES, Distribution, Outside, Program, Source, Step, Transform

OP = "nuisance_draw"
T = Transform
INDICES = [0, 7, 49_999, 2**32, 2**63 - 1]
DRAWS = [0, 1, 5, 2**32 - 1]
KEYS = [0, 2**63 + 11]
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def step(transform, lower, upper, *settings, distribution=Distribution.BOX):
    return Step(transform, distribution, lower, upper, settings, transform.name.lower())


COLOURS = ((0.0, 0.1, 0.2), (1.0, 0.9, 0.2))
STEPS = {
    "brightness": step(T.BRIGHTNESS, (-0.6,), (0.6,)),
    "contrast": step(T.CONTRAST, (-0.6,), (0.6,)),
    "saturation": step(T.SATURATION, (-0.6,), (0.6,), 1),
    "decolourise": step(T.SATURATION, (0,), (1,), -1),
    "hue": step(T.HUE, (-0.5,), (0.5,)),
    "gamma": step(T.GAMMA, (-0.5,), (0.5,)),
    "background of grey": step(T.BACKGROUND, *COLOURS, Source.GREY),
    "background of a corner": step(T.BACKGROUND, *COLOURS, Source.CORNER),
    "background of a colour": step(T.BACKGROUND, *COLOURS, Source.COLOUR, 0.1, 0.6, 0.2),
    "rotation": step(T.AFFINE, (-180,), (180,), 1, Outside.ZEROS),
    "affine": step(T.AFFINE, (-90, -0.2, -0.2, -0.3, -20, -20), (90, 0.2, 0.2, 0.3, 20, 20), 63, Outside.BORDER),
    "gaussian noise": step(T.ADD, (0,), (0.2,), 1, distribution=Distribution.NORMAL),
    "L2 ball": step(T.ADD, (0,), (2.5,), 0, distribution=Distribution.BALL),
    "cube": step(T.ADD, (-0.1,), (0.1,), 0, distribution=Distribution.EVERYWHERE),
    "impulse": step(T.IMPULSE, (0,), (1,), 0.25, distribution=Distribution.EVERYWHERE),
    "shot": step(T.SHOT, (0,), (1,), 25, distribution=Distribution.EVERYWHERE),
    "blur": step(T.BLUR, (0.1,), (1.2,), 3),
    "fog": step(T.FOG, (0,), (0.8,), distribution=Distribution.FOG),
}
CHAINS = {
    "of much": ["rotation", "brightness", "contrast", "gaussian noise", "blur", "fog", "affine", "gamma",
                "background of a corner", "hue", "impulse", "rotation", "saturation", "shot"],
    "balls": ["cube", "L2 ball", "contrast", "L2 ball", "rotation", "L2 ball"],
    "from grey": ["gamma", "background of grey", "fog", "background of a corner", "decolourise"],
    "one warp at the head": ["rotation", "brightness", "contrast"],
    "a light step at the head": ["contrast", "fog", "gaussian noise"],
}  # fmt: skip
EVERYTHING = [*STEPS, *CHAINS]


def program_of(name):
    return Program(tuple(STEPS[one] for one in CHAINS.get(name, [name])))


BRIGHTER = program_of("brightness")


def images(name, height=6, width=7, batch=5):
    """With a corner that is not white, which differs from every foreground."""
    channels = 1 if name in ("background of grey", "from grey") else 3
    x = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    x[:, :, 0, 0] *= 0.5
    return x


def on(device, values):
    return torch.tensor(values, dtype=torch.int64, device=device)


@both_dtypes
@pytest.mark.parametrize("name", EVERYTHING)
def test_a_draw_is_a_sample_put_through(backend, device, name, dtype):
    program, index, draw = program_of(name), on(device, INDICES), on(device, DRAWS)
    for height, width in ((6, 7), (33, 21), (4, 700)):
        batch = len(INDICES) if height == 6 else 2
        x = images(name, height, width, batch).to(device, dtype)
        for key in KEYS if height == 6 else KEYS[:1]:
            got = nuisance_draw(x, key, index[:batch], draw, program, backend=backend)
            delta = nuisance_sample(key, index[:batch], draw, program, x.shape[1:], backend=backend)
            assert torch.equal(got, nuisance(x, delta.to(dtype), program, backend=backend))
            assert got.dtype == dtype and got.is_contiguous() and got.shape[:2] == (len(DRAWS), batch)
            assert len({tuple(image.flatten().tolist()) for image in got[:, 0]}) == len(DRAWS), "draws differ"


@pytest.mark.parametrize("name", EVERYTHING)
def test_backends_agree(backend, device, name):
    x, program = images(name, 33, 21), program_of(name)
    for dtype, near in ((torch.float64, 1e-6 if name == "balls" else 1e-11), (torch.float32, 2e-5)):
        want = nuisance_draw(x.to(dtype), 3, on("cpu", INDICES), on("cpu", DRAWS), program, backend="reference")
        got = nuisance_draw(x.to(device, dtype), 3, on(device, INDICES), on(device, DRAWS), program, backend=backend)
        if name == "L2 ball":
            near = 1e-6
        wrong = (got.cpu() - want).abs()
        # counts of photons jump where rounding has the last word, and colours may be steep before a corner
        assert (wrong > near).double().mean() < (1e-3 if name in ("shot", "of much", "from grey") else 1e-9), dtype


@both_dtypes
@pytest.mark.parametrize("name", EVERYTHING)
def test_batches_orders_and_chunks_of_draws_change_nothing(backend, device, name, dtype):
    x, index, draw = images(name).to(device, dtype), on(device, INDICES), on(device, DRAWS)

    def drawn(x, index, draw):
        return nuisance_draw(x, 9, index, draw, program_of(name), backend=backend)

    whole = drawn(x, index, draw)
    for some in (slice(0, 1), slice(1, 4), slice(None, None, 2)):  # strided too
        assert torch.equal(drawn(x[some], index[some], draw), whole[:, some])
        assert torch.equal(drawn(x, index, draw[some]), whole[some])
    assert torch.equal(drawn(x.flip(0), index.flip(0), draw.flip(0)), whole.flip(0, 1))
    assert torch.equal(drawn(x[[2, 2]], index[[2, 2]], draw), whole[:, [2, 2]])


@both_dtypes
@pytest.mark.parametrize("name", ["hue", "rotation", "L2 ball", "fog", "of much"])
def test_two_threads_draw_what_one_draws(name, dtype):
    """By the default backend: enough pixels for two, and three images, so that the draws of one are shared out."""
    args = images(name, 48, 51, 3).to(dtype), 9, on("cpu", INDICES[:3]), on("cpu", DRAWS), program_of(name)
    one = nuisance_draw(*args)
    torch.set_num_threads(2)  # the fixture puts back what was set
    assert torch.equal(nuisance_draw(*args), one)


@both_dtypes
def test_layout_does_not_matter(backend, device, dtype):
    x, index, draw = images("of much").to(device, dtype), on(device, INDICES), on(device, DRAWS)
    for name in ("brightness", "of much"):
        want = nuisance_draw(x, 9, index, draw, program_of(name), backend=backend)
        for view in (x.contiguous(memory_format=torch.channels_last), torch.stack([x, x], -1)[..., 0]):
            strided = torch.stack([index, index], 1)[:, 0], torch.stack([draw, draw], 1)[:, 1]
            got = nuisance_draw(view, 9, *strided, program_of(name), backend=backend)
            assert torch.equal(got, want) and got.is_contiguous()


def test_a_key_in_a_tensor_draws_what_the_integer_draws(backend, device):
    x, where = images("contrast").to(device), (on(device, INDICES), on(device, DRAWS))
    want = nuisance_draw(x, 2**64 - 5, *where, BRIGHTER, backend=backend)
    assert torch.equal(nuisance_draw(x, torch.tensor(-5, device=device), *where, BRIGHTER, backend=backend), want)


def test_shared_steps_draw_once(backend, device):
    x, index, draw = images("hue").to(device), on(device, INDICES), on(device, DRAWS)
    program = Program((STEPS["L2 ball"], STEPS["gamma"], STEPS["L2 ball"], STEPS["gamma"]), (0, 1, 0, 1))
    delta = nuisance_sample(5, index, draw, program, x.shape[1:], backend=backend)
    assert delta.shape[2] == math.prod(x.shape[1:]) + 1
    assert torch.equal(nuisance_draw(x, 5, index, draw, program, backend=backend),
                       nuisance(x, delta, program, backend=backend))  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", EVERYTHING)
def test_empty_batches_and_no_draws(backend, device, name, dtype):
    channels = images(name).shape[1]
    after = 3 if "background" in name or name in ("of much", "from grey") else channels
    for batch, count in ((0, 4), (5, 0), (0, 0)):
        x, index, draw = images(name)[:batch].to(device, dtype), on(device, INDICES[:batch]), on(device, DRAWS[:count])
        got = nuisance_draw(x, 9, index, draw, program_of(name), backend=backend)
        assert got.shape == (count, batch, after, 6, 7) and got.dtype == dtype


@both_dtypes
@pytest.mark.parametrize("name", ["brightness", "of much", "from grey"])
def test_a_result_is_written_into_what_is_given(backend, device, name, dtype):
    args = images(name).to(device, dtype), 9, on(device, INDICES), on(device, DRAWS), program_of(name)
    want = nuisance_draw(*args, backend=backend)
    frame = torch.full((6, *want.shape[1:]), 7.0, dtype=dtype, device=device)
    out = frame[1:5]
    for _ in range(2):  # over what it held before
        assert nuisance_draw(*args, out=out, backend=backend) is out
        assert torch.equal(frame[1:5], want) and frame[0].eq(7).all() and frame[5].eq(7).all()


def test_a_compiled_function_writes_into_what_is_given(backend, device):
    x, index, draw = images("hue").to(device), on(device, INDICES), on(device, DRAWS)

    def into(out, x):
        return nuisance_draw(x * 0.5, 3, index, draw, BRIGHTER, out=out, backend=backend) + 1

    want, out = nuisance_draw(x * 0.5, 3, index, draw, BRIGHTER, backend=backend), torch.zeros(4, 5, 3, 6, 7)
    out = out.to(device)
    got = torch.compile(into, fullgraph=True, backend="aot_eager")(out, x)
    assert torch.equal(got, want + 1) and torch.equal(out, want)


def test_no_gradient_is_promised(backend, device):
    # "No gradient": an output that asks for gradients and has none would train on silence
    x = images("hue").to(device).requires_grad_()
    got = nuisance_draw(x, 9, on(device, INDICES), on(device, DRAWS), program_of("hue"), backend=backend)
    assert not got.requires_grad


def test_inputs_are_left_as_they_were(backend, device):
    x, index, draw = images("of much").to(device), on(device, INDICES), on(device, DRAWS)
    before = x.clone(), index.clone(), draw.clone()
    nuisance_draw(x, 9, index, draw, program_of("of much"), backend=backend)
    assert all(torch.equal(mine, old) for mine, old in zip((x, index, draw), before, strict=True))


def test_a_compiled_function_equals_the_eager_one(backend, device):
    program = Program((STEPS["brightness"], STEPS["fog"], STEPS["gaussian noise"]))

    def jittered(x, index, draw):
        return nuisance_draw(x * 0.5, 2**63 + 5, index, draw, program, backend=backend).mean(0)

    compiled = torch.compile(jittered, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):
        args = images("hue", batch=batch).to(device), on(device, INDICES[:batch]), on(device, DRAWS)
        assert torch.equal(compiled(*args), jittered(*args))


def test_on_the_meta_device_shapes_are_worked_out():
    x, index = torch.zeros(2, 1, 6, 5, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    draw = torch.zeros(4, dtype=torch.int64, device="meta")
    out = nuisance_draw(x, 0, index, draw, program_of("from grey"))
    assert (out.shape, out.dtype, out.device.type) == ((4, 2, 3, 6, 5), torch.float32, "meta")
    delta = nuisance_sample(0, index, draw, program_of("from grey"), (1, 6, 5))
    assert (delta.shape, delta.dtype, delta.device.type) == ((4, 2, 9 + FOG_NODES), torch.float32, "meta")


X, B, K = torch.full((2, 3, 4, 5), 0.5), torch.arange(2), torch.arange(3)


@pytest.mark.parametrize("x, key, index, draw, program, error, message", [
    (X.half(), 0, B, K, BRIGHTER, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    (X[0], 0, B, K, BRIGHTER, ValueError, r"x: expected shape \[B, C, H, W\], got \[3, 4, 5\]"),
    (X[..., :0], 0, B, K, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 3, 4, 0\]"),
    (X + 1, 0, B, K, BRIGHTER, ValueError, r"x: expected pixels within \[0, 1\], got 1.5 at \[0, 0, 0, 0\]"),
    (X * math.nan, 0, B, K, BRIGHTER, ValueError, r"x: expected finite pixels, got nan at \[0, 0, 0, 0\]"),
    (X[:, :2], 0, B, K, program_of("hue"), ValueError, r"x: hue expected RGB images, 3 channels, got \[2, 4, 5\]"),
    (X[..., :3, :], 0, B, K, program_of("blur"), ValueError, r"x: blur expected images larger than .* radius 3, got"),
    (X, -1, B, K, BRIGHTER, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
    (X, 2**64, B, K, BRIGHTER, ValueError, r"key: .* got 18446744073709551616"),
    (X, 0, B.int(), K, BRIGHTER, TypeError, r"index: expected torch.int64, got torch.int32"),
    (X, 0, B[:1], K, BRIGHTER, ValueError, r"index: expected shape \[2\], got \[1\]"),
    (X, 0, K, K, BRIGHTER, ValueError, r"index: expected shape \[2\], got \[3\]"),
    (X, 0, B[None], K, BRIGHTER, ValueError, r"index: expected shape \[2\], got \[1, 2\]"),
    (X, 0, B - 1, K, BRIGHTER, ValueError, r"index: expected numbers in 0..\d+, got -1 to 0"),
    (X, 0, B.to("meta"), K, BRIGHTER, ValueError, r"index: expected a tensor on cpu, got one on meta"),
    (X, 0, B, K.float(), BRIGHTER, TypeError, r"draw: expected torch.int64, got torch.float32"),
    (X, 0, B, 3, BRIGHTER, TypeError, r"draw: expected a tensor, got int"),
    (X, 0, B, K[0], BRIGHTER, ValueError, r"draw: expected shape \[K\], got \[\]"),
    (X, 0, B, K + 2**32 - 1, BRIGHTER, ValueError, r"draw: expected numbers in 0..4294967295, got 4294967295 to"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(backend, x, key, index, draw, program, error, message):
    if backend in ("cuda", "triton") and "pixels" in message:
        pytest.skip("a GPU is not waited for")
    with pytest.raises(error, match=message):
        nuisance_draw(x, key, index, draw, program, backend=backend)


@pytest.mark.parametrize("wrong, error, message", [
    (lambda out: [0.0], TypeError, r"out: expected a tensor, got list"),
    (lambda out: out.double(), TypeError, r"out: expected torch.float32, got torch.float64"),
    (lambda out: out[:2], ValueError, r"out: expected shape \[3, 2, 3, 4, 5\], got \[2, 2, 3, 4, 5\]"),
    (lambda out: out[:, :, :1], ValueError, r"out: expected shape \[3, 2, 3, 4, 5\], got \[3, 2, 1, 4, 5\]"),
    (lambda out: out[0], ValueError, r"out: expected shape \[3, 2, 3, 4, 5\], got \[2, 3, 4, 5\]"),
    (lambda out: out.to("meta"), ValueError, r"out: expected a tensor on DEVICE, got one on meta"),
    (lambda out: out.reshape(3, 2, 3, 5, 4).mT, ValueError, r"out: expected a contiguous tensor, got one with"),
    (lambda out: out[:1].expand(3, 2, 3, 4, 5), ValueError, r"out: expected a contiguous tensor"),
    (lambda out: out.requires_grad_(), ValueError, r"out: expected a tensor that requires no gradient"),
], ids="list float64 two_draws one_channel no_draws meta transposed expanded gradient".split())  # fmt: skip
def test_what_cannot_be_written_into_is_refused(backend, device, wrong, error, message):
    x, index, draw = (value.to(device) for value in (X, B, K))
    out = wrong(torch.zeros(3, 2, 3, 4, 5, device=device))
    with pytest.raises(error, match=message.replace("DEVICE", str(x.device))):
        nuisance_draw(x, 0, index, draw, BRIGHTER, out=out, backend=backend)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend: expected one of reference, native, cuda, triton, got 'fast'"):
        nuisance_draw(X, 0, B, K, BRIGHTER, backend="fast")
