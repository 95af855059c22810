"""The checks: each a function from the evidence to a finding.

Carlini et al., "On Evaluating Adversarial Robustness", 2019; Athalye, Carlini and Wagner,
"Obfuscated Gradients Give a False Sense of Security", ICML 2018; Croce and Hein, "Reliable
Evaluation of Adversarial Robustness ...", ICML 2020; Pintor et al., "Indicators of Attack Failure",
NeurIPS 2022.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from .evidence import GRADIENT, Evidence, Finding, Status, share
from .limits import CONVERGED, MASKED, MOST, SLACK, at_most, by_chance, surely

_IDLE = "Not measured."
_AT = "At \N{GREEK SMALL LETTER EPSILON} = {epsilon}"


def check_all(evidence: Evidence) -> list[Finding]:
    """Every check, those that could not be made as NOT RUN."""
    return [check(evidence.of_use()) for check in CHECKS]


def many_steps(e: Evidence) -> Finding:
    """Iterating must fool at least as much as one step of the whole budget."""
    lost = {eps: e.accuracy("pgd", eps) - e.accuracy("fgsm", eps) for eps in e.at("pgd", "fgsm")}
    numbers: dict[str, Any] = {}
    if lost:
        eps = max(lost, key=lambda key: lost[key])
        numbers = {
            "epsilon": eps,
            "one": e.accuracy("fgsm", eps),
            "many": e.accuracy("pgd", eps),
        }
    return _finding(
        "many-steps",
        "Many steps beat one",
        numbers and by_chance(lost[numbers["epsilon"]], e),
        _AT + ", {one:percent} % withstand one step and {many:percent} % withstand many.",
        "Where one step fools more than many, the gradient near the image misleads.",
        numbers,
    )


def _black_box(key: str, title: str, meaning: str, idle: str) -> Callable[[Evidence], Finding]:
    def check(e: Evidence) -> Finding:
        numbers: dict[str, Any] = {}
        for eps in e.at(key):
            left = e.together(GRADIENT, eps)
            only = int((left & ~e.standing[key, eps]).sum())
            tried = e.searched.get((key, eps), int(left.sum()))
            if not numbers or only > numbers["only"]:
                numbers = {"epsilon": eps, "only": only, "tried": tried, "images": e.images}
        return _finding(
            key,
            title,
            numbers and by_chance(numbers["only"] / e.images, e),
            _AT + " it fools {only:count} of {tried:count} "
            "images (of {images:count} in all) that no gradient attack fooled.",
            meaning,
            numbers,
            idle,
        )

    return check


def falls(e: Evidence) -> Finding:
    """More budget must fool more."""
    budgets = sorted({eps for attack, eps in e.standing if attack == "pgd"})
    left = [e.accuracy("pgd", eps) for eps in budgets]
    numbers: dict[str, Any] = {}
    if len(budgets) > 1:
        rise = max(later - before for before, later in itertools.pairwise(left))
        numbers = {"from": left[0], "to": left[-1], "rise": max(0.0, rise)}
        numbers |= {"low": budgets[0], "high": budgets[-1]}
    flat = (
        numbers
        and at_most(numbers["from"] - numbers["to"], SLACK)
        and numbers["to"] > e.guessing + SLACK
    )
    return _finding(
        "falls",
        "Accuracy falls with \N{GREEK SMALL LETTER EPSILON}",
        numbers and by_chance(numbers["rise"], e) and not flat,
        "Under many steps it goes from {from:percent} % at \N{GREEK SMALL LETTER EPSILON} = {low} "
        "to {to:percent} % at {high}; its largest rise on the way is {rise:percent} points.",
        "A curve that stays flat or rises shows an attack that fails, not a model that resists.",
        numbers,
    )


def chance(e: Evidence) -> Finding:
    """Half of the range turns every image into the same grey."""
    numbers: dict[str, Any] = {}
    if any((attack, e.large) in e.standing for attack in GRADIENT):
        left = share(e.together(GRADIENT, e.large))
        numbers = {"epsilon": e.large, "left": left, "chance": e.guessing}
    return _finding(
        "chance",
        "Accuracy reaches chance",
        numbers and at_most(numbers["left"], e.guessing + SLACK),
        _AT + ", where every image can be made the same "
        "grey, gradient attacks leave {left:percent} %; guessing gets {chance:percent} %.",
        "Above chance there, the attacks fail, whatever the model.",
        numbers,
    )


def _change(
    key: str,
    better: str,
    title: str,
    what: str,
    meaning: str,
    allowed: float,
    *,
    control: tuple[str, ...] = ("pgd",),
    against: str = "many steps",
) -> Callable[[Evidence], Finding]:
    """A better attack must not find much that ``control``, of like cost, missed.

    It fails where the whole Wilson interval of the share that only the better attack fooled lies
    above ``allowed``, so that which images were probed does not decide.
    """

    def check(e: Evidence) -> Finding:
        numbers: dict[str, Any] = {}
        for eps in e.at("pgd", better):
            plain, both = e.together(control, eps), e.together((*control, better), eps)
            gain = share(plain) - share(both)
            if not numbers or gain > numbers["gain"]:
                numbers = {"epsilon": eps, "plain": share(plain), "both": share(both), "gain": gain}
        return _finding(
            key,
            title,
            numbers and at_most(surely(numbers["gain"], e), allowed),
            f"{_AT}, {{plain:percent}} % withstand {against}; "
            f"with {what} too it is {{both:percent}} %, {{gain:points}} points less.",
            meaning,
            numbers,
        )

    return check


def gradients(e: Evidence) -> Finding:
    """Steps along a gradient that is zero, or lost in rounding, lead nowhere."""
    taken = sum(g.taken for g in e.gradients)
    numbers: dict[str, Any] = {}
    if taken:
        useless = {
            g: (g.zero + g.vanishing + g.non_finite) / g.taken for g in e.gradients if g.taken
        }
        worst = max(useless, key=lambda g: useless[g])
        numbers = {
            "zero": sum(g.zero for g in e.gradients) / taken,
            "vanishing": sum(g.vanishing for g in e.gradients) / taken,
            "non-finite": sum(g.non_finite for g in e.gradients) / taken,
            "step": worst.step,
            "worst": useless[worst],
        }
    lost = numbers.get("zero", 0.0) + numbers.get("non-finite", 0.0)
    return _finding(
        "gradients",
        "Gradients are not zero",
        numbers and at_most(lost, SLACK) and at_most(lost + numbers["vanishing"], MOST),
        "Of the gradients of the cross-entropy, {zero:percent} % are 0 in every pixel, "
        "{vanishing:percent} % below 1e-8 and {non-finite:percent} % not finite; at worst "
        "{worst:percent} %, at step {step}.",
        "Where softmax has saturated, or a step of the model has no slope, an attack stands still.",
        numbers,
    )


def noise(e: Evidence) -> Finding:
    """Random changes must fool no more than directed ones."""
    lost = {eps: e.accuracy("pgd", eps) - e.accuracy("noise", eps) for eps in e.at("pgd", "noise")}
    numbers: dict[str, Any] = {}
    if lost:
        eps = max(lost, key=lambda key: lost[key])
        numbers = {"epsilon": eps, "left": e.accuracy("noise", eps), "pgd": e.accuracy("pgd", eps)}
    return _finding(
        "noise",
        "Random noise fools less",
        numbers and by_chance(lost[numbers["epsilon"]], e),
        _AT + ", {left:percent} % withstand many random "
        "changes and {pgd:percent} % withstand many steps along the gradient.",
        "A gradient that is worse than a random direction says nothing.",
        numbers,
    )


def unbounded(e: Evidence) -> Finding:
    """Any image may be turned into any other."""
    numbers: dict[str, Any] = {}
    if ("pgd", e.everything) in e.standing:
        left = int(e.standing["pgd", e.everything].sum())
        numbers = {"left": left, "images": int(e.clean.sum())}
    return _finding(
        "unbounded",
        "An unbounded attack fools every image",
        numbers and numbers["left"] == 0,
        "Free to change every pixel as far as it goes, many steps leave {left:count} of "
        "{images:count} images.",
        "Whatever is left then was lost on the way: the gradient does not lead out.",
        numbers,
    )


def repeats(e: Evidence) -> Finding:
    """An attack follows the gradient of one draw and is judged by another."""
    numbers = e.repeats._asdict() if e.repeats else {}
    return _finding(
        "repeats",
        "The forward is not random",
        numbers and numbers["changed"] == 0 and numbers["largest"] <= 1e-4,
        "Shown twice, {changed:count} images change their class, and a logit by at most "
        "{largest:plain} of the largest.",
        "Against a random forward, attacks must average over draws; these do not.",
        numbers,
    )


def logits(e: Evidence) -> Finding:
    """Attacks take what the model gives for logits."""
    known = e.sums_to_one is not None
    numbers = {"classes": e.classes, "probabilities": int(bool(e.sums_to_one))} if known else {}
    return _finding(
        "logits",
        "The outputs are logits, of enough classes",
        numbers and not e.sums_to_one and e.classes >= 4,
        "The model gives {classes:count} outputs"
        + (", which are probabilities." if e.sums_to_one else ", which are not probabilities."),
        "On probabilities softmax flattens the gradient; the targeted DLR loss needs four classes.",
        numbers,
    )


def worst_case(e: Evidence) -> Finding:
    """Nothing that the audit tried may fool what the evaluation calls standing."""
    numbers: dict[str, Any] = {}
    for eps in (eps for eps in e.epsilons if eps in e.worst):
        tried = tuple({a for a, at in e.standing if at == eps})
        missed = int((e.worst[eps] & ~e.together(tried, eps)).sum())
        if not numbers or missed > numbers["missed"]:
            numbers = {"epsilon": eps, "missed": missed, "images": e.images}
            numbers["worst"] = share(e.worst[eps])
    return _finding(
        "worst-case",
        "The worst case stands",
        numbers and at_most(numbers["missed"], SLACK / 2 * e.images),
        _AT + " the evaluation leaves {worst:percent} % of "
        "{images:count} images; the audit fools {missed:count} more.",
        "What the audit finds in passing, the evaluation should have found.",
        numbers,
    )


def _finding(
    key: str,
    title: str,
    passed: Any,
    text: str,
    meaning: str,
    numbers: dict[str, Any],
    idle: str = _IDLE,
) -> Finding:
    """``passed`` counts where there are numbers."""
    if not numbers:
        return Finding(key, title, "NOT RUN", idle, meaning, {})
    status: Status = "PASS" if passed else "FAIL"
    return Finding(key, title, status, text, meaning, numbers)


CHECKS: tuple[Callable[[Evidence], Finding], ...] = (
    worst_case,
    many_steps,
    _change(
        "rescaled",
        "pgd-rescaled",
        "Rescaled logits change nothing",
        "the same steps on logits divided by their spread",
        "Large logits saturate softmax in float32 and hide the gradient.",
        MASKED,
    ),
    _change(
        "targets",
        "pgd-targets",
        "Targeting every class changes nothing",
        "as many steps towards each false class in turn",
        "A false class that stays near the true one is a decoy that untargeted attacks run into.",
        MASKED,
        control=("pgd", "pgd-twice", "pgd-restarts"),
        against="many steps, twice as many and more starts",
    ),
    _change(
        "twice",
        "pgd-twice",
        "Twice the steps change nothing",
        "twice as many",
        "An attack that still finds more has not converged, and its number is too high.",
        CONVERGED,
    ),
    _change(
        "restarts",
        "pgd-restarts",
        "More restarts change nothing",
        "the same steps from more random starts",
        "Where the start decides, the surface is rough, and few starts say little.",
        CONVERGED,
    ),
    _change(
        "float64",
        "pgd-float64",
        "float64 agrees",
        "the same steps in float64",
        "A gradient that only appears with more digits was lost in rounding.",
        CONVERGED,
    ),
    gradients,
    _black_box(
        "transfer",
        "White-box beats transfer",
        "Images made for another model must not find what the model's own gradient misses.",
        "Not measured: it takes another model that was attacked on the same images.",
    ),
    _black_box(
        "spsa",
        "White-box beats SPSA",
        "Slopes estimated from outputs must not find what the gradient misses.",
        _IDLE,
    ),
    _black_box(
        "square",
        "White-box beats Square",
        "A search that only sees outputs must not find what the gradient misses.",
        "Not measured. It changes each pixel by as much as it may, which is no budget in L2.",
    ),
    falls,
    chance,
    unbounded,
    noise,
    repeats,
    logits,
)
