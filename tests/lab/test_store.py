"""Where images are kept, and that taking a batch does not wait for the device."""

from __future__ import annotations

import pytest
import torch

from pclc_fast.lab.data import store
from pclc_fast.lab.data.store import Store

GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
)
IMAGES = torch.randint(
    256, (40, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
LABELS = torch.arange(40) % 7
INDICES = torch.tensor([3, 39, 0, 3])


@pytest.mark.parametrize("place", ["cpu", GPU])
@pytest.mark.parametrize("brightest", [255, 16])
def test_a_batch(place: str, brightest: int) -> None:
    device = torch.device(place)
    kept = IMAGES.clamp(max=brightest)
    before = kept.clone()
    images, labels = Store(kept, LABELS, device, brightest).batch(INDICES)
    assert images.device.type == labels.device.type == place
    assert images.dtype == torch.float32
    assert images.cpu().equal(kept[INDICES].float() / brightest)
    assert labels.cpu().equal(LABELS[INDICES])
    assert images.min() >= 0
    assert images.max() <= 1
    assert kept.equal(before)


@pytest.mark.parametrize("place", ["cpu", GPU])
def test_an_empty_share_of_a_batch(place: str) -> None:
    images, labels = Store(IMAGES, LABELS, torch.device(place), 255).batch(INDICES[:0])
    assert images.shape == (0, 3, 5, 4)
    assert labels.shape == (0,)


@pytest.mark.parametrize("place", [GPU])
@pytest.mark.parametrize("fits", [True, False])
def test_nothing_waits(place: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device(place)
    monkeypatch.setattr(store, "_fits", lambda *_: fits)
    kept = Store(IMAGES, LABELS, device, 255)
    assert kept.on_device == fits
    kept.batch(INDICES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, labels = kept.batch(INDICES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert images.cpu().equal(IMAGES[INDICES].float() / 255)
    assert labels.cpu().equal(LABELS[INDICES])


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    size = IMAGES.numel()
    for free, fits in ((2 * size, True), (2 * size - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        assert store._fits(IMAGES, torch.device("cuda")) == fits
    assert store._fits(IMAGES, torch.device("cpu"))
