import torch

from robustperf.ops.philox import MASK


def words_of(key):
    """A key as kernels take it: the tensor that holds it or None, and the low and the high word of an integer."""
    return (key, 0, 0) if isinstance(key, torch.Tensor) else (None, key & MASK, key >> 32 & MASK)


def launch(kernel, programs, like, *args, **settings):
    """Runs so many programs of `kernel` on the device and the current stream of the tensor `like`."""
    if programs > 0:
        with torch.cuda.device_of(like):
            # products and sums are rounded one by one, as csrc/core has it: the bits are the contract
            kernel[(programs,)](*args, enable_fp_fusion=False, **settings)
