"""Image files to one tensor, with all cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import DataError, damaged
from .source import Report

# Pillow knows more formats, some by starting other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_AT_ONCE = 64  # files that a thread takes at a time


class Decoded(NamedTuple):
    """Images as RGB, whatever they were."""

    images: Tensor  # [N, 3, H, W], uint8
    are_grey: bool  # every one of them

    def channels(self, grey: bool) -> Tensor:
        """The images with one channel or three."""
        return self.images[:, :1].contiguous() if grey else self.images


def decode(paths: Sequence[Path], like: Path, image_size: int | None, report: Report) -> Decoded:
    """Decode files, in this order; with ``image_size``, to that height and width.

    Pillow lets go of Python's lock while it decodes, so threads do.

    Raises:
        DataError: a file is missing, damaged, or not of the size of the file ``like``.
    """
    height, width = (image_size, image_size) if image_size else _size(like)
    images = torch.empty(len(paths), 3, height, width, dtype=torch.uint8)
    pixels = images.numpy()

    def some(numbers: Sequence[int]) -> tuple[int, bool]:
        grey = [_into(pixels[n], paths[n], like, image_size is not None) for n in numbers]
        return len(numbers), all(grey)

    are_grey = True
    starts = range(0, len(paths), _AT_ONCE)
    parts = [range(start, min(start + _AT_ONCE, len(paths))) for start in starts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(some, part) for part in parts]
        try:
            for task in as_completed(tasks):
                count, grey = task.result()
                are_grey &= grey
                report(count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Decoded(images, are_grey)


def _size(path: Path) -> tuple[int, int]:
    with _opened(path) as image:
        return image.height, image.width


def _into(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], path: Path, like: Path, resize: bool
) -> bool:
    """Decode a file into ``pixels``, [3, H, W]; whether it is grey."""
    height, width = pixels.shape[1:]
    with _opened(path) as image:
        if image.mode not in _GREY + _COLOUR:
            raise DataError(
                f"{path} has pixels of the kind {image.mode}, not 8 bits a channel: "
                "bring it to 8 bits, or remove it"
            )
        if not resize and image.size != (width, height):
            raise DataError(
                f"{path} is {image.height} x {image.width}, but {like} is {height} x {width}: "
                "--image-size N brings all images to N x N"
            )
        try:
            colour = image.convert("RGB")
        except Exception as error:  # a damaged file can lead it anywhere
            raise damaged(path, str(error)) from error
        if resize and image.size != (width, height):
            colour = colour.resize((width, height), Image.Resampling.BILINEAR)
        pixels[:] = np.asarray(colour).transpose(2, 0, 1)
        return image.mode in _GREY


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        raise damaged(path, "it is no image") from error
    except Exception as error:  # a damaged file can lead it anywhere
        raise damaged(path, str(error)) from error
