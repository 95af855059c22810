"""The experiment: a fair pair, repeatable, and what its phases report."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from pclc_fast import pc_lc_loss
from pclc_fast.lab import reproduce
from pclc_fast.lab.config import DigitsExperiment
from pclc_fast.lab.digits import DigitsData
from pclc_fast.lab.models import small_cnn
from pclc_fast.lab.progress import Progress
from pclc_fast.lab.summary import Condition, Results
from pclc_fast.lab.training import EpochStats, train

TINY = DigitsExperiment(epochs=1, seeds=(3,), epsilons=(0.1,), steps=2)
QUIET = Console(quiet=True)


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(one[name].equal(other[name]) for name in one)


def test_both_second_phases_start_alike(data: DigitsData, monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[dict[str, Any]] = []

    def watched_train(
        model: nn.Module, images: Tensor, labels: Tensor, criterion: nn.Module, **settings: Any
    ) -> Iterator[EpochStats]:
        phase = {"criterion": criterion, "before": copy.deepcopy(model.state_dict())}
        phase["order"] = settings["generator"].get_state()
        phase["settings"] = {k: v for k, v in settings.items() if k != "generator"}
        phases.append(phase)
        yield from train(model, images, labels, criterion, **settings)  # type: ignore[arg-type]
        phase["after"] = copy.deepcopy(model.state_dict())

    monkeypatch.setattr(reproduce, "train", watched_train)
    with Progress(QUIET, total=1) as progress:
        models = reproduce.train_pair(TINY, 3, data, progress)
    warm, baseline, ours = phases
    assert same_weights(warm["before"], small_cnn(seed=3).state_dict())
    assert not same_weights(warm["before"], warm["after"])
    for phase in (baseline, ours):
        assert same_weights(phase["before"], warm["after"])
        assert phase["order"].equal(baseline["order"])
        assert phase["settings"] == warm["settings"]
    assert not warm["order"].equal(baseline["order"])
    assert not same_weights(baseline["after"], ours["after"])
    assert same_weights(models["CE"].state_dict(), baseline["after"])
    assert same_weights(models["PC-LC"].state_dict(), ours["after"])
    coefficients = [(p["criterion"].ce_weight, p["criterion"].pc_weight) for p in phases]
    assert coefficients == [(1, 0), (1, 0), (0, 1)]
    assert (ours["criterion"].margin, ours["criterion"].lc_weight) == (0.995, 0.05)


def run(config: DigitsExperiment, data: DigitsData) -> Results:
    return reproduce.run_digits(config, data, QUIET)


def identical(one: Results, other: Results) -> bool:
    return all(
        a.correct.equal(b.correct) and (a.prob_gap, a.logit_gap) == (b.prob_gap, b.logit_gap)
        for a, b in zip(one.measurements, other.measurements, strict=True)
    )


def test_a_seed_repeats_exactly(data: DigitsData) -> None:
    first = run(TINY, data)
    torch.rand(7)  # the global generator must not matter
    assert identical(first, run(TINY, data))
    assert not identical(first, run(DigitsExperiment(**{**vars(TINY), "seeds": (4,)}), data))
    measured = [(m.seed, m.model, m.condition) for m in first.measurements]
    conditions = [Condition("none", 0.0), Condition("FGSM", 0.1), Condition("PGD", 0.1)]
    assert measured == [(3, model, c) for model in ("CE", "PC-LC") for c in conditions]


def test_the_announced_work_is_the_work_done(
    data: DigitsData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counting(Progress):
        def __init__(self, console: Console, total: int) -> None:
            super().__init__(console, total)
            self.total = total

        def advance(self, images: int, doing: str) -> None:
            seen.append(images)
            super().advance(images, doing)

        def __exit__(self, *error: Any) -> None:
            super().__exit__(*error)
            seen.append(-self.total)

    monkeypatch.setattr(reproduce, "Progress", Counting)
    run(DigitsExperiment(**{**vars(TINY), "seeds": (1, 2), "epsilons": (0.1, 0.2)}), data)
    assert sum(seen) == 0
    assert len(seen) > 10


def test_epoch_statistics_are_means_over_all_images(data: DigitsData) -> None:
    model = small_cnn(seed=0)
    criterion = reproduce.CRITERIA["PC-LC"]
    images, labels = data.train_images[:100], data.train_labels[:100]  # batches of 64 and 36
    generator = torch.Generator().manual_seed(0)
    settings = {"epochs": 1, "batch_size": 64, "lr": 1e-30, "generator": generator}
    (epoch,) = train(model, images, labels, criterion, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        loss, stats = pc_lc_loss(model(images), labels, return_stats=True)
    expected = [
        loss,
        *(s.double().mean() for s in (stats.correct, stats.prob_gap, stats.logit_gap)),
    ]
    assert epoch == pytest.approx([e.item() for e in expected], abs=1e-5)


def test_training_teaches(data: DigitsData) -> None:
    generator = torch.Generator().manual_seed(0)
    epochs = train(
        small_cnn(seed=0),
        data.train_images,
        data.train_labels,
        reproduce.CRITERIA["CE"],
        epochs=4,
        batch_size=64,
        lr=3e-3,
        generator=generator,
    )
    first, *_, last = epochs
    assert last.loss < first.loss / 2
    assert last.accuracy > 0.85


def test_divergence_is_reported(data: DigitsData) -> None:
    epochs = train(
        small_cnn(seed=0),
        data.train_images,
        data.train_labels,
        reproduce.CRITERIA["CE"],
        epochs=1,
        batch_size=64,
        lr=1e20,
        generator=torch.Generator().manual_seed(0),
    )
    with pytest.raises(FloatingPointError, match=r"epoch 1: lr 1e\+20 is too large"):
        next(epochs)


def test_initial_weights_depend_on_their_seed_alone() -> None:
    torch.rand(1)
    before = torch.random.get_rng_state()
    weights = small_cnn(seed=0).state_dict()
    assert torch.random.get_rng_state().equal(before)
    torch.rand(1)
    assert same_weights(weights, small_cnn(seed=0).state_dict())
    assert not same_weights(weights, small_cnn(seed=1).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"--epochs must be at least 1; got 0"),
        ({"steps": 0}, r"--steps must be at least 1; got 0"),
        ({"batch_size": -3}, r"--batch-size must be at least 1; got -3"),
        ({"lr": 0.0}, r"--lr must be positive and finite; got 0"),
        ({"lr": float("nan")}, r"--lr must be positive and finite; got nan"),
        ({"seeds": ()}, r"--seeds must be one or more different numbers; got nothing"),
        ({"seeds": (1, 1)}, r"--seeds must be one or more different numbers; got 1 1"),
        ({"seeds": (-1,)}, r"--seeds must be from 0 .*; got -1"),
        ({"epsilons": ()}, r"--epsilons must be one or more different numbers; got nothing"),
        ({"epsilons": (0.1, 1.5)}, r"--epsilons must be from 0 to 1; got 0.1 1.5"),
        ({"epsilons": (float("nan"),)}, r"--epsilons must be from 0 to 1; got nan"),
    ],
)
def test_senseless_configurations_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    DigitsExperiment(out=tmp_path / "good").check()
    with pytest.raises(ValueError, match=message):
        DigitsExperiment(**{"out": tmp_path / "bad", **change}).check()
    assert not (tmp_path / "bad").exists()
