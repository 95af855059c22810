"""The networks: their parameters counted by hand, features, seeds."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pclc_fast.lab.models import Network, build_model, small_cnn

GREY, COLOUR, TINY = (1, 28, 28), (3, 32, 32), (3, 64, 64)
Shape = tuple[int, int, int]


def build(name: str, shape: Shape = COLOUR, classes: int = 10, *, seed: int = 0) -> Network:
    channels = shape[0]
    return build_model(name, shape, classes, mean=[0.4] * channels, std=[0.2] * channels, seed=seed)


def convolution(before: int, after: int, size: int, *, bias: bool = True) -> int:
    return before * after * size**2 + bias * after


def linear(*sizes: int) -> int:
    pairs = itertools.pairwise(sizes)
    return sum(before * after + after for before, after in pairs)


def vgg13(channels: int, flat: int, classes: int) -> int:
    widths = [channels, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    pairs = list(itertools.pairwise(widths))
    return (
        sum(convolution(*pair, 3) for pair in pairs)
        + sum(2 * after for _, after in pairs)
        + linear(flat, 512, classes)
    )


def resnet56(channels: int, classes: int) -> int:
    widths = [channels] + [16] * 19 + [32] * 18 + [64] * 18
    pairs = list(itertools.pairwise(widths))
    assert len(pairs) + 1 == 56
    return (
        sum(convolution(*pair, 3, bias=False) for pair in pairs)
        + sum(2 * after for _, after in pairs)
        + linear(64, classes)
    )


def lenet5(channels: int, flat: int, classes: int) -> int:
    return convolution(channels, 6, 5) + convolution(6, 16, 5) + linear(flat, 120, 84, classes)


def cnn3(channels: int, flat: int, classes: int) -> int:
    convolutions = ((channels, 16), (16, 32), (32, 64))
    return sum(convolution(*pair, 5) for pair in convolutions) + linear(flat, 100, classes)


def small(channels: int, flat: int, classes: int) -> int:
    return convolution(channels, 16, 3) + convolution(16, 32, 3) + linear(flat, 64, classes)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "features"),
    [
        ("lenet5", GREY, 10, 61_706, 84),
        ("lenet5", GREY, 10, lenet5(1, 400, 10), 84),
        ("lenet5", COLOUR, 7, lenet5(3, 576, 7), 84),
        ("lenet5", (1, 12, 12), 2, lenet5(1, 16, 2), 84),
        ("cnn3", GREY, 10, cnn3(1, 576, 10), 100),
        ("cnn3", (1, 20, 21), 3, cnn3(1, 64, 3), 100),
        ("vgg13", COLOUR, 10, vgg13(3, 512, 10), 512),
        ("vgg13", TINY, 200, vgg13(3, 2048, 200), 512),
        ("vgg13", (1, 40, 70), 5, vgg13(1, 1024, 5), 512),
        ("resnet56", COLOUR, 10, 853_018, 64),  # the paper says 0.85 M
        ("resnet56", COLOUR, 100, resnet56(3, 100), 64),
        ("resnet56", (1, 9, 7), 10, resnet56(1, 10), 64),
        ("small-cnn", (1, 8, 8), 10, small(1, 512, 10), 64),
        ("small-cnn", (3, 7, 9), 4, small(3, 640, 4), 64),
    ],
)
def test_sizes(name: str, shape: Shape, classes: int, parameters: int, features: int) -> None:
    network = build(name, shape, classes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    images = torch.rand(2, *shape)
    assert network.features(images).shape == (2, features)
    assert network(images).shape == (2, classes)
    assert network.training


NAMES = ["small-cnn", "lenet5", "vgg13", "resnet56", "cnn3"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name).state_dict()
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(2)
    again, other = build(name).state_dict(), build(name, seed=1).state_dict()
    assert all(first[key].equal(again[key]) for key in first)
    weights = [key for key in first if key.endswith("weight") and first[key].ndim > 1]
    assert len(weights) >= 4
    assert not any(first[key].equal(other[key]) for key in weights)


@pytest.mark.parametrize("name", NAMES)
def test_logits_come_from_the_features_and_pixels_are_normalised(name: str) -> None:
    network = build(name).eval()
    images = torch.rand(3, *COLOUR)
    logits = network(images)
    assert logits.equal(network.head(network.features(images)))
    plain = build_model(name, COLOUR, 10, mean=[0.0] * 3, std=[1.0] * 3, seed=0).eval()
    torch.testing.assert_close(plain((images - 0.4) / 0.2), logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = build(name)
    network(torch.rand(8, *COLOUR)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_order_of_layers() -> None:
    """As the paper's released code has them, but that pooling comes before ReLU."""

    def kinds(network: Network) -> str:
        letters = {
            nn.Conv2d: "c", nn.BatchNorm2d: "b", nn.ReLU: "r", nn.MaxPool2d: "m",
            nn.Flatten: "f", nn.Dropout: "d", nn.Linear: "l",
        }  # fmt: skip
        return "".join(letters.get(type(module), "") for module in network.modules())

    assert kinds(build("lenet5", GREY)) == "cmrcmrf" + "lrlr" + "l"
    assert kinds(build("cnn3", GREY)) == "crcmrcmrf" + "lr" + "l"
    assert kinds(build("vgg13")) == "cbrcbrm" * 5 + "f" + "dlr" + "l"
    assert kinds(build("resnet56")) == "cbr" + "cbrcb" * 27 + "f" + "l"


