"""Attacks on classifiers of images in [0, 1], and what they leave of a model's accuracy."""

from .evaluate import evaluate
from .images import attack_images
from .preset import Preset, Spec
from .result import Result
from .result_file import load_result, save_result

__all__ = [
    "Preset",
    "Result",
    "Spec",
    "attack_images",
    "evaluate",
    "load_result",
    "save_result",
]
