"""Images in the memory layout that a model is fastest on."""

import gc
import weakref

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from python_tests.support.classifier import modes
from robustperf.classifier import laid_out, logits_of

IMAGES = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))


class Recorded(nn.Module):
    """Convolutions that record their inputs; followed, if `view` is set, by a `view` that fails channels-last."""

    def __init__(self, view=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.view, self.inputs = view, []

    def forward(self, x):
        self.inputs.append((len(x), x.is_contiguous(), self.body[2].training, torch.is_grad_enabled(), x.requires_grad))
        hidden = self.body(x)
        return hidden.view(len(x), -1)[:, :5] if self.view else hidden.flatten(1)[:, :5]


def test_a_convolution_gets_images_channels_last():
    net, x = Recorded(), IMAGES.clone().requires_grad_()
    net.body[1].eval()
    before = modes(net), {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(2):
        out = laid_out(net, x)
        assert out.is_contiguous(memory_format=torch.channels_last) and torch.equal(out, x)
    # one evaluation of two images, in eval mode and without gradients
    assert net.inputs == [(2, False, False, False, False)]
    assert modes(net) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in net.state_dict().items())
    (gradient,) = torch.autograd.grad((out * IMAGES).sum(), x)
    assert torch.equal(gradient, IMAGES)
    one = laid_out(Recorded(), x[:1])
    assert torch.equal(one, x[:1])


def test_a_model_that_fails_channels_last_gets_images_unchanged():
    net = Recorded(view=True)
    for _ in range(2):
        assert laid_out(net, IMAGES) is IMAGES
    assert len(net.inputs) == 1 and net.training and net.body[2].training
    assert logits_of(net, laid_out(net, IMAGES)).shape == (5, 5)


def test_an_error_of_the_models_own_is_not_hidden():
    class Picky(Recorded):
        def forward(self, x):
            raise ValueError("x: expected images of another size")

    net = Picky()
    with pytest.raises(ValueError, match="another size"):
        laid_out(net, IMAGES)
    assert net.training and net.body[2].training


@pytest.mark.parametrize("net, x", [
    (nn.Sequential(nn.Flatten(), nn.Linear(126, 2)), IMAGES), (lambda x: x, IMAGES), (nn.Conv1d(3, 2, 3), IMAGES[:, 0]),
    (Recorded(), IMAGES[0]), (Recorded(), IMAGES.to("meta")), (nn.Sequential(), IMAGES),
], ids=["linear", "function", "conv1d", "one image", "elsewhere", "empty"])  # fmt: skip
def test_other_images_are_left_unchanged(net, x):
    assert laid_out(net, x) is x
    if isinstance(net, Recorded):  # nothing was recorded of them
        assert not net.inputs and laid_out(net, IMAGES).is_contiguous(memory_format=torch.channels_last)


def test_a_wrapped_convolution_is_tried_inside():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(Recorded())
        calls = []
        wrapped.register_forward_pre_hook(lambda *arguments: calls.append(arguments))
        assert laid_out(wrapped, IMAGES).is_contiguous(memory_format=torch.channels_last)
        assert len(wrapped.module.inputs) == 1 and not calls
    finally:
        distributed.destroy_process_group()


def test_the_layout_is_unchanged_under_torch_compile():
    net = Recorded()
    compiled = torch.compile(lambda x: laid_out(net, x) * 1, backend="eager", fullgraph=True)
    assert compiled(IMAGES).is_contiguous() and not net.inputs


def test_a_model_is_not_kept_alive():
    net = Recorded()
    laid_out(net, IMAGES)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None
