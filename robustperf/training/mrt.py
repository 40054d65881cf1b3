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

_IMAGES_AT_ONCE = 64  # on a CPU: what a convolution makes of more does not stay in its cache
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class MRT(Objective):
    """Model-based robust training, MRT-k (R section 5.1, Algorithm 2): the worst of k draws is trained on.

    mean_j [l(G(x^(j), delta_adv^(j)), y^(j)) + weight l(x^(j), y^(j))], delta_adv among k draws the one of the highest
    loss. The k losses are found with the model in eval mode and without gradients: no batch-norm statistic and no
    `.grad` changes. A draw whose loss is NaN is not chosen while there is another (`ops.best_of_k`).

    Args:
        kernel: G with its law of delta.
        k: draws of a sample in a step; R uses 10.
        weight: lambda, of the clean images' loss.
        selection: "batch", as Algorithm 2 is printed, takes one draw for the batch, that of the highest summed loss
            (over all processes' parts of it); "sample" takes each sample's worst draw, as R equation 5.1 has the
            maximum. The latter is harder, and may pick what no longer shows the nuisance: of a one-sided kernel that
            makes dull images easy to read, the draws next to the identity.
        selection_dtype: such as torch.bfloat16, the precision in which the k losses are found (autocast).
        chunk: draws made and evaluated together, which bounds the memory; no more than these are alive. By default
            all k on a GPU, and on a CPU as many as make 64 images, where convolutions are fastest.
        selection_compile: a mode of torch.compile for the forward passes that find the k losses, which costs a minute
            in the first step; "reduce-overhead" makes CUDA graphs of them.

    A torch.OutOfMemoryError of the selection names `chunk`.
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
        """[B, ...] the images of the draws that are chosen."""
        with torch.no_grad():
            if self.k == 1:
                return self.kernel.draw(x, key=key, index=index)[0]
            chosen, drawn = self._select_in_chunks(model, x, y, key, index)
            if drawn is not None:
                return drawn[chosen, torch.arange(len(x), device=x.device)]
            # drawn again rather than kept: the memory must not grow with k
            worst = None
            for draw in chosen.unique():
                rows = chosen == draw
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

    def _look(self, inner: Classifier) -> Classifier:
        """What finds the k losses: the model, compiled where that is asked for."""
        if self.selection_compile is None or not isinstance(inner, torch.nn.Module):
            return inner
        kept = vars(self).get("_compiled")  # no field: two objectives with the same settings are the same
        if kept is None or kept[0] is not inner:
            kept = vars(self)["_compiled"] = (inner, torch.compile(inner, mode=self.selection_compile))
        return kept[1]

    def _select(self, model, x, y, key, index, chunk):
        """The chosen draws' numbers [B], and all draws where they came in one chunk."""
        inner = without_wrapper(model)
        together = self.selection == "batch" and inner is not model
        precision = (
            nullcontext() if self.selection_dtype is None else torch.autocast(x.device.type, self.selection_dtype)
        )
        look, running, sums, drawn = self._look(inner), None, [], None
        with evaluating(inner), precision:
            for first in range(0, self.k, chunk):
                drawn = None  # before the next draws are made
                draws = torch.arange(first, min(first + chunk, self.k), device=x.device)
                drawn = self.kernel.draw(x, key=key, index=index, draws=draws)
                logits = logits_of(look, laid_out(inner, drawn.flatten(0, 1))).unflatten(0, drawn.shape[:2])
                check.labels("y", y, logits.shape[2])
                if together:
                    sums += [ops.best_of_k(each[None], y, ignore_index=IGNORED)[0].sum() for each in logits]
                else:
                    running = ops.best_of_k(
                        logits, y, selection=self.selection, running=running, first=first, ignore_index=IGNORED
                    )
        # autocast keeps its copies of the weights until the outermost block ends, and these have no gradients
        torch.clear_autocast_cache()
        if together:
            sums = torch.stack(sums)
            distributed.all_reduce(sums, group=model.process_group)
            chosen = sums.nan_to_num(-torch.inf).argmax().expand(len(x))
        else:
            chosen = running[1]
        return chosen, drawn if chunk == self.k else None
