"""Augmentation: against torchvision image by image, and how often what happens."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pclc_fast.lab.data.augment import AUGMENTATIONS, Draws, draw, flip_crop, released, resample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 8, channels: int = 3, height: int = 20, width: int = 17) -> Tensor:
    return torch.rand(count, channels, height, width, generator=generator())


def draws(
    count: int,
    height: int = 20,
    width: int = 17,
    *,
    mirrored: bool = False,
    degrees: float = 0.0,
    box: tuple[int, int, int, int] | None = None,  # top, left, height, width
) -> Draws:
    numbers = [degrees, *(box or (0, 0, height, width))]
    return Draws(torch.full((count,), mirrored), *(torch.full((count,), float(n)) for n in numbers))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 32, 32), (1, 3, 9, 30), (0, 1, 8, 8)])
def test_what_all_have_in_common(name: str, shape: tuple[int, ...]) -> None:
    before = torch.rand(shape, generator=generator())
    given = before.clone()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = AUGMENTATIONS[name](given, generator(1))
    assert found.shape == shape
    assert found.dtype == torch.float32
    assert given.equal(before)
    assert torch.get_rng_state().equal(state)  # only the generator is drawn from
    assert found.equal(AUGMENTATIONS[name](given, generator(1)))
    if shape[0] and name != "none":
        assert not found.equal(AUGMENTATIONS[name](given, generator(2)))
        assert found.min() >= 0
        assert found.max() <= 1


def test_flip_crop_is_one_of_162_for_each_image() -> None:
    """9 x 9 places, mirrored or not, and all of them about as often."""
    count = 8100
    height, width = 7, 6
    one = images(1, 1, height, width)
    found = flip_crop(one.expand(count, -1, -1, -1), generator())
    candidates = []
    for image in (one, one.flip(3)):
        padded = F.pad(image, (4, 4, 4, 4))
        candidates += [
            padded[..., y : y + height, x : x + width] for y in range(9) for x in range(9)
        ]
    is_candidate = torch.stack([(found == c).flatten(1).all(dim=1) for c in candidates])
    assert is_candidate.sum(dim=0).eq(1).all()
    often = is_candidate.sum(dim=1)
    assert often.sum() == count
    assert often.min() > 50 - 6 * math.sqrt(50)
    assert often.max() < 50 + 6 * math.sqrt(50)


def test_every_image_has_draws_of_its_own() -> None:
    shown = images(1).expand(50, -1, -1, -1)
    for function in (flip_crop, released):
        found = function(shown, generator())
        different = torch.unique(found.flatten(1), dim=0)
        assert len(different) > 30


def test_mirroring_alone() -> None:
    shown = images()
    torch.testing.assert_close(resample(shown, draws(8, mirrored=True)), shown.flip(3))
    torch.testing.assert_close(resample(shown, draws(8)), shown)


@pytest.mark.parametrize("box", [(0, 0, 20, 17), (3, 2, 10, 11), (19, 16, 1, 1), (5, 0, 7, 17)])
def test_the_crop_is_torchvisions(box: tuple[int, int, int, int]) -> None:
    functional = pytest.importorskip("torchvision").transforms.functional
    shown = images()
    expected = functional.resized_crop(shown, *box, [20, 17], antialias=False)
    torch.testing.assert_close(resample(shown, draws(8, box=box)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("degrees", [10.0, -10.0, 3.7, 90.0])
def test_the_rotation_is_torchvisions(degrees: float) -> None:
    functional = pytest.importorskip("torchvision").transforms.functional
    shown = images(height=20, width=20)
    mode = functional.InterpolationMode.BILINEAR
    expected = functional.rotate(shown, degrees, interpolation=mode)
    found = resample(shown, draws(8, 20, 20, degrees=degrees))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_all_three_in_the_order_of_the_released_code() -> None:
    """On a smooth image, one interpolation and two agree but for rounding at the edges."""
    functional = pytest.importorskip("torchvision").transforms.functional
    axis = torch.linspace(0, 3, 64)
    shown = (0.5 + 0.25 * (axis[:, None] + 0.3).sin() + 0.25 * (2 * axis[None, :]).cos())[
        None, None
    ]
    mode = functional.InterpolationMode.BILINEAR
    box = (20, 14, 24, 30)  # away from the corners, which the rotation leaves black
    turned = functional.rotate(functional.hflip(shown), 8.0, interpolation=mode)
    expected = functional.resized_crop(turned, *box, [64, 64], antialias=False)
    found = resample(shown, draws(1, 64, 64, mirrored=True, degrees=8.0, box=box))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    for wrong in (
        draws(1, 64, 64, degrees=8.0, box=box),
        draws(1, 64, 64, mirrored=True, degrees=-8.0, box=box),
        draws(1, 64, 64, mirrored=True, degrees=8.0, box=(23, 14, 24, 30)),
    ):
        assert (resample(shown, wrong) - expected).abs().max() > 0.02


def test_one_image_in_five_stays_as_it_is() -> None:
    count = 5000
    shown = images(1).expand(count, -1, -1, -1)
    found = released(shown, generator())
    share = (found == shown).flatten(1).all(dim=1).double().mean()
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / count)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (28, 28), (20, 90), (90, 20)])
def test_draws_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Its RandomResizedCrop draws from the global generator, one image at a time."""
    transforms = pytest.importorskip("torchvision").transforms
    count = 3000
    found = draw(torch.empty(count, 1, height, width), generator())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        empty = torch.empty(1, height, width)
        limits = {"scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]}
        crops = [transforms.RandomResizedCrop.get_params(empty, **limits) for _ in range(count)]
    theirs = torch.tensor(crops, dtype=torch.float32)
    ours = torch.stack([found.top, found.left, found.height, found.width], dim=1)
    for one, other in zip(ours.T, theirs.T, strict=True):
        error = math.sqrt((one.var() + other.var()) / count)
        assert abs(one.mean() - other.mean()) <= 4 * error
        assert one.std() == pytest.approx(float(other.std()), rel=0.08, abs=1e-6)
        assert one.equal(one.round())
    assert (ours[:, :2] >= 0).all()
    assert (found.top + found.height <= height).all()
    assert (found.left + found.width <= width).all()
    assert found.degrees.abs().max() <= 10
    assert found.degrees.std() == pytest.approx(10 / math.sqrt(3), rel=0.05)
    assert found.mirrored.double().mean() == pytest.approx(0.5, abs=0.04)
