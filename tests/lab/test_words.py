"""The words follow from the numbers: fabricated results, and their mirror images."""

from __future__ import annotations

import io

import torch
from rich.console import Console

from pclc_fast.lab.summary import Condition, Measurement, Results
from pclc_fast.lab.table import accuracy_table, gap_table
from pclc_fast.lab.words import describe

IMAGES = 500
CLEAN, FGSM, PGD = Condition("none", 0.0), Condition("FGSM", 0.1), Condition("PGD", 0.1)
Percents = dict[Condition, int]

BETTER = {CLEAN: 99, FGSM: 80, PGD: 60}
WORSE = {CLEAN: 99, FGSM: 50, PGD: 30}


def results(ce: Percents, ours: Percents, *, seeds: int = 2, logit_gap: float = 5.0) -> Results:
    """Results in which every seed classifies the same first percents of the images correctly."""
    gaps = {"CE": 15.0, "PC-LC": logit_gap}
    return Results(
        [
            Measurement(
                seed, model, c, torch.arange(IMAGES) < IMAGES * percent // 100, 0.9, gaps[model]
            )
            for seed in range(seeds)
            for model, percents in (("CE", ce), ("PC-LC", ours))
            for c, percent in percents.items()
        ]
    )


def text(*args: Percents, seeds: int = 2, logit_gap: float = 5.0) -> str:
    return "\n".join(describe(results(*args, seeds=seeds, logit_gap=logit_gap)))


def test_the_verdict_names_the_model_that_is_higher() -> None:
    ours, baseline = text(WORSE, BETTER), text(BETTER, WORSE)
    assert "attacks PC-LC keeps more accuracy than the other model at some epsilons" in ours
    assert "FGSM: PC-LC higher by 30.0 points at epsilon 0.1." in ours
    assert "PGD: PC-LC higher by 30.0 points at epsilon 0.1." in ours
    assert "CE higher" not in ours
    assert "attacks CE keeps more accuracy than the other model at some epsilons" in baseline
    assert "FGSM: CE higher by 30.0 points at epsilon 0.1." in baseline
    assert "PC-LC higher" not in baseline


def test_a_tie_and_a_disagreement_have_no_winner() -> None:
    tie = text(BETTER, BETTER)
    assert "no difference between the models exceeds the noise" in tie
    assert "FGSM: no difference beyond noise at epsilon 0.1." in tie
    split = text({**BETTER, PGD: 10}, {**WORSE, PGD: 40})
    assert "neither model is better throughout" in split
    assert "FGSM: CE higher by 30.0 points" in split
    assert "PGD: PC-LC higher by 30.0 points" in split


def test_a_difference_within_noise_is_not_called_one() -> None:
    images = torch.rand(IMAGES, generator=torch.Generator().manual_seed(0))
    near = Results(
        [
            Measurement(0, model, c, (images - shift) % 1 < 0.5, 0.9, 9.0)
            for model, shift in (("CE", 0.0), ("PC-LC", 0.25))
            for c in (CLEAN, FGSM, PGD)
        ]
    )
    difference = near.difference(PGD)
    assert difference.mean != 0  # half of the images disagree, in both directions
    assert "no difference between the models exceeds the noise" in "\n".join(describe(near))


def test_clean_accuracy_is_judged_too() -> None:
    assert "CE 99.0 % and PC-LC 99.0 % of the test images correct; no diff" in text(BETTER, WORSE)
    assert "PC-LC 80.0 % of the test images correct; CE higher." in text(
        BETTER, {**WORSE, CLEAN: 80}
    )
    assert "PC-LC 99.0 % of the test images correct; PC-LC higher." in text(
        {**BETTER, CLEAN: 80}, WORSE
    )


def test_one_step_against_many() -> None:
    usual = text(WORSE, {**BETTER, PGD: 45})
    assert "PGD fools more than FGSM, most of all PC-LC at epsilon 0.1: 45.0 % left" in usual
    assert "45.0 % left against 80.0 %" in usual
    assert "gradient masking." not in usual.split("What this does not show")[0]
    masked = text(WORSE, {**BETTER, PGD: 90})
    assert "At epsilon 0.1 it fools fewer images of PC-LC, a sign of gradient masking." in masked
    assert "fewer images of CE" not in masked
    assert "PGD fools no more than FGSM does." in text({**BETTER, PGD: 80}, {**BETTER, PGD: 80})


def test_the_largest_budget_is_compared_with_guessing() -> None:
    def judged(ce: int, ours: int) -> str:
        return text({**BETTER, PGD: ce}, {**BETTER, PGD: ours})

    assert "leaves CE 0.0 % and PC-LC 2.0 %: neither is above guessing (10.0 %)" in judged(0, 2)
    assert "only PC-LC is above guessing" in judged(0, 40)
    assert "only CE is above guessing" in judged(40, 0)
    assert "both are above guessing" in judged(40, 30)


def test_gaps_are_described_as_they_are() -> None:
    assert "constraint holds the logits together" in text(WORSE, BETTER, logit_gap=5.0)
    assert "15.0 for CE and 5.0 for PC-LC" in text(WORSE, BETTER, logit_gap=5.0)
    assert "constraint does not hold the logits together" in text(WORSE, BETTER, logit_gap=20.0)


def test_the_noise_is_stated() -> None:
    several, one = text(WORSE, BETTER, seeds=2), text(WORSE, BETTER, seeds=1)
    assert "of the images and of the 2 seeds together; of 3 comparisons" in several
    assert "with 500 test images a measured 50 % means 45.6 % to 54.4 %" in several
    assert "One seed says nothing about how much training varies" in one
    assert "One seed" not in several


def test_no_result_is_called_robust() -> None:
    for words in (text(WORSE, BETTER), text(BETTER, WORSE)):
        assert "What this does not show is robustness." in words


def test_what_the_plain_attack_missed_is_said() -> None:
    worst = Condition("worst", 0.1)
    missed = text({**WORSE, worst: 30}, {**BETTER, worst: 48})
    assert "PGD missed up to 12.0 points of what all attacks together found (PC-LC" in missed
    assert "Worst case over all that was tried: PC-LC higher by 18.0 points" in missed
    same = text({**WORSE, worst: 30}, {**BETTER, worst: 60})
    assert "all attacks together found no more than PGD did" in same


def test_tables_fit_a_terminal_and_hold_the_numbers() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80)
    fabricated = results(WORSE, {**BETTER, PGD: 100}, seeds=3)
    console.print(accuracy_table(fabricated))
    console.print(gap_table(fabricated))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (fgsm,) = (line.split() for line in lines if line.startswith(" FGSM"))
    assert " ".join(fgsm) == ("FGSM 0.1 50.0 ± 0.0 [46, 54] 80.0 ± 0.0 [76, 83] +30.0 ± 2.1")
    (pgd,) = (line for line in lines if line.startswith(" PGD"))
    assert "100.0 ± 0.0 [99, 100]" in pgd
    (logit,) = (line.split() for line in lines if "largest false logit" in line)
    assert logit[-6:] == ["15.00", "±", "0.00", "5.00", "±", "0.00"]
    assert "…" not in file.getvalue()
