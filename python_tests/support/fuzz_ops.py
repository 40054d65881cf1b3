"""Random calls of the operations. A call's seed determines its arguments; the reference backend is the truth.

Of the arguments some are valid, with unusual shapes, strides and values, and in a third of the calls one is not. An
invalid call must raise the same type of error on both backends, and the message must start with an argument's name.
"""

import math

import torch

from python_tests.support.fuzz_random import Random
from python_tests.support.nuisance import STEPS, step
from robustperf import ops
from robustperf.nuisance import L2Ball
from robustperf.ops.program import Program, Transform
from robustperf.ops.search_state import new_search

REAL = (torch.float32, torch.float64)
FLOATS = (*REAL, torch.bfloat16, torch.float16)


def spoiled(random: Random, value, free: bool):
    """A value that is never valid in place of `value`; `free`: a tensor of any length is."""
    if isinstance(value, torch.Tensor):
        other = {torch.float32: torch.int32, torch.float64: torch.complex128}.get(value.dtype, torch.uint8)
        ways = [None, value.tolist(), value.to(other), value[None], value.to("meta"), "tensor", object()]
        if value.dim():
            ways.append(value[..., 0] if value.shape[-1] else value[..., None])
        if value.dim() and not free:
            ways.append(value.new_zeros(len(value) + 2, *value.shape[1:]))
        return random.one(ways)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return random.one([None, -1, 2**70, 1.5, math.nan, "3", True, torch.zeros(2)])
    return random.one([None, math.nan, -math.inf, "fast", -1.0, [1.0], object()])


class Call:
    """One operation's arguments.

    may_spoil: the arguments that `spoil` chooses from; all if None.
    free: those whose first size no other argument has.
    also: further words that an error may start with.
    inplace: the arguments that the operation writes into, which are its result.
    compare(native, reference): an error message, or None where they agree.
    """

    def __init__(self, function, arguments: dict, compare, *, may_spoil=None, free=(), also=(), inplace=()) -> None:
        self.function, self.arguments, self.compare, self.inplace = function, arguments, compare, inplace
        self.free = free
        self.may_spoil = list(may_spoil or arguments)
        self.names = (*arguments, *also, "backend")
        self.spoiled = None

    def spoil(self, random: Random) -> None:
        self.spoiled = random.one(self.may_spoil)
        self.arguments[self.spoiled] = spoiled(random, self.arguments[self.spoiled], self.spoiled in self.free)

    def outcome(self, backend: str):
        """("value", outputs) or ("error", type, message)."""
        arguments = {
            name: value.clone() if name in self.inplace and isinstance(value, torch.Tensor) else value
            for name, value in self.arguments.items()
        }
        try:
            result = self.function(**arguments, backend=backend)
        except (TypeError, ValueError, NotImplementedError) as error:
            return "error", type(error), str(error)
        if self.inplace:
            result = tuple(arguments[name] for name in self.inplace)
        return "value", result if isinstance(result, tuple) else (result,)

    def fault(self) -> str | None:
        """What is wrong with the operation; None where nothing is."""
        native, reference = self.outcome("native"), self.outcome("reference")
        if native[0] != reference[0]:
            return f"native: {native}, reference: {reference}"
        if native[0] == "error":
            if native[1] is not reference[1]:
                return f"different errors: {native}, {reference}"
            if not any(message.startswith(name) for message in (native[2],) for name in self.names):
                return f"an error that names no argument: {native[2]}"
            return None
        if self.spoiled is not None:
            return f"{self.spoiled} = {self.arguments[self.spoiled]!r} was accepted"
        return self.compare(native[1], reference[1])


def close(rtol, atol=0.0):
    """Compares all outputs, NaN and infinities in the same places."""

    def compare(native, reference):
        for got, want in zip(native, reference, strict=True):
            try:
                torch.testing.assert_close(got, want, rtol=rtol, atol=atol, equal_nan=True)
            except AssertionError as error:
                return str(error)
        return None

    return compare


def logit_gap(random):
    batch, classes, dtype = random.size(), random.size(2), random.one(FLOATS)
    logits, label = random.real((batch, classes), dtype), random.integers((batch,), classes)
    return Call(ops.logit_gap, {"logits": logits, "label": label}, close(1e-12, 1e-300))


