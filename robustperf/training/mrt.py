from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import distributed

from robustperf import check, ops
from robustperf.classifier import Classifier, evaluating, laid_out, logits_of, without_wrapper
from robustperf.kernel import Kernel, check_kernel
from robustperf.names import check_name
from robustperf.ops.best_of_k import SELECTIONS
from robustperf.training.objective import IGNORED, Objective, loss_of_drawn

_IMAGES_AT_ONCE = 64  # on a CPU: the activations of more images do not fit its cache
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class MRT(Objective):
    """Model-based robust training, MRT-k (R section 5.1, Algorithm 2): training on the worst of k draws.

    mean_j [l(G(x^(j), delta_adv^(j)), y^(j)) + weight l(x^(j), y^(j))], where delta_adv is the draw of the highest loss
    among k. The k losses are computed with the model in eval mode and without gradients: no batch-norm statistic and no
    `.grad` changes. A draw with a NaN loss is selected only where every draw has one (`ops.best_of_k`).

    Args:
        kernel: G with the distribution of delta.
        k: draws for each sample and step; R uses 10.
        weight: lambda, of the clean images' loss.
        selection: "batch", as Algorithm 2 is printed, selects one draw for the batch: that of the highest summed loss,
            over the parts of all processes. "sample" selects each sample's worst draw, as the maximum in R equation 5.1
            says. That is harder, and may select draws that no longer show the nuisance: for a one-sided kernel that
            makes dull images easier to classify, the draws next to the identity.
        selection_dtype: torch.bfloat16 or torch.float16, the autocast precision of the k losses; None for that of the
            model.
        chunk: draws that are made and evaluated together. It bounds the memory: no more draws than these exist at a
            time. None takes all k on a GPU, and on a CPU as many as make 64 images, where convolutions are fastest.
        selection_compile: a mode of torch.compile for the forward passes of the k losses, which takes a minute in the
            first step; "reduce-overhead" uses CUDA graphs.

    Raises TypeError or ValueError for a wrong argument; when called, a torch.OutOfMemoryError of the selection that
    names `chunk`.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> objective = MRT(rp.nuisance.Rotation(30), k=10, selection="sample")
    >>> objective(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    kernel: Kernel
    k: int = 10
    weight: float = 1.0
    selection: str = "batch"
    selection_dtype: torch.dtype | None = None
    chunk: int | None = None
    selection_compile: str | None = None

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check.integer("k", self.k, 1)
        check.number("weight", self.weight, least=0)
        check_name("selection", self.selection, SELECTIONS)
        if self.selection_dtype not in (None, *check.HALF):
            raise ValueError(
                f"selection_dtype: expected None, torch.bfloat16 or torch.float16, got {self.selection_dtype!r}"
            )
        if self.chunk is not None:
            check.integer("chunk", self.chunk, 1)
        if self.selection_compile not in (None, *MODES):
            raise ValueError(
                f"selection_compile: expected None or one of {', '.join(MODES)}, got {self.selection_compile!r}"
            )

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return loss_of_drawn(model, self.worst(model, x, y, key=key, index=index)[None], x, y, self.weight)

    def worst(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        """The images [B, ...] of the selected draws; arguments as in the call."""
        with torch.no_grad():
            if self.k == 1:
                return self.kernel.draw(x, key=key, index=index)[0]
            selected, drawn = self._select_in_chunks(model, x, y, key, index)
            if drawn is not None:
                return drawn[selected, torch.arange(len(x), device=x.device)]
            # drawn again rather than kept: the memory must not grow with k
            worst = None
            for draw in selected.unique():
                rows = selected == draw
                images = self.kernel.draw(x[rows], key=key, index=index[rows], draws=draw[None])[0]
                worst = images.new_empty(len(x), *images.shape[1:]) if worst is None else worst
                worst[rows] = images
            return worst

    def _select_in_chunks(self, model, x, y, key, index):
        """`_select`, `chunk` draws at a time."""
        by_default = max(1, _IMAGES_AT_ONCE // len(x)) if x.device.type == "cpu" else self.k
        chunk = min(self.chunk or by_default, self.k)
        try:
            return self._select(model, x, y, key, index, chunk)
        except torch.OutOfMemoryError as error:
            if chunk == 1:
                raise
            raise torch.OutOfMemoryError(
                f"{error}\nMRT: chunk={chunk} draws were evaluated together; fewer need less "
                f"memory, such as MRT(..., chunk={chunk // 2})"
            ) from error

    def _selection_model(self, inner: Classifier) -> Classifier:
        """The model of the k losses: `inner`, compiled if that is asked for."""
        if self.selection_compile is None or not isinstance(inner, torch.nn.Module):
            return inner
        cached = vars(self).get("_compiled")  # no field: two objectives with the same settings are equal
        if cached is None or cached[0] is not inner:
            cached = vars(self)["_compiled"] = (inner, torch.compile(inner, mode=self.selection_compile))
        return cached[1]

    def _select(self, model, x, y, key, index, chunk):
        """The indices [B] of the selected draws; and all draws where they were made in one chunk."""
        inner = without_wrapper(model)
        together = self.selection == "batch" and inner is not model
        precision = (
            nullcontext() if self.selection_dtype is None else torch.autocast(x.device.type, self.selection_dtype)
        )
        evaluated, running, sums, drawn = self._selection_model(inner), None, [], None
        with evaluating(inner), precision:
            for first in range(0, self.k, chunk):
                drawn = None  # before the next draws are made
                draws = torch.arange(first, min(first + chunk, self.k), device=x.device)
                drawn = self.kernel.draw(x, key=key, index=index, draws=draws)
                logits = logits_of(evaluated, laid_out(inner, drawn.flatten(0, 1))).unflatten(0, drawn.shape[:2])
                check.labels("y", y, logits.shape[2])
                if together:
                    sums += [ops.best_of_k(each[None], y, ignore_index=IGNORED)[0].sum() for each in logits]
                else:
                    running = ops.best_of_k(
                        logits, y, selection=self.selection, running=running, first=first, ignore_index=IGNORED
                    )
        # autocast caches its copies of the weights until the outermost block ends, and these have no gradients
        torch.clear_autocast_cache()
        if together:
            sums = torch.stack(sums)
            distributed.all_reduce(sums, group=model.process_group)
            selected = sums.nan_to_num(-torch.inf).argmax().expand(len(x))
        else:
            selected = running[1]
        return selected, drawn if chunk == self.k else None
