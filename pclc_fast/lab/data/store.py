"""Where the images are while a network trains, and how a batch is taken out."""

from __future__ import annotations

import torch
from torch import Tensor

_SHARE = 0.5  # of a GPU's free memory; the rest is for the network and its activations


class Store:
    """Images as uint8 and their labels: on the device where they fit, else in host memory.

    From host memory, batches go over pinned memory, while the device computes. Nothing waits for
    the device.
    """

    def __init__(
        self,
        images: Tensor,  # [N, C, H, W], uint8, 0 to ``brightest``
        labels: Tensor,  # [N], int64
        device: torch.device,
        brightest: int,
    ) -> None:
        self._device, self._brightest = device, brightest
        self.on_device = _fits(images, device)
        place = device if self.on_device else torch.device("cpu")
        self._images, self._labels = images.to(place), labels.to(place)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [n, C, H, W], float32 in [0, 1], and labels [n]; ``indices`` on a CPU."""
        if self.on_device:
            chosen = _sent(indices, self._device)
            images, labels = self._images[chosen], self._labels[chosen]
        else:
            images, labels = (
                _sent(_gathered(tensor, indices), self._device)
                for tensor in (self._images, self._labels)
            )
        return images.float().div_(self._brightest), labels


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() <= _SHARE * free


def _gathered(tensor: Tensor, indices: Tensor) -> Tensor:
    """Rows of a tensor on a CPU, put into pinned memory."""
    rows = torch.empty(len(indices), *tensor.shape[1:], dtype=tensor.dtype, pin_memory=True)
    return torch.index_select(tensor, 0, indices, out=rows)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it, for which the memory must be pinned."""
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
