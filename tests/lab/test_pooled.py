"""A convolution and its max-pooling at once: the numbers of the layers, and when it is done."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pclc_fast.lab.models import Network, build_model, pooled
from pclc_fast.lab.models.pooled import convolved_and_pooled


def lenet5() -> Network:
    return build_model("lenet5", (1, 28, 28), 10, mean=[0.4], std=[0.2], seed=0)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (3, 3, 13, 16), (1, 2, 9, 7), (0, 1, 8, 8)])
@pytest.mark.parametrize(("size", "padding"), [(5, 2), (4, 0), (3, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_convolved_and_pooled_at_once(
    shape: tuple[int, ...], size: int, padding: int, bias: bool
) -> None:
    """Values and gradients of the layers, where windows have ties and NaN too."""
    layer = nn.Conv2d(shape[1], 6, size, padding=padding, bias=bias, dtype=torch.float64)
    images = torch.rand(shape, dtype=torch.float64)
    images[:, :, 4:] = 0.0  # all the outputs of a window are the bias
    images[1:2, 0, 1, 1] = torch.nan
    inputs = images.clone().requires_grad_(), images.clone().requires_grad_()
    ours = convolved_and_pooled(layer, inputs[0])
    theirs = nn.functional.max_pool2d(layer(inputs[1]), 2)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    back = torch.randn_like(theirs)
    back[1:2] = 0.0
    gradients = [
        torch.autograd.grad(outputs, [image, *layer.parameters()], back)
        for outputs, image in zip((ours, theirs), inputs, strict=True)
    ]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, equal_nan=True)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[nn.Conv2d]:
    """The convolutions that were computed with their pooling."""
    done: list[nn.Conv2d] = []

    def noted(layer: nn.Conv2d, images: Tensor) -> Tensor:
        done.append(layer)
        return convolved_and_pooled(layer, images)

    monkeypatch.setattr(pooled, "convolved_and_pooled", noted)
    return done


def test_lenet_pools_at_once_while_it_trains(at_once: list[nn.Conv2d]) -> None:
    network = lenet5().to(memory_format=torch.channels_last)
    images = torch.rand(4, 1, 28, 28)
    trained = network(images)
    assert at_once == [network.body[0]]
    trained.square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()  # as DistributedDataParallel expects
    torch.testing.assert_close(network.eval()(images), trained)
    assert len(at_once) == 1


def test_lenet_in_transforms_and_traces(at_once: list[nn.Conv2d]) -> None:
    network = lenet5()
    images = torch.rand(4, 1, 28, 28)
    expected = network(images)
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(network, parameters, image[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, images)
    expected.square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(each[name].sum(dim=0), parameter.grad, rtol=1e-4, atol=1e-5)
    at_once.clear()
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(images), expected)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    assert at_once == []


def test_lenet_with_other_layers_or_watched_ones(at_once: list[nn.Conv2d]) -> None:
    """What somebody exchanged, parametrised or looks at is computed as it stands."""
    images, seen = torch.rand(4, 1, 28, 28), []
    network = lenet5()
    hook = network.body[1].register_forward_hook(lambda *_: seen.append(1))
    network(images)
    assert len(seen) == 1
    hook.remove()
    assert network.body[:1](images).shape == (4, 6, 28, 28)
    convolution, pooling = network.body[0], network.body[1]
    for i, other in (
        (1, nn.MaxPool2d(3, 2, 1)),
        (1, nn.AvgPool2d(2)),
        (0, nn.Conv2d(1, 6, 5, padding="same")),
        (0, nn.Conv2d(1, 6, 5, padding=2, padding_mode="reflect")),
        (0, nn.Conv2d(1, 6, 5, padding=4, dilation=2)),
    ):
        network.body[0], network.body[1] = convolution, pooling
        network.body[i] = other
        trained = network.train()(images)
        assert trained.equal(network.eval()(images))
    assert at_once == []
    network.body[0], network.body[1] = convolution, pooling
    network.train()(images)
    assert at_once == [convolution]
