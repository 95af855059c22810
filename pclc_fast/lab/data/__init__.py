"""The data sets: read from their published files, decoded once, checked."""

from __future__ import annotations

from .errors import DataError
from .images import ImageData
from .load import load_dataset

__all__ = ["DataError", "ImageData", "load_dataset"]
