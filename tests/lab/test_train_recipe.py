"""The recipe: phases, learning rates, defaults, what a warm-up depends on; its configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pclc_fast.lab.recipes import Phase, fill_in, fingerprint, locate, phases, warm_up_facts
from pclc_fast.lab.train_config import TrainConfig, given


def test_the_paper_trains_in_two_phases() -> None:
    plan = phases(TrainConfig(loss="pclc", epochs=50))
    assert plan == (Phase("warm-up", "ce", 50), Phase("pclc", "pclc", 50))
    assert phases(TrainConfig(loss="ce", epochs=3)) == (
        Phase("warm-up", "ce", 3),
        Phase("ce", "ce", 3),
    )
    assert phases(TrainConfig(loss="ce", epochs=50, schedule="direct")) == (Phase("ce", "ce", 100),)
    where = [locate(plan, epoch) for epoch in (0, 49, 50, 99)]
    assert where == [(plan[0], 0), (plan[0], 49), (plan[1], 0), (plan[1], 49)]


@pytest.mark.parametrize(
    ("epochs", "first", "second"), [(150, 50, 100), (50, 17, 34), (8, 3, 6), (2, 1, 2), (1, 1, 1)]
)
def test_milestones(epochs: int, first: int, second: int) -> None:
    phase = Phase("warm-up", "ce", epochs)
    rates = [phase.lr(epoch, 0.01) for epoch in range(epochs)]
    expected = [0.01] * first + [0.002] * (second - first) + [0.0004] * (epochs - second)
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("data", "channels", "model", "epochs"),
    [("digits", 1, "small-cnn", 50), ("mnist", 1, "lenet5", 50), ("cifar10", 3, "vgg13", 150)],
)
def test_what_suits_the_images(data: str, channels: int, model: str, epochs: int) -> None:
    filled = fill_in(TrainConfig(data=data), channels)
    assert (filled.model, filled.epochs) == (model, epochs)
    kept = fill_in(TrainConfig(data=data, model="cnn3", epochs=7), channels)
    assert (kept.model, kept.epochs) == ("cnn3", 7)


_OTHER: dict[str, Any] = {
    "data": "mnist",
    "image_size": 32,
    "model": "cnn3",
    "epochs": 3,
    "lr": 0.1,
    "batch_size": 7,
    "seeds": (5,),
    "augmentation": "released",
    "adversarial": "pgd",
    "adversarial_eps": (0.1, 0.3),
    "adversarial_steps": 10,
    "bf16": "on",
    "compile": "on",
}
_LATER: dict[str, Any] = {
    "loss": "ce",
    "schedule": "direct",
    "margin": 0.5,
    "lc_weight": 1.0,
    "lc_cap": 1.0,
    "pc_mean": True,
    "device": "cuda",
    "root": Path("elsewhere"),
    "download": True,
    "out": Path("x"),
    "warm_ups": Path("y"),
    "resume": Path("z"),
}


def test_a_warm_up_is_shared_by_what_differs_later_only() -> None:
    config, where = TrainConfig(), {"torch": "2.8", "data_sha256": "a"}
    key = fingerprint(warm_up_facts(config, where))
    assert {f.name for f in dataclasses.fields(TrainConfig)} == set(_OTHER) | set(_LATER)
    for name, value in _OTHER.items():
        other = dataclasses.replace(config, **{name: value})
        assert fingerprint(warm_up_facts(other, where)) != key, name
    for name, value in _LATER.items():
        other = dataclasses.replace(config, **{name: value})
        assert fingerprint(warm_up_facts(other, where)) == key, name
    assert fingerprint(warm_up_facts(config, {**where, "data_sha256": "b"})) != key


def test_a_configuration_survives_json() -> None:
    config = TrainConfig(**{**_OTHER, **_LATER, "seeds": (1, 2), "loss": "pclc"})
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json(TrainConfig().to_json()) == TrainConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "loss cannot be 'hinge'"),
        ({"epochs": "many"}, "epochs cannot be 'many'"),
        ({"seeds": [1.5]}, r"seeds cannot be \[1.5\]"),
        ({"seeds": 1}, "seeds cannot be 1"),
        ({"adversarial_eps": [0.1]}, r"adversarial_eps cannot be \[0.1\]"),
        ({"adversarial_eps": 0.1}, "adversarial_eps cannot be 0.1"),
        ({"lr": -1.0}, "--lr must be positive"),
        ({"pc_mean": 1}, "pc_mean cannot be 1"),
        ({"speed": 11}, r"missing or unknown: \['speed'\]"),
    ],
)
def test_json_that_is_no_configuration(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_json({**TrainConfig().to_json(), **change})


def test_json_that_lacks_a_field() -> None:
    values = TrainConfig().to_json()
    del values["lr"]
    with pytest.raises(ValueError, match=r"missing or unknown: \['lr'\]"):
        TrainConfig.from_json(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1; got 0"),
        ({"batch_size": -3}, "--batch-size must be at least 1; got -3"),
        ({"image_size": 0}, "--image-size must be at least 1; got 0"),
        ({"lr": float("nan")}, "--lr must be positive and finite; got nan"),
        ({"seeds": ()}, "--seeds must be one or more different numbers; got nothing"),
        ({"seeds": (1, 1)}, "--seeds must be one or more different numbers; got 1 1"),
        ({"seeds": (-1, 2**63)}, "--seeds must be from 0 .*; got -1 9223372036854775808"),
        ({"margin": -1.0}, "margin must be finite and positive; got -1"),
        (
            {"adversarial_eps": (0.0, 0.1)},
            "--adversarial-eps has no meaning with --adversarial none",
        ),
        (
            {"adversarial": "pgd", "adversarial_eps": (0.3, 0.1)},
            "--adversarial-eps must be two numbers from 0 to 1, the lower one first; got 0.3 0.1",
        ),
        ({"adversarial": "pgd", "adversarial_eps": (0.0, 255.0)}, "--adversarial-eps must be two"),
        (
            {"adversarial": "fgsm", "adversarial_steps": 5},
            "--adversarial-steps has no meaning with --adversarial fgsm",
        ),
        (
            {"adversarial": "pgd", "adversarial_steps": 0},
            "--adversarial-steps must be at least 1; got 0",
        ),
        ({"loss": "ce", "lc_weight": 1.0}, "--lc-weight has no meaning with --loss ce"),
        ({"loss": "pclc-soft", "lc_cap": 1.0}, "--lc-cap has no meaning with --loss pclc-soft"),
        ({"loss": "pclc-released", "pc_mean": True}, "--pc-mean has no meaning with --loss pclc-r"),
    ],
)
def test_senseless_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change).check()


def test_what_was_given() -> None:
    config = TrainConfig(lr=0.1, seeds=(1,))
    assert given(config, ["train"]) == {}
    words = ["train", "--lr=0.1", "--seeds", "1", "--batch-size", "256", "--warm_ups", "w"]
    assert given(config, words) == {
        "lr": 0.1,
        "seeds": [1],
        "batch_size": 256,
        "warm_ups": "runs/warm-ups",
    }
