from robustperf import _native_cuda
from robustperf.ops.cuda.launch import launch


def best_of_k(logits, target, loss, index, first, first_chunk, whole_batch, label_smoothing, ignore_index):
    losses = loss.new_empty(logits.shape[:2]) if whole_batch else None
    blocks_done = index.new_empty(1) if whole_batch else None
    launch(
        _native_cuda.best_of_k,
        logits.device,
        logits.contiguous(),
        target.contiguous(),
        loss,
        index,
        first,
        first_chunk,
        whole_batch,
        label_smoothing,
        ignore_index,
        losses,
        blocks_done,
    )
