"""A preset of a few quick attacks, for tests of an evaluation as a whole."""

from __future__ import annotations

from pclc_fast.lab.attacks import Preset, Spec

PGD = {"steps": 8, "step_size": 0.25, "per_epsilon": True}
QUICK = Preset(
    "quick",
    (
        Spec("fgsm", "FGSM", "fgsm"),
        Spec("pgd", "PGD", "pgd", PGD),
        Spec("mt", "targets", "multi-targeted", {"steps": 8, "targets": 9}),
        Spec("square", "Square", "square", {"queries": 20}),
    ),
    cumulative=True,
    carry=True,
)
