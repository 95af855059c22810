"""Random numbers that belong to an image, whatever else is in its batch.

An attack that drops images from its batch must not change what the others draw. So there is no
stream: a number is a hash of the seed, the position of the image, the draw and the element. The
same on every device.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 24  # what a float32 in [0, 1) holds


@dataclass(frozen=True)
class Noise:
    """Draws for the images at ``positions``; ``draw`` tells apart what one image draws."""

    seed: int

    def child(self, *words: object) -> Noise:
        """Numbers independent of these, for the purpose that ``words`` name."""
        text = "/".join([str(self.seed), *map(str, words)]).encode()
        return Noise(zlib.crc32(text) | zlib.adler32(text) << 32)

    def uniform(
        self,
        positions: Tensor,  # [B], int64
        draw: Tensor | int,  # [B], int64, or one for all
        shape: torch.Size | tuple[int, ...],
    ) -> Tensor:
        """Return numbers in [0, 1): [B, *shape], float32."""
        state = _mix(_mix(positions + _signed(self.seed)) + draw)
        element = torch.arange(math.prod(shape), device=positions.device)
        bits = _mix(state.unsqueeze(1) + element)
        return torch.div(_shift(bits, 64 - _BITS), 2**_BITS).reshape(len(positions), *shape)

    def signs(self, positions: Tensor, draw: Tensor | int, shape: tuple[int, ...]) -> Tensor:
        """Return -1 or 1 with equal chance: [B, *shape], float32."""
        return (self.uniform(positions, draw, shape) < 0.5).float().mul_(2).sub_(1)

    def normal(self, positions: Tensor, draw: Tensor | int, shape: torch.Size) -> Tensor:
        """Return standard normal numbers: [B, *shape], float32 (Box and Muller)."""
        pair = self.uniform(positions, draw, (2, *shape))
        radius = (1 - pair[:, 0]).log().mul(-2).sqrt()  # 1 - u is never 0
        return radius * (2 * math.pi * pair[:, 1]).cos()


def _mix(x: Tensor) -> Tensor:
    """A step of SplitMix64: Steele, Lea and Flood, OOPSLA 2014. int64 wraps around."""
    x = x * _signed(0x9E3779B97F4A7C15) + _signed(0x9E3779B97F4A7C15)
    x ^= _shift(x, 30)
    x *= _signed(0xBF58476D1CE4E5B9)
    x ^= _shift(x, 27)
    x *= _signed(0x94D049BB133111EB)
    x ^= _shift(x, 31)
    return x


def _shift(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: ``>>`` copies the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned number below 2^64."""
    value %= 1 << 64
    return value - (1 << 64) if value >> 63 else value