@pytest.mark.parametrize("name", ["lenet5", "cnn3"])
def test_pooling_before_relu_changes_nothing(name: str) -> None:
    network = build(name, GREY).eval()
    layers = [*network.body, network.head]
    for i, layer in enumerate(layers[:-1]):
        if isinstance(layer, nn.MaxPool2d):
            layers[i : i + 2] = layers[i + 1], layer
    released = nn.Sequential(*layers)
    images = torch.rand(4, *GREY)
    shown = network.normalised(images)
    assert released(shown).equal(network(images))
    ours = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
    theirs = torch.autograd.grad(released(shown).square().sum(), list(released.parameters()))
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_a_shortcut_has_no_weights() -> None:
    """Every second pixel, and zeros for the channels that are new, on both sides."""
    network = build("resnet56")
    block = next(m for m in network.modules() if getattr(m, "_stride", 1) == 2)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    images = torch.rand(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = images[:, :, ::2, ::2]
    assert block(images).equal(expected)


def test_resnet_is_initialised_as_its_authors_do() -> None:
    for module in build("resnet56").modules():
        if isinstance(module, nn.Conv2d) and module.in_channels >= 16:
            expected = (2 / (9 * module.in_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)


def test_small_cnn_is_the_one_of_the_digits() -> None:
    layers, network = small_cnn(seed=5), build("small-cnn", (1, 8, 8), seed=5)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(layers((images - 0.4) / 0.2), network(images))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg16", COLOUR, r"one of small-cnn, lenet5, vgg13, .*, timm:NAME; got vgg16"),
        ("vgg13", GREY, "vgg13 needs images of at least 32 x 32; these are 28 x 28"),
        ("lenet5", (1, 11, 40), "lenet5 needs images of at least 12 x 12; these are 11 x 40"),
        ("cnn3", (1, 8, 8), "cnn3 needs images of at least 20 x 20"),
    ],
)
def test_what_cannot_be_built(name: str, shape: Shape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, shape)


def test_timm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="the model timm:resnet18 needs timm: pip install timm"):
        build("timm:resnet18")


class Timm(nn.Module):
    """What timm's networks have in common, as far as it is used."""

    def __init__(self, channels: int, classes: int, smallest: int) -> None:
        super().__init__()
        self.convolution, self.smallest = nn.Conv2d(channels, 5, 3), smallest
        self.head = nn.Linear(5, classes)

    def forward_features(self, images: Tensor) -> Tensor:
        if images.shape[2] < self.smallest:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return self.convolution(images)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        features = maps.mean(dim=(2, 3))
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the library where that is not installed."""

    def create_model(
        name: str, *, pretrained: bool, num_classes: int, in_chans: int, **size: tuple[int, int]
    ) -> nn.Module:
        assert not pretrained
        assert size == ({"img_size": (32, 32)} if name == "vit" else {})
        return Timm(in_chans, num_classes, 64 if name == "large" else 1)

    library = SimpleNamespace(
        __version__="1.0",
        is_model=lambda name: name in ("resnet", "vit", "large"),
        list_models=lambda pattern: ["resnet"] if pattern == "*res*" else [],
        get_pretrained_cfg=lambda name: SimpleNamespace(fixed_input_size=name == "vit"),
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "timm", library)


@pytest.mark.usefixtures("timm")
def test_a_network_by_its_name() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    network = build("timm:resnet", classes=7)
    assert torch.get_rng_state().equal(state)
    assert network.training
    images = torch.rand(2, *COLOUR)
    assert network.features(images).shape == (2, 5)
    logits = network(images)
    assert logits.equal(network.network.head(network.features(images)))
    assert logits.equal(network.network((images - network.mean) / network.std))
    assert build("timm:vit")(images).shape == (2, 10)
    with pytest.raises(ValueError, match=r"timm 1\.0 has no model res; similar ones: resnet"):
        build("timm:res")
    with pytest.raises(ValueError, match=r"timm:large does not take images of 3x32x32: Kernel"):
        build("timm:large")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet18", COLOUR), ("vit_tiny_patch16_224", TINY), ("mobilenetv3_small_050", GREY)],
)
def test_the_library_itself(name: str, shape: Shape) -> None:
    pytest.importorskip("timm")
    network = build(f"timm:{name}", shape, 7).eval()
    images = torch.rand(2, *shape)
    features = network.features(images)
    assert features.ndim == 2
    assert network.network.get_classifier()(features).equal(network(images))
