"""The loop of a search: the model looks at a place on each line, a step moves the searches on, what is done drops."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch

from robustperf.classifier import Classifier, logits_of
from robustperf.ops.line_search_step import FIELD
from robustperf.ops.logit_gap import check_labels


@dataclass(frozen=True)
class Searches:
    """The searches of a batch, as `ops.line_search_step` takes them.

    Attributes:
        rows: [M] int64, the points that are searched.
        label: [B] int64.
        x: [B, D]; candidates: [A, B, D]; closest: [B, D].
        lines, state: of `new_search`.
        shape: of an image.
        step: `ops.line_search_step` with its settings.
    """

    rows: torch.Tensor
    label: torch.Tensor
    x: torch.Tensor
    candidates: torch.Tensor
    lines: torch.Tensor
    state: torch.Tensor
    closest: torch.Tensor
    shape: torch.Size
    step: Callable[..., None]

    def move_on(self, logits: torch.Tensor | None, rows: torch.Tensor, points: torch.Tensor) -> None:
        """Takes the logits seen at `points` [M, D] and writes the next ones there."""
        self.step(logits, rows, self.label, self.x, self.candidates, self.lines, self.state, points, self.closest)

    def look(self, model: Classifier, points: torch.Tensor) -> torch.Tensor:
        return logits_of(model, points.view(-1, *self.shape))

    def going(self, rows: torch.Tensor) -> torch.Tensor:
        """[M] bool"""
        return self.state[:, FIELD["line"]].index_select(0, rows) >= 0


class Looks:
    """Looks at what is not done, and at nothing else."""

    def __init__(self, model: Classifier):
        self.model = model

    def run(self, searches: Searches) -> None:
        """Searches to the end, with the model in eval mode and without gradients, which is the caller's to see to."""
        rows, logits = searches.rows, None
        points = torch.empty_like(searches.x[: rows.numel()])
        while rows.numel():
            searches.move_on(logits, rows, points)
            going = searches.going(rows).nonzero()[:, 0]
            if going.numel() < rows.numel():
                rows, points = rows.index_select(0, going), points.index_select(0, going)
            if not rows.numel():
                break
            first, logits = logits is None, searches.look(self.model, points)
            if first:
                check_labels("labels", searches.label, logits.shape[1])


EAGER_LOOKS = 8  # at one size before a graph is worth its capture: fewer than most searches of one batch take
TIMED_LOOKS = 3  # before a time is believed: the first may be that of libraries waking up


@dataclass
class _Times:
    """How many looks there were, and the seconds of the quickest."""

    count: int = 0
    least: float = math.inf

    def add(self, seconds: float) -> None:
        self.count += 1
        self.least = min(self.least, seconds)


@dataclass
class _Size:
    """How looks of one size are done, and what they took."""

    eager: _Times = field(default_factory=_Times)
    replays: _Times = field(default_factory=_Times)
    replay: Callable[[], None] | None = None
    count: torch.Tensor | None = None  # what a replay writes

    @property
    def seconds(self) -> float:
        """Nothing while too few looks tell."""
        told = self.eager.count + self.replays.count >= TIMED_LOOKS
        return min(self.eager.least, self.replays.least) if told else 0.0

    def prefers_replays(self) -> bool:
        return self.replays.count < TIMED_LOOKS or self.replays.least <= self.eager.least


class GraphedLooks(Looks):
    """On a GPU: the model and the step behind it as one CUDA graph, of a fixed number of points.

    The sizes are the batch's, its half, its quarter, ...; points that are done ride along, and are not counted, until
    the others fit a smaller size and that is quicker. Both choices, a graph or not and a smaller size or not, go by the
    times of the looks so far. What is learned serves all batches of one shape, so the object is kept while a data set
    is streamed. A replay runs no Python of the model: hooks do not see it. A model that cannot be captured is looked at
    without graphs, with a warning.
    """

    def __init__(self, model: Classifier, capture: Callable | None = None):
        super().__init__(model)
        self._capture = capture or _Capture()
        self._arenas: dict[tuple, _Arena] = {}

    def run(self, searches: Searches) -> None:
        step = searches.step
        key = (searches.x.shape, searches.candidates.shape, searches.x.dtype, step.func, *sorted(step.keywords.items()))
        if key not in self._arenas:
            self._arenas[key] = _Arena(self.model, searches, self._capture)
        self._arenas[key].run(searches)


