"""The data sets: read from their published files, decoded once, checked."""

from __future__ import annotations

from .errors import DataError
from .images import ImageData
from .load import is_folder, load_dataset

__all__ = ["DataError", "ImageData", "is_folder", "load_dataset"]
