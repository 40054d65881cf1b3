"""The native module checks its arguments: a readable error names the wrong one, and nothing crashes."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from python_tests.support.bindings import FUNCTIONS, call, every_tensor, native, refused


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_right_arguments_are_accepted(function, dtype):
    call(function, dtype)


HALVES = {("best_of_k", "logits"), ("logit_gap", "logits")}


@every_tensor
@pytest.mark.parametrize("wrong", [torch.float16, torch.int32, torch.complex64, torch.uint8, torch.bfloat16], ids=str)
def test_wrong_dtypes(function, name, wrong):
    value = FUNCTIONS[function]()[name]
    if (function, name) in HALVES and wrong in (torch.float16, torch.bfloat16):
        call(function, wrong)
        return
    message = refused(function, name, value.to(wrong))
    assert f"got {wrong}" in message and "expected a contiguous torch." in message


@pytest.mark.parametrize("function, name", [
    ("ball_box_projection", "delta"), ("ball_box_projection", "lower"), ("ball_box_projection", "upper"),
    ("ball_box_projection", "out"),
    ("halfspace_box_projection", "w"), ("halfspace_box_projection", "delta"), ("line_search_step", "candidates"),
    ("line_search_step", "next"), ("line_search_step", "closest"), ("nuisance", "delta"), ("nuisance", "out"),
    ("nuisance_draw", "out"), ("nuisance_backward", "grad"), ("nuisance_backward", "delta"),
    ("nuisance_backward", "grad_x"), ("nuisance_backward", "grad_delta"), ("rbf_values", "squares_of_x"),
    ("rbf_values", "squares_of_s"), ("rbf_sums", "squares_of_x"), ("rbf_sums", "squares_of_s")])  # fmt: skip
def test_dtypes_that_differ_from_that_of_x(function, name):
    for mine, other in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        value = FUNCTIONS[function](other)[name]
        assert f"expected a contiguous {mine} tensor" in refused(function, name, value, mine)


@every_tensor
def test_wrong_parameters_of_dimensions(function, name):
    value = FUNCTIONS[function]()[name]
    message = refused(function, name, value[None].contiguous())
    assert message.endswith(str(list(value[None].shape)))
    refused(function, name, value[0].clone())
    refused(function, name, torch.zeros((1,) * 6, dtype=value.dtype))
    refused(function, name, torch.tensor(0, dtype=value.dtype))


# the argument that the error names where another argument's size follows that of this one
LEADERS = {("ball_box_projection", "x"): "delta",
           ("halfspace_box_projection", "x"): "w", ("draws", "index"): "out", ("draws", "draw"): "out",
           ("line_search_step", "rows"): "next", ("line_search_step", "x"): "candidates",
           ("logit_gap", "logits"): "label", ("best_of_k", "logits"): "target", ("nuisance_sample", "index"): "delta",
           ("nuisance_sample", "draw"): "delta", ("nuisance_draw", "draw"): "out",
           ("rbf_values", "products", 0): "squares_of_x", ("rbf_values", "products", 1): "squares_of_s",
           ("rbf_sums", "products", 0): "squares_of_x", ("rbf_sums", "products", 1): "squares_of_s",
           ("rbf_sums", "coefficients", 0): "sums",
           ("nuisance", "x", 0): "delta", ("nuisance_draw", "x", 0): "index", ("nuisance_backward", "x", 0): "delta",
           ("nuisance", "delta", 0): "out", ("nuisance_backward", "delta", 0): "grad"}  # fmt: skip


@every_tensor
@pytest.mark.parametrize("more", [False, True], ids=["shorter", "longer"])
def test_wrong_sizes_along_every_dimension(function, name, more):
    value = FUNCTIONS[function]()[name]
    free = {("logit_gap", "logits"): [1], ("line_search_step", "logits"): [1], ("draws", "out"): [2],
            ("line_search_step", "candidates"): [0], ("best_of_k", "logits"): [0, 2]}  # fmt: skip
    free = free.get((function, name), [])
    for dim in range(value.dim()):
        if more:
            wrong = torch.cat([value, value.narrow(dim, 0, 1)], dim)
        else:
            wrong = value.narrow(dim, 0, value.shape[dim] - 1).clone()
        if dim in free and name != "candidates":
            call(function, **{name: wrong})
            continue
        if function.startswith("nuisance") and name == "x" and dim > 0:  # its program is for images of that shape
            with pytest.raises(ValueError, match=r"program: step \d: "):
                call(function, x=wrong)
            continue
        with pytest.raises(ValueError) as error:
            call(function, **{name: wrong})
        leader = LEADERS.get((function, name, dim), LEADERS.get((function, name), name))
        blamed = "lines" if name == "candidates" and dim == 0 else leader
        assert str(error.value).startswith(f"{blamed}: expected a contiguous"), (dim, error.value)


@every_tensor
def test_tensors_that_are_not_contiguous(function, name):
    value = FUNCTIONS[function]()[name]
    wide = torch.stack([value, value], -1)[..., 0]
    assert wide.shape == value.shape and not wide.is_contiguous()
    assert "got non-contiguous" in refused(function, name, wide)
    if value.dim() == 2:
        assert "got non-contiguous" in refused(function, name, value.t().contiguous().t())
    assert "got non-contiguous" in refused(function, name, value[:1].expand(value.shape))


@every_tensor
def test_tensors_on_another_device(function, name):
    value = FUNCTIONS[function]()[name]
    assert refused(function, name, value.to("meta")) == f"{name}: expected a tensor on cpu, got one on meta"


@every_tensor
@pytest.mark.parametrize("value", [None, 3, [1.0], "x"], ids=str)
def test_what_is_no_tensor(function, name, value):
    if (function, name, value) == ("line_search_step", "logits", None):
        call(function, logits=None)
        return
    with pytest.raises((AttributeError, TypeError, ValueError)):
        call(function, **{name: value})


class Subclass(torch.Tensor):
    pass


@every_tensor
def test_subclasses_are_tensors(function, name):
    value = FUNCTIONS[function]()[name]
    call(function, **{name: torch.nn.Parameter(value, requires_grad=False)})
    call(function, **{name: value.as_subclass(Subclass)})
    assert f"got {torch.complex64}" in refused(function, name, value.to(torch.complex64).as_subclass(Subclass))


@every_tensor
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_tensors_without_data_are_not_followed(function, name):
    with FakeTensorMode() as fake:
        value = fake.from_tensor(FUNCTIONS[function]()[name])
    with pytest.raises((ValueError, RuntimeError), match=f"^{name}: expected a tensor with data, got none|FakeTensor"):
        call(function, **{name: value})


@pytest.mark.parametrize("function, name, value", [
    ("draws", "key", -1), ("draws", "key", 2**64), ("draws", "key", 1.5), ("draws", "threads", None),
    ("ball_box_projection", "norm", 2.5), ("ball_box_projection", "norm", 2**40),
    ("halfspace_box_projection", "norm", "2"), ("halfspace_box_projection", "lower", None),
    ("halfspace_box_projection", "norm", 2**40), ("logit_gap", "rounding_tolerance", "small"),
    ("line_search_step", "probes", 0.5), ("line_search_step", "tol", None), ("best_of_k", "first", 0.5),
    ("best_of_k", "ignore_index", 2**64), ("best_of_k", "label_smoothing", None), ("best_of_k", "first_chunk", "yes"),
    ("rbf_values", "gamma", None), ("nuisance", "key", -1), ("nuisance", "key", 2**64), ("nuisance_sample", "key", 0.5),
    *((function, name, value) for function in ("nuisance", "nuisance_draw", "nuisance_backward", "nuisance_sample")
      for name, value in (("codes", None), ("codes", [0.5] * 4), ("codes", [2**63, 0, 1, 0]), ("codes", [None] * 4),
                          ("parameters", None), ("parameters", ["1"] * 16), ("threads", None))),
])  # fmt: skip
def test_parameters_of_the_wrong_kind(function, name, value):
    with pytest.raises(TypeError):
        call(function, **{name: value})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_few_and_too_many_arguments(function):
    values = list(FUNCTIONS[function]().values())
    for wrong in ([], values[:-1], [*values, 1]):
        with pytest.raises(TypeError):
            getattr(native, function)(*wrong)


@pytest.mark.parametrize("threads", [-5, 0, 1, 64])
def test_any_number_of_threads_is_taken(threads):
    for function in FUNCTIONS:
        call(function, threads=threads)


def test_sizes_of_one_and_of_zero_have_any_stride():
    out = torch.zeros(1, dtype=torch.float64).as_strided((1,), (7,))
    logits = torch.zeros(8).as_strided((1, 2), (5, 1))
    native.logit_gap(logits, torch.zeros(1, dtype=torch.int64), out, 0.0, 1)
    empty = torch.zeros(0, dtype=torch.float64).as_strided((0,), (3,))
    native.logit_gap(torch.zeros(0, 2).as_strided((0, 2), (9, 9)), torch.zeros(0, dtype=torch.int64), empty, 0.0, 1)


@pytest.mark.parametrize("wrong", [3, -1, 10**9, -(2**63), 2**63 - 1])
def test_a_target_that_points_outside_is_refused(wrong):
    for place in range(4):
        target = torch.zeros(4, dtype=torch.int64)
        target[place] = wrong
        assert f"expected labels in 0..2, got {wrong}" in refused("best_of_k", "target", target)
        call("best_of_k", target=target, ignore_index=wrong)


def test_the_loss_has_the_dtype_that_the_logits_ask_for():
    for mine, other in ((torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float16, torch.float64)):
        want = torch.float64 if mine == torch.float64 else torch.float32
        message = refused("best_of_k", "loss", torch.zeros(4, dtype=other), mine)
        assert f"expected a contiguous {want} tensor" in message


def test_no_draws_and_no_classes():
    for shape in ((0, 4, 3), (2, 4, 0)):
        assert "at least one draw and one class" in refused("best_of_k", "logits", torch.zeros(shape))


@pytest.mark.parametrize(
    "counter, key",
    [
        ([0] * 3, [0] * 2),
        ([0] * 4, [0]),
        ([0, 0, 0, 2**32], [0, 0]),
        ([0, 0, 0, -1], [0, 0]),
        ("abcd", "ab"),
        (None, None),
    ],
)
def test_philox_refuses_what_are_not_words(counter, key):
    with pytest.raises(TypeError):
        native.philox(counter, key)
