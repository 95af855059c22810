"""What the numbers of an experiment say and what they do not, in words that follow from them."""

from __future__ import annotations

from collections.abc import Iterable

from .summary import (
    BASELINE,
    CLEAN,
    MODELS,
    OURS,
    WORST,
    Condition,
    Difference,
    Results,
    paired_difference,
    wilson_interval,
)

_CLEAN = Condition(CLEAN, 0.0)
_HIGHER = {1: f"{OURS} higher", -1: f"{BASELINE} higher", 0: "no difference beyond noise"}
_WEAK, _STRONG = "FGSM", "PGD"
_TITLES = {WORST: "Worst case over all that was tried"}
_GUESSING = 0.1  # the accuracy of guessing one of ten classes


def describe(results: Results) -> list[str]:
    """Return a few paragraphs; everything but the last states a measured result."""
    return [
        _clean(results),
        _attacked(results),
        _one_step_against_many(results),
        _gaps(results),
        _precision(results),
        _not_shown(results),
    ]


def _clean(results: Results) -> str:
    accuracies = " and ".join(
        f"{model} {_percent(results.accuracy(model, _CLEAN)[0])}" for model in MODELS
    )
    sign = results.difference(_CLEAN).sign
    return f"Without an attack: {accuracies} of the test images correct; {_HIGHER[sign]}."


def _attacked(results: Results) -> str:
    """The verdict, then for each attack where which model is higher."""
    conditions = [c for c in results.conditions if c.attack != CLEAN]
    differences = {c: results.difference(c) for c in conditions}
    signs = {d.sign for d in differences.values()}
    better = [model for model, sign in ((OURS, 1), (BASELINE, -1)) if sign in signs]
    verdict = (
        "no difference between the models exceeds the noise"
        if not better
        else "neither model is better throughout"
        if len(better) == 2
        else f"{better[0]} keeps more accuracy than the other model at some epsilons, less at none"
    )
    sentences = [f"Under these attacks {verdict}."]
    for attack in dict.fromkeys(c.attack for c in conditions):
        own = {c.epsilon: d for c, d in differences.items() if c.attack == attack}
        sentences.append(f"{_TITLES.get(attack, attack)}: {_where(own)}.")
    return " ".join(sentences)


def _where(differences: dict[float, Difference]) -> str:
    parts = []
    for sign, text in _HIGHER.items():
        those = {e: d for e, d in differences.items() if d.sign == sign}
        if not those:
            continue
        points = max(100 * abs(d.mean) for d in those.values())
        most = f" by {'up to ' if len(those) > 1 else ''}{points:.1f} points" if sign else ""
        parts.append(f"{text}{most} at epsilon {_list(those)}")
    return "; ".join(parts)


def _one_step_against_many(results: Results) -> str:
    """Iterating should fool more; where it fools fewer, the gradient misleads."""
    epsilons = [c.epsilon for c in results.conditions if c.attack == _STRONG]
    gains = {
        (model, epsilon): paired_difference(
            results.of(model, Condition(_WEAK, epsilon)),
            results.of(model, Condition(_STRONG, epsilon)),
        )
        for model in MODELS
        for epsilon in epsilons
    }
    sentences = []
    (model, epsilon), most = min(gains.items(), key=lambda item: item[1].mean)
    if most.sign < 0:
        before, after = (
            _percent(results.accuracy(model, Condition(attack, epsilon))[0])
            for attack in (_WEAK, _STRONG)
        )
        sentences.append(
            f"{_STRONG} fools more than {_WEAK}, most of all {model} at epsilon {epsilon:g}: "
            f"{after} left against {before}."
        )
    else:
        sentences.append(f"{_STRONG} fools no more than {_WEAK} does.")
    for model in MODELS:
        masked = [e for (name, e), gain in gains.items() if name == model and gain.sign > 0]
        if masked:
            sentences.append(
                f"At epsilon {_list(masked)} it fools fewer images of {model}, "
                "a sign of gradient masking."
            )
    return " ".join([*sentences, _largest_budget(results, max(epsilons))])


def _largest_budget(results: Results, epsilon: float) -> str:
    left = {m: results.accuracy(m, Condition(_STRONG, epsilon))[0] for m in MODELS}
    text = " and ".join(f"{model} {_percent(share)}" for model, share in left.items())
    above = [model for model, share in left.items() if share > _GUESSING]
    judgement = f"only {above[0]} is" if len(above) == 1 else "both are" if above else "neither is"
    return (
        f"The largest epsilon, {epsilon:g}, leaves {text}: {judgement} above guessing "
        f"({_percent(_GUESSING)})."
    )


def _gaps(results: Results) -> str:
    prob, logit = (
        [gap(model, _CLEAN)[0] for model in MODELS] for gap in (results.prob_gap, results.logit_gap)
    )
    effect = "holds" if logit[1] < logit[0] else "does not hold"
    return (
        f"The logit constraint {effect} the logits together: the mean gap between the true and the "
        f"largest false logit is {logit[0]:.1f} for {BASELINE} and {logit[1]:.1f} for {OURS}, and "
        f"between their probabilities {prob[0]:.3f} and {prob[1]:.3f}."
    )


def _precision(results: Results) -> str:
    low, high = wilson_interval(0.5, results.images)
    text = (
        f"Noise: with {results.images} test images a measured 50 % means {_percent(low)} to "
        f"{_percent(high)}. A difference counts above where it exceeds two standard errors"
    )
    if results.seeds == 1:
        return f"{text} of the images. One seed says nothing about how much training varies."
    return (
        f"{text}, of the images and of the {results.seeds} seeds together; of "
        f"{len(results.conditions)} comparisons about one in twenty does so by chance."
    )


def _not_shown(results: Results) -> str:
    return (
        "What this does not show is robustness. What attacks leave is an upper bound: a higher "
        f"number can be gradient masking, {_hidden(results)}On MNIST "
        f"(LeNet-5, one seed) {_STRONG} at epsilon 0.1 left {BASELINE} 40 % and {OURS} 82 %, and "
        "still no model had a single image left at epsilon 0.2 or 0.3 once the attacks also "
        "rescaled the logits or aimed at every class in turn."
    )


def _hidden(results: Results) -> str:
    """What the plain attack missed of the worst case, where it did."""
    missed = {
        (model, c.epsilon): results.accuracy(model, Condition(_STRONG, c.epsilon))[0]
        - results.accuracy(model, c)[0]
        for model in MODELS
        for c in results.conditions
        if c.attack == WORST
    }
    if not missed or max(missed.values()) <= 0:
        return f"though here all attacks together found no more than {_STRONG} did. "
    (model, epsilon), most = max(missed.items(), key=lambda item: item[1])
    return (
        f"and {_STRONG} missed up to {100 * most:.1f} points of what all attacks together found "
        f"({model}, epsilon {epsilon:g}). "
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _list(epsilons: Iterable[float]) -> str:
    *others, last = (f"{epsilon:g}" for epsilon in epsilons)
    return f"{', '.join(others)} and {last}" if others else last
