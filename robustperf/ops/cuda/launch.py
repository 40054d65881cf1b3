import torch


def bits_of(key):
    """The key as the module takes it: unsigned, or the tensor that holds it."""
    return key if isinstance(key, torch.Tensor) else key % 2**64


def launch(function, device, *args):
    """Calls a function of the GPU module for tensors on `device`, on the stream that torch uses there. ValueError for a
    tensor that is elsewhere."""
    for value in args:
        if isinstance(value, torch.Tensor) and value.device != device:
            raise ValueError(f"tensors: expected all tensors on {device}, got one on {value.device}")
    with torch.cuda.device(device):
        function(*args, torch.cuda.current_stream(device).cuda_stream)
