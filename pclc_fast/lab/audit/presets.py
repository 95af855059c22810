"""What the audit runs: one plain attack, and variations of it that should change nothing."""

from __future__ import annotations

from ..attacks import Preset, Spec

STEPS = 40
_STEP = 2.5 / STEPS
_PLAIN = {"steps": STEPS, "step_size": _STEP, "per_epsilon": True, "loss": "ce"}
_TARGETS = 19  # at most: the likeliest false classes
_RESTARTS = 5
_DRAWS = 50
_QUERIES = 500
_ITERATIONS, _SAMPLES = 10, 32
_SOURCE = "audit"

PLAIN = Preset("audit", (Spec("pgd", f"PGD-{STEPS}", "pgd", _PLAIN, _SOURCE),))


def variations(classes: int) -> Preset:
    """What is compared with the plain attack; each is only tried on what it left at less."""
    twice = {**_PLAIN, "steps": 2 * STEPS, "step_size": _STEP / 2}
    targets = {"steps": STEPS, "targets": min(classes - 1, _TARGETS), "rescaled": False}
    specs = (
        Spec("fgsm", "FGSM", "fgsm", {"loss": "ce"}, _SOURCE),
        Spec(
            "pgd-rescaled", f"PGD-{STEPS}, rescaled", "pgd", {**_PLAIN, "rescaled": True}, _SOURCE
        ),
        Spec("pgd-targets", f"PGD-{STEPS}, each target", "multi-targeted", targets, _SOURCE),
        Spec("pgd-twice", f"PGD-{2 * STEPS}", "pgd", twice, _SOURCE),
        Spec(
            "pgd-restarts",
            f"PGD-{STEPS}, {_RESTARTS} starts",
            "pgd",
            {**_PLAIN, "restarts": _RESTARTS},
            _SOURCE,
        ),
        Spec("noise", "random noise", "random-noise", {"tries": _DRAWS}, _SOURCE),
    )
    return Preset("audit", specs, carry=True)


FLOAT64 = Preset(
    "audit", (Spec("pgd-float64", f"PGD-{STEPS}", "pgd", _PLAIN, _SOURCE),), carry=True
)


def square(epsilon: float) -> Preset:  # noqa: ARG001  as spsa
    """Tried on what no gradient attack fooled."""
    settings = {"queries": _QUERIES}
    return Preset("audit", (Spec("square", "Square", "square", settings, _SOURCE),), carry=True)


def spsa(epsilon: float) -> Preset:
    """Steps that can cross the whole budget; tried like ``SQUARE``."""
    settings = {"steps": _ITERATIONS, "samples": _SAMPLES, "lr": 2.5 * epsilon / _ITERATIONS}
    return Preset("audit", (Spec("spsa", "SPSA", "spsa", settings, _SOURCE),), carry=True)
