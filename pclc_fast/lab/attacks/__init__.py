"""Attacks on classifiers of images in [0, 1], and what they leave of a model's accuracy."""

from .plain import budget, fgsm, pgd
from .result import Result
from .result_file import load_result, save_result

__all__ = ["Result", "budget", "fgsm", "load_result", "pgd", "save_result"]
