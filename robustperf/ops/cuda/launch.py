import torch


def launch(function, device, *args):
    """Calls a function of the GPU module for tensors on `device`, on the stream that torch uses there."""
    with torch.cuda.device(device):
        function(*args, torch.cuda.current_stream(device).cuda_stream)
