from torch import get_num_threads

from robustperf import _native


def best_of_k(logits, target, loss, index, first, first_chunk, whole_batch, label_smoothing, ignore_index):
    _native.best_of_k(
        logits.contiguous(),
        target.contiguous(),
        loss,
        index,
        first,
        first_chunk,
        whole_batch,
        label_smoothing,
        ignore_index,
        None,
        None,
        get_num_threads(),
    )
