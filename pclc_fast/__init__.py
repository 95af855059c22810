"""Fused kernels for the PC-LC loss, a drop-in for cross-entropy (Li et al., AAAI 2021)."""

import torch  # noqa: F401  first: the compiled module shares the OpenMP runtime that torch maps

from .dispatch import BackendStatus, backends
from .loss import PCLCLoss, pc_lc_loss, reference_pc_lc_loss
from .reference import LossStats

__version__ = "0.1.0"
__all__ = [
    "BackendStatus",
    "LossStats",
    "PCLCLoss",
    "backends",
    "pc_lc_loss",
    "reference_pc_lc_loss",
]