def best_of_k(random):
    k, batch, classes, dtype = random.one((1, 2, 3, 5, 16, 17)), random.size(), random.size(1), random.one(FLOATS)
    logits, target = random.real((k, batch, classes), dtype), random.integers((batch,), classes)
    arguments = {"logits": logits, "target": target, "selection": random.one(("sample", "batch"))}
    arguments["label_smoothing"] = random.one((0.0, 0.0, 0.1, 1.0))
    if batch and random.chance(0.3):
        arguments["ignore_index"] = int(target[0])
    scale = logits.double().abs().nan_to_num(posinf=0).amax().item() if logits.numel() else 1.0
    precision = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps

    def compare(native, reference):
        tolerance = 8 * precision * (1 + scale) * (classes if arguments["label_smoothing"] else 1)
        (loss, index), (want, chosen) = native, reference
        if arguments["selection"] == "batch":  # equal sums may be rounded to different draws
            if not torch.equal(index, chosen):
                return None if tolerance * batch > 1e-4 or batch == 0 else _equal_sums(arguments, index, chosen)
        return close(1e-6, tolerance)((loss,), (want,)) or (
            None if ((0 <= index) & (index < k)).all() else f"index out of range: {index}"
        )

    return Call(ops.best_of_k, arguments, compare, may_spoil=["logits", "target", "label_smoothing"], free=["logits"])


def _equal_sums(arguments, index, chosen):
    """None if two draws of the whole batch have the same loss in float64."""
    logits, target = arguments["logits"].double(), arguments["target"]
    sums = [
        torch.nn.functional.cross_entropy(
            logits[int(k[0])], target, reduction="sum", label_smoothing=arguments["label_smoothing"],
            ignore_index=arguments.get("ignore_index", -100),
        ).item()
        for k in (index.sort(descending=True)[0], chosen.sort(descending=True)[0])
    ]  # fmt: skip
    return None if math.isclose(*sums, rel_tol=1e-5, abs_tol=1e-5) else f"sums {sums} of the draws {index}, {chosen}"


def coordinates(random, batch=None):
    index = random.integers((random.size() if batch is None else batch,), random.one((10, 2**40, 2**63 - 1)))
    return {
        "key": random.one((0, 7, 2**64 - 1)),
        "index": index,
        "draw": random.integers((random.one((0, 1, 2, 5)),), 2**32),
    }


FREE = ("index", "draw")


def draws(random):
    arguments = coordinates(random) | {"dim": random.size(), "normal": random.chance(0.5)}
    return Call(ops.draws, arguments, close(0, 0), may_spoil=["key", "index", "draw", "dim"], free=FREE)


def box(random, x):
    """lower and upper, and x within them in most rows."""
    if random.chance(0.6):
        return {}
    low, high = random.one((-2.0, 0.0, -math.inf)), random.one((1.0, 3.0, math.inf))
    if random.chance(0.5):
        return {"lower": low, "upper": high}
    shape = x.shape[1:]
    return {"lower": torch.full(shape, low, dtype=x.dtype), "upper": torch.full(shape, high, dtype=x.dtype)}


def relative(rows, dtype, *, factor=64.0, operands=0.0):
    """Row by row within some units in the last place of the row's largest number, or of the float64 `operands`;
    infinities and NaN equal."""
    eps = torch.finfo(dtype).eps

    def compare(native, reference):
        got, want = (value.flatten(1).double() for value in (native, reference))
        if not torch.equal(got.isnan(), want.isnan()):
            return f"NaN in different places: {native} and {reference}"
        got, want = got.nan_to_num(0), want.nan_to_num(0)
        bound = factor * eps * (1 + rows) * want.abs().clamp_max(1e300).amax(1, keepdim=True) if want.numel() else 0
        bound = bound + factor * 2.0**-53 * operands
        wrong = ((got - want).abs() > bound) & (got != want)
        return f"{got[wrong][:4]} and {want[wrong][:4]}" if wrong.any() else None

    return compare


