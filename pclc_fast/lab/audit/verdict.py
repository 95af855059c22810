"""What the findings come to, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .checks import check_all
from .evidence import Evidence, Finding, Status, share
from .limits import SLACK

_EPSILON = "\N{GREEK SMALL LETTER EPSILON}"
_WORST = "worst-case"
_FAILURES = {
    _WORST: "the evaluation missed images that the audit fooled in passing",
    "many-steps": "one step fools more than many",
    "rescaled": "rescaling the logits finds far more",
    "targets": "targeting each class in turn finds far more",
    "twice": "twice the steps find more",
    "restarts": "more restarts find more",
    "float64": "float64 finds more",
    "gradients": "gradients vanish",
    "transfer": "images made for another model find what the gradient misses",
    "spsa": "SPSA finds what the gradient misses",
    "square": "Square finds what the gradient misses",
    "falls": "accuracy does not fall with epsilon",
    "chance": "accuracy stays above chance where every image can be made grey",
    "unbounded": "an unbounded attack leaves images standing",
    "noise": "random noise fools more than the gradient",
    "repeats": "the forward is random",
    "logits": "the outputs are not logits of enough classes",
}
_UNUSUAL, _CONVERGENCE = {"repeats", "logits"}, {"twice", "restarts"}


def judge(findings: Sequence[Finding]) -> tuple[Status, str, dict[str, int]]:
    """Return the status of the whole, a sentence with fields, and the counts for these."""
    counts = {
        "failed": sum(f.status == "FAIL" for f in findings),
        "ran": sum(f.status != "NOT RUN" for f in findings),
        "idle": sum(f.status == "NOT RUN" for f in findings),
    }
    attacks = any(f.status == "PASS" and f.key not in _UNUSUAL for f in findings)
    status: Status = "FAIL" if counts["failed"] else "PASS" if attacks else "NOT RUN"
    return status, _sentence(findings, counts), counts


def _sentence(findings: Sequence[Finding], counts: dict[str, int]) -> str:
    failed = [f for f in findings if f.status == "FAIL"]
    idle = " ({idle:count} not run)" if counts["idle"] else ""
    if not counts["ran"]:
        return "No check could be run, so nothing is known about how far the number can be trusted."
    if not failed and all(f.key in _UNUSUAL for f in findings if f.status == "PASS"):
        return (
            "No attack was judged, as where no image is right without one, so nothing is known "
            "about how far the number can be trusted."
        )
    if not failed:
        return f"All {{ran:count}} checks passed{idle}: no sign that the gradient is masked."
    names = ", ".join(_FAILURES[f.key] for f in failed)
    start = f"{{failed:count}} of {{ran:count}} checks failed{idle}: {names}."
    if any(f.key == _WORST for f in failed):
        return f"Do not trust the worst case, it is too high. {start}"
    kinds = {f.key for f in failed}
    if kinds <= _UNUSUAL:
        return f"The model is not what attacks take it for. {start}"
    if kinds <= _UNUSUAL | _CONVERGENCE:
        return (
            "A plain attack has not converged on this model, so only the worst case over all "
            f"attacks counts. {start}"
        )
    return (
        "The model's gradient misleads attacks that simply follow it, so only the worst case over "
        f"all attacks counts. {start}"
    )


def _what_is_left(evidence: Evidence) -> tuple[str, dict[str, Any]]:
    """A sentence on the smallest and the largest epsilon that were probed, and its numbers."""
    if not evidence.epsilons or not evidence.clean.any():
        return "", {}
    smallest, epsilon = min(evidence.epsilons), max(evidence.epsilons)
    left = share(evidence.left(epsilon))
    numbers = {"left": left, "images": evidence.images, "epsilon": epsilon}
    text = "{left:percent} % of {images:count} images at " + _EPSILON + " = {epsilon}"
    if smallest < epsilon:
        numbers |= {"first": share(evidence.left(smallest)), "smallest": smallest}
        text = "{first:percent} % of {images:count} images at " + _EPSILON + " = {smallest}"
        text += " and {left:percent} % at {epsilon}"
    end = ": the model is not robust there." if left <= evidence.guessing + SLACK else "."
    return f" Everything tried leaves {text}{end}", numbers


def to_json(evidence: Evidence) -> dict[str, Any]:
    """The audit as a report has it."""
    findings = check_all(evidence)
    status, verdict, counts = judge(findings)
    more, numbers = _what_is_left(evidence) if counts["ran"] else ("", {})
    checks = [f._asdict() for f in findings]
    return {
        "status": status,
        "verdict": verdict + more,
        "counts": counts | numbers,
        "checks": checks,
    }
