"""The experiment: a fair pair, repeatable, and what it leaves on the disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from pclc_fast.lab import reproduce
from pclc_fast.lab.attacks import load_result
from pclc_fast.lab.config import DigitsExperiment
from pclc_fast.lab.errors import RunError
from pclc_fast.lab.models import small_cnn
from pclc_fast.lab.summary import Condition, Results

TINY = DigitsExperiment(epochs=1, seeds=(3,), epsilons=(0.1, 0.3), steps=2, images=60)
QUIET = Console(quiet=True)


def run(out: Path, **changes: Any) -> tuple[dict[str, list[Path]], Results]:
    """Train and attack; return the folders of the runs and what was measured."""
    config = dataclasses.replace(TINY, out=out, **changes)
    folders = {n: reproduce.train_seeds(config, n, ["reproduce"], QUIET) for n in reproduce.LOSSES}
    return folders, reproduce.attack_all(config, folders, QUIET)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Path]], Results]:
    return run(tmp_path_factory.mktemp("digits"))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(one[name].equal(other[name]) for name in one)


def identical(one: Results, other: Results) -> bool:
    pairs = zip(one.measurements, other.measurements, strict=True)
    return all(a.condition == b.condition and a.correct.equal(b.correct) for a, b in pairs)


def test_both_second_phases_start_alike(done: tuple[dict[str, list[Path]], Results]) -> None:
    (baseline,), (ours,) = done[0].values()
    assert (baseline.name, ours.name) == ("ce", "pclc")
    assert len(list((baseline.parent / "warm-ups").glob("*.pt"))) == 1
    (warm, ce), (other_warm, pclc) = metrics(baseline), metrics(ours)
    assert warm == other_warm
    assert [row["phase"] for row in (warm, ce, pclc)] == ["warm-up", "ce", "pclc"]
    assert ce["lr"] == pclc["lr"]
    weights = [load_file(folder / "model.safetensors") for folder in (baseline, ours)]
    assert not same_weights(*weights)
    config = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    assert (config["margin"], config["lc_weight"], config["pc_mean"]) == (0.995, 0.05, False)


def test_what_is_measured_is_what_the_attack_left(
    done: tuple[dict[str, list[Path]], Results],
) -> None:
    folders, results = done
    attacked = ("FGSM", "PGD", "worst")
    conditions = [Condition("none", 0.0), *(Condition(a, e) for a in attacked for e in (0.1, 0.3))]
    measured = [(m.seed, m.model, m.condition) for m in results.measurements]
    assert measured == [(3, model, c) for model in ("CE", "PC-LC") for c in conditions]
    result = load_result(folders["PC-LC"][0] / "attacks" / "digits")
    assert result.clean.images == 60
    for m in results.measurements:
        assert len(m.correct) == 60
        if m.model == "PC-LC" and m.condition.attack == "worst":
            assert m.accuracy == result.worst_case(m.condition.epsilon).accuracy
        if m.model == "PC-LC" and m.condition.attack == "PGD":
            cell = result.cell("pgd", m.condition.epsilon)
            assert cell is not None
            alone = result.alone(cell)
            assert alone is not None
            assert m.accuracy == alone.accuracy


def test_a_seed_repeats_exactly(
    done: tuple[dict[str, list[Path]], Results], tmp_path: Path
) -> None:
    torch.rand(7)  # the global generator must not matter
    _, again = run(tmp_path / "again")
    assert identical(done[1], again)
    _, other = run(tmp_path / "other", seeds=(4,))
    assert not identical(done[1], other)


def test_a_finished_experiment_goes_on_where_it_is(tmp_path: Path) -> None:
    folders, first = run(tmp_path, seeds=(2, 10))
    before = [load_file(f / "model.safetensors") for f in folders["CE"]]
    assert [f.name for f in folders["CE"]] == ["seed-2", "seed-10"]
    _, second = run(tmp_path, seeds=(2, 10))
    assert identical(first, second)
    after = [load_file(f / "model.safetensors") for f in folders["CE"]]
    assert all(map(same_weights, before, after))
    for change in ({"seeds": (2, 10), "epochs": 2}, {"seeds": (2,)}, {"seeds": (2, 3)}):
        with pytest.raises(RunError, match="holds another experiment: choose another folder"):
            run(tmp_path, **change)


def test_divergence_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"epoch 1: lr 1e\+20 is too large"):
        run(tmp_path, lr=1e20)


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
        ({"images": 0}, r"--images must be at least 1; got 0"),
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