def halfspace_box_projection(random):
    batch, dim, dtype = random.size(), random.size(), random.one(REAL)
    x = random.real((batch, dim), dtype, unit=True)
    w, c = random.real((batch, dim), dtype), random.real((batch,), random.one(REAL))
    norm = random.one((1, 2, math.inf))
    arguments = {"x": x, "w": w, "c": c, "norm": norm} | box(random, x)

    def compare(native, reference):
        delta, want = native[0].double(), reference[0].double()
        # the reference subtracts places in the box, which is at most 5 wide
        if fault := relative(dim, dtype, factor=256.0, operands=5.0)(_norm(delta, norm), _norm(want, norm)):
            return fault
        certain = reference[1] == native[1]  # a solution at the corner itself is one of rounding
        reach = (w.double() * want).sum(1)
        doubtful = (reach - c.double()).abs() <= 1e-5 * (w.double().abs() * want.abs()).sum(1)
        return None if (certain | doubtful | want.isnan().any(1)).all() else f"feasible: {native[1]}, {reference[1]}"

    return Call(ops.halfspace_box_projection, arguments, compare, may_spoil=["x", "w", "c", "norm"], also=["bounds"])


def _norm(delta, norm):
    return torch.linalg.vector_norm(delta, norm, 1, keepdim=True) if delta.shape[1] else delta.sum(1, keepdim=True)


def ball_box_projection(random):
    shape = (random.size(), *(random.size() for _ in range(random.one((1, 1, 2)))))
    dtype = random.one(REAL)
    x, delta = random.real(shape, dtype, unit=True), random.real(shape, dtype)
    radius = random.real(shape[:1], random.one(REAL)).abs()
    arguments = {"x": x, "delta": delta, "radius": radius, "norm": random.one((1, 2, math.inf))} | box(random, x)

    def compare(native, reference):
        # for p = 1 a move is the difference of a size and the threshold
        operands = delta.double().abs().flatten(1).nan_to_num(posinf=0).amax(1, keepdim=True) if delta.numel() else 0.0
        return relative(math.prod(shape[1:]), dtype, operands=operands if arguments["norm"] == 1 else 0.0)(
            native[0], reference[0]
        )

    may_spoil = ["x", "delta", "radius", "norm"]
    return Call(ops.ball_box_projection, arguments, compare, may_spoil=may_spoil, also=["bounds"])


def rbf_decision(random):
    batch, dim, support, pairs, dtype = (random.size(), random.size(), random.size(), random.size(), random.one(REAL))
    scale = {"finite": random.chance(0.8)}
    arguments = {
        "x": random.real((batch, dim), dtype, **scale).clamp(-100, 100),
        "support": random.real((support, dim), dtype, finite=True).clamp(-100, 100),
        "dual": random.real((pairs, support), dtype, finite=True).clamp(-100, 100),
        "intercept": random.real((pairs,), dtype, finite=True).clamp(-100, 100),
        "gamma": random.one((1e-6, 0.1, 1.0, 50.0)),
    }
    largest = max([1.0, *(value.abs().amax().item() for value in list(arguments.values())[1:4] if value.numel())])
    # gamma |x - s|² has the rounding of the squares, of up to 4 * 100² * dim
    tolerance = 64 * torch.finfo(dtype).eps * (1 + support) * largest * (1 + dim) * 1e3
    return Call(ops.rbf_decision, arguments, close(0, tolerance), free=["x"])


def program(random):
    """(program, number of channels): one to three steps that take images of 3 channels, or a ball."""
    names = [name for name in STEPS if name != "background of grey"]
    if random.chance(0.1):
        return L2Ball(1.5).program
    steps = tuple(STEPS[random.one(names)] for _ in range(1 + random.below(3)))
    return Program(steps if random.chance(0.9) else (*steps, step(Transform.BRIGHTNESS, (0,), (0,))))


def images(random):
    shape = (random.one((0, 1, 2, 5)), random.one((3, 3, 3, 1)), random.one((1, 4, 9, 17)), random.one((1, 4, 11, 33)))
    return random.real(shape, random.one(REAL), unit=True)


