"""Sample images as they stand in the page: small PNGs inside of it."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..attacks import Result

_SAMPLES = 12
_GREY, _RGB = 0, 2  # colour types of PNG


def samples(
    result: Result,
    images: Tensor,  # [N, C, H, W], the evaluated ones, in [0, 1]
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Fooled images beside the clean ones: of every class in turn, those with the least epsilon."""
    found = result.adversarial
    if found is None:
        return []
    labels = torch.tensor(result.images.label)[found.position]
    return [_sample(result, images, class_names, line) for line in _chosen(labels, found.epsilon)]


def _chosen(labels: Tensor, epsilon: Tensor) -> list[int]:
    """Lines of the fooled images: the first of every class, then the second of every class."""
    order = sorted(range(len(labels)), key=lambda i: (float(epsilon[i]), i))
    seen: dict[int, int] = {}
    turns = []
    for line in order:
        label = int(labels[line])
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, line))
    return [line for _, _, line in sorted(turns)[:_SAMPLES]]


def _sample(
    result: Result, images: Tensor, class_names: Sequence[str], line: int
) -> dict[str, Any]:
    found = result.adversarial
    assert found is not None
    position, predicted = int(found.position[line]), int(found.predicted[line])
    label = result.images.label[position]
    return {
        "position": position,
        "label": label,
        "label_name": class_names[label],
        "predicted": predicted,
        "predicted_name": class_names[predicted],
        "epsilon": float(found.epsilon[line]),
        "attack": result.attacks[int(found.attack[line])].title,
        "png": data_uri(found.images[line]),
        "clean_png": data_uri(images[position]),
    }


def data_uri(image: Tensor) -> str:
    """Return an image [1 or 3, H, W] in [0, 1] as the address of a PNG."""
    channels, height, width = image.shape
    pixels = image.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    lines = b"".join(b"\0" + bytes(line.flatten().tolist()) for line in pixels)  # 0: no filter
    colour = {1: _GREY, 3: _RGB}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = b"".join(
        _chunk(*part)
        for part in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    )
    encoded = base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode("ascii")
    return f"data:image/png;base64,{encoded}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum
