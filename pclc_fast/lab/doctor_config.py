"""The configuration of ``pclc doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DoctorConfig:
    """What is installed, which backends work, and a self-test of a few seconds.

    The self-test compares loss and gradient of every usable backend with a float64 reference and
    trains a small network. The exit code is 1 where it fails.
    """

    def check(self) -> None:
        """Nothing can be wrong: there are no options."""
