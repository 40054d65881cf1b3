"""What the attacks' tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Small nets: on a busy machine the threads of a matrix product would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
