"""The native ops on the CPU, csrc/bindings. They check dtypes, shapes and layouts; call them through robustperf.ops."""

from collections.abc import Sequence

from torch import Tensor

constants: dict[str, int | dict[str, int] | tuple[float, ...]]
"""The enums and constants that C++ and Python both have."""

def ball_box_projection(
    x: Tensor, delta: Tensor, radius: Tensor, lower: Tensor, upper: Tensor, out: Tensor, norm: int, threads: int,
) -> None: ...  # fmt: skip
def best_of_k(
    logits: Tensor, target: Tensor, loss: Tensor, index: Tensor, first: int, first_chunk: bool, whole_batch: bool,
    label_smoothing: float, ignore_index: int, losses: Tensor | None, blocks_done: Tensor | None, threads: int,
) -> None: ...  # fmt: skip
def draws(index: Tensor, draw: Tensor, out: Tensor, key: int, normal: bool, threads: int) -> None: ...
def halfspace_box_projection(
    x: Tensor,
    w: Tensor,
    c: Tensor,
    delta: Tensor,
    feasible: Tensor,
    norm: int,
    lower: float,
    upper: float,
    threads: int,
) -> None: ...
def line_search_step(
    logits: Tensor | None, rows: Tensor, label: Tensor, x: Tensor, candidates: Tensor, lines: Tensor, state: Tensor,
    next: Tensor, closest: Tensor, rounding_tolerance: float, tol: float, bisection: bool, probes: int,
    max_iterations: float, threads: int,
) -> None: ...  # fmt: skip
def logit_gap(logits: Tensor, label: Tensor, gap: Tensor, rounding_tolerance: float, threads: int) -> None: ...
def nuisance(
    x: Tensor, delta: Tensor, out: Tensor, scratch: Tensor | None, codes: Sequence[int], parameters: Sequence[float],
    threads: int,
) -> int: ...  # fmt: skip
def nuisance_backward(
    grad: Tensor, x: Tensor, delta: Tensor, grad_x: Tensor, grad_delta: Tensor, scratch: Tensor | None,
    codes: Sequence[int], parameters: Sequence[float], threads: int,
) -> None: ...  # fmt: skip
def nuisance_draw(
    out: Tensor, x: Tensor, index: Tensor, draw: Tensor, codes: Sequence[int], parameters: Sequence[float], key: int,
    threads: int,
) -> int: ...  # fmt: skip
def nuisance_sample(
    index: Tensor,
    draw: Tensor,
    delta: Tensor,
    codes: Sequence[int],
    parameters: Sequence[float],
    key: int,
    threads: int,
) -> None: ...
def rbf_distances(x: Tensor, support: Tensor, products: Tensor, threads: int) -> None: ...
def rbf_values(products: Tensor, squares_of_x: Tensor, squares_of_s: Tensor, gamma: float, threads: int) -> None: ...
def rbf_sums(
    products: Tensor, squares_of_x: Tensor, squares_of_s: Tensor, gamma: float, coefficients: Tensor, sums: Tensor,
    threads: int,
) -> None: ...  # fmt: skip
def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
def isa() -> str: ...
def isas() -> list[str]: ...