class _Arena:
    """Tensors that stay where they are, for the searches of batches of one shape one after the other."""

    def __init__(self, model: Classifier, searches: Searches, capture: Callable):
        self.model, self.capture, self.sizes = model, capture, {}
        own = {name: torch.empty_like(getattr(searches, name), memory_format=torch.contiguous_format)
               for name in ("label", "x", "candidates", "lines", "state", "closest")}
        batch = len(searches.x)
        self.rows = torch.empty(batch, dtype=torch.int64, device=searches.x.device)
        self.points = searches.x.clone(memory_format=torch.contiguous_format)  # images: what is done rides along
        self.own = Searches(rows=self.rows, shape=searches.shape, step=searches.step, **own)

    def run(self, searches: Searches) -> None:
        active = len(searches.rows)
        if not active:
            return
        for name in ("label", "x", "candidates", "lines", "state", "closest"):
            getattr(self.own, name).copy_(getattr(searches, name))
        # all points: those to search first, the others are done
        searched = torch.zeros_like(self.rows).index_fill_(0, searches.rows, 1)
        self.rows.copy_(searched.argsort(descending=True, stable=True))
        self.own.move_on(None, self.rows[:active], self.points[:active])
        count, size = int(self.own.going(self.rows).sum()), len(self.rows)
        while count:
            smaller = size
            while count <= smaller // 2:
                smaller //= 2
            if smaller < size and self._pays(smaller, size):
                order = self.own.going(self.rows).to(torch.int8).argsort(descending=True, stable=True)
                self.rows.copy_(self.rows[order])
                self.points.copy_(self.points[order])
                size = smaller
            count = self._look(size)
        searches.state.copy_(self.own.state)
        searches.closest.copy_(self.own.closest)

    def _pays(self, smaller: int, size: int) -> bool:
        return smaller not in self.sizes or self.sizes[smaller].seconds < self.sizes[size].seconds

    def _look(self, size: int) -> int:
        """One look at the first `size` rows; how many of them are not done."""
        how = self.sizes.setdefault(size, _Size())
        if how.replay is None and how.eager.count >= EAGER_LOOKS:
            captured = self.capture(partial(self._eagerly, size))
            if captured is not None:
                how.replay, how.count = captured
        replays = how.replay is not None and how.prefers_replays()
        began = time.perf_counter()
        if replays:
            how.replay()
            count = int(how.count)
        else:
            count = int(self._eagerly(size))
        (how.replays if replays else how.eager).add(time.perf_counter() - began)
        return count

    def _eagerly(self, size: int) -> torch.Tensor:
        rows, points = self.rows[:size], self.points[:size]
        self.own.move_on(self.own.look(self.model, points), rows, points)
        return self.own.going(rows).sum()


class _Capture:
    """Makes a CUDA graph of a function: (replay, what it returned), or None where that cannot be done."""

    def __init__(self):
        self._refused, self._pool = False, None

    def __call__(self, look: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor] | None:
        # autocast keeps copies of the weights that a graph would outlive
        if self._refused or torch.is_autocast_enabled("cuda"):
            return None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.stream(here):  # a capture that fails would leave its own stream the current one
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    count = look()
        except RuntimeError as error:
            self._refused = True
            self._clear_up(here)
            warnings.warn(f"the model cannot be captured in a CUDA graph, it is looked at without: {error}",
                          RuntimeWarning, stacklevel=2)
            return None
        return graph.replay, count

    def _clear_up(self, stream: torch.cuda.Stream) -> None:
        """What torch leaves undone when a capture fails: the allocator's pool, and the generator's state."""
        with suppress(RuntimeError, AttributeError, TypeError):
            torch._C._cuda_endAllocateToPool(stream.device_index, self._pool)
        with suppress(RuntimeError), torch.cuda.stream(stream), torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.zeros(1, device=stream.device)


def looks_for(model: Classifier, x: torch.Tensor) -> Looks:
    """The quickest looks at points on x's device."""
    return GraphedLooks(model) if isinstance(x, torch.Tensor) and x.device.type == "cuda" else Looks(model)

