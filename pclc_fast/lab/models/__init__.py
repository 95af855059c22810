"""The networks that the lab trains."""

from __future__ import annotations

from .build import MODELS, build_model
from .classifier import Network
from .plain import small_cnn

__all__ = ["MODELS", "Network", "build_model", "small_cnn"]