def of_images(dtype, *, drawn=False):
    """Rounding may decide which pixel a warp reads and which colour is the background: of float32 nearly all agree."""
    tolerance, exceptions = (1e-9, 0.0) if dtype == torch.float64 and not drawn else (2e-3, 0.05)

    def compare(native, reference):
        for got, want in zip(native, reference, strict=True):
            if got.shape != want.shape or got.dtype != want.dtype:
                return f"{got.shape} {got.dtype} and {want.shape} {want.dtype}"
            wrong = ~((got - want).abs() <= tolerance * (1 + want.abs()))
            if int(wrong.sum()) > exceptions * wrong.numel() + 8 * bool(exceptions):
                return f"{int(wrong.sum())} of {wrong.numel()} differ: {got[wrong][:4]} and {want[wrong][:4]}"
        return None

    return compare


def nuisance(random):
    x, steps = images(random), program(random)
    try:
        dim = steps.layout(tuple(x.shape[1:])).dim
    except ValueError:
        dim = 1
    delta = torch.zeros(2, len(x), dim, dtype=x.dtype)
    if dim:
        sampled = torch.rand(delta.shape, generator=random.torch, dtype=torch.float64)
        delta = random.strided((sampled * 0.4).to(x.dtype))
    call = Call(
        ops.nuisance,
        {"x": x, "delta": delta, "program": steps},
        of_images(x.dtype),
        may_spoil=["x", "delta"],
        free=["delta"],
    )
    call.names += NAMES_OF_STEPS
    return call


NAMES_OF_STEPS = (*STEPS, "x", "add", "shape", "program")


def nuisance_draw(random):
    x, steps = images(random), program(random)
    arguments = {"x": x} | coordinates(random, len(x)) | {"program": steps}
    call = Call(
        ops.nuisance_draw,
        arguments,
        of_images(x.dtype, drawn=True),
        may_spoil=["x", "key", "index", "draw"],
        free=["draw"],
    )
    call.names += NAMES_OF_STEPS
    return call


def nuisance_sample(random):
    arguments = coordinates(random) | {"program": program(random), "shape": random.one(((3, 9, 11), (3, 1, 1)))}
    call = Call(ops.nuisance_sample, arguments, close(0, 1e-6), may_spoil=["key", "index", "draw"], free=FREE)
    call.names += NAMES_OF_STEPS
    return call


def line_search_step(random):
    """The start of the searches and one step of them."""
    points, dim, lines, classes = random.size(1), random.size(), random.one((1, 1, 2, 5)), random.size(2)
    dtype = random.one(REAL)
    x = random.real((points, dim), dtype, unit=True).contiguous()
    candidates = random.real((lines, points, dim), dtype, unit=True).contiguous()
    length = random.real((points, lines), torch.float64, unit=True).clamp_min(1e-3).contiguous()
    gap_end = random.real((points, lines), torch.float64).contiguous()
    gap_x = random.real((points,), torch.float64).abs().contiguous()  # a point that has crossed needs no search
    state = new_search(gap_x, length, gap_end)
    settings = {"tol": random.one((0.25, 1e-6)), "method": random.one(("chandrupatla", "bisection"))}
    settings["probes"] = random.one((0, 3))
    rows, label = torch.randperm(points, generator=random.torch), random.integers((points,), classes).contiguous()
    operands = {"rows": rows, "label": label, "x": x, "candidates": candidates, "lines": state[0], "state": state[1]}
    operands |= {"next": torch.zeros_like(x), "closest": torch.zeros_like(x)}
    logits = None
    if random.chance(0.7):
        ops.line_search_step(None, **operands, **settings, backend="reference")
        logits = random.real((points, classes), random.one(FLOATS))
    return Call(
        ops.line_search_step,
        {"logits": logits} | operands | settings,
        close(1e-12, 1e-12),
        may_spoil=list(operands),
        inplace=("lines", "state", "next", "closest"),
    )


OPS = {function.__name__: function for function in (
    ball_box_projection, best_of_k, draws, halfspace_box_projection, line_search_step, logit_gap, nuisance,
    nuisance_draw, nuisance_sample, rbf_decision,
)}  # fmt: skip


def fault_of(op: str, seed: int) -> str | None:
    """What is wrong with the call of this seed; None where nothing is."""
    random = Random(seed)
    call = OPS[op](random)
    if random.chance(1 / 3):
        call.spoil(random)
    return call.fault()
