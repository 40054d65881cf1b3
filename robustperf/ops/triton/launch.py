import torch


def launch(kernel, programs, like, *args, **settings):
    """Runs so many programs of `kernel` on the device and the current stream of the tensor `like`."""
    if programs > 0:
        with torch.cuda.device_of(like):
            # products and sums are rounded one by one, as csrc/core has it: the bits are the contract
            kernel[(programs,)](*args, enable_fp_fusion=False, **settings)
