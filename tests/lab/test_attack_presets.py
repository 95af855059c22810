"""The presets against the paper's text, transcribed by hand a second time."""

from __future__ import annotations

import inspect

import pytest

from pclc_fast.lab.attacks.preset import Preset, Spec
from pclc_fast.lab.attacks.presets import NAMES, find_preset, pick
from pclc_fast.lab.attacks.registry import ATTACKS

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
KINDS = {"grey": (GREY, 10), "colour": (COLOUR, 10), "large": ((3, 64, 64), 200)}


def by_key(preset: Preset) -> dict[str, Spec]:
    return {spec.key: spec for spec in preset.specs}


@pytest.mark.parametrize(
    ("shape", "budgets", "fifth"),
    [(GREY, (0.1, 0.2, 0.3), 0.3), (COLOUR, (0.04, 0.12, 0.2), 0.04)],
)
def test_tables_1_2_3_and_5(
    shape: tuple[int, ...], budgets: tuple[float, ...], fifth: float
) -> None:
    specs = by_key(find_preset("paper", shape, 10))
    for key in ("fgsm", "bim", "bim-eps/10", "pgd", "mim", "pgd-transfer", "mim-transfer"):
        assert specs[key].epsilons == budgets  # Table 5 has one of them again
        assert fifth in budgets
    # "The number of iterations is set to 10 for BIM and 40 for MIM and PGD while perturbation of
    # each step is 0.01."
    for key, steps in (("bim", 10), ("pgd", 40), ("mim", 40)):
        assert (specs[key].settings["steps"], specs[key].settings["step_size"]) == (steps, 0.01)
    assert specs["bim-eps/10"].settings["per_epsilon"] is True
    assert specs["bim-eps/10"].settings["step_size"] == 0.1
    # "C&W, the maximum iteration steps are set to 100, with a learning rate of 0.001, and the
    # confidence is set to 0"; Table 2: "max iterations of C&W is 1000".
    for key, steps in (("cw-100", 100), ("cw-1000", 1000)):
        settings = specs[key].settings
        assert (settings["steps"], settings["lr"], settings["confidence"]) == (steps, 0.001, 0.0)
        assert (specs[key].norm, specs[key].has_budget, specs[key].epsilons) == ("L2", False, ())
    # "The learning rate of SPSA is set to 0.01, and the step size is delta = 0.01"
    assert specs["spsa"].epsilons == (0.3,)
    assert (specs["spsa"].settings["lr"], specs["spsa"].settings["delta"]) == (0.01, 0.01)
    sources = {key: spec.source for key, spec in specs.items()}
    assert sources == {
        "fgsm": "Tables 1 and 2",
        "bim": "Tables 1, 2 and 5",
        "bim-eps/10": "Tables 1, 2 and 5",
        "pgd": "Tables 1, 2 and 5",
        "mim": "Tables 1, 2 and 5",
        "cw-100": "Tables 1 and 5",
        "cw-1000": "Table 2",
        "pgd-transfer": "Table 3",
        "mim-transfer": "Table 3",
        "spsa": "Tables 3 and 5",
    }


def test_table_4() -> None:
    specs = by_key(find_preset("paper", (3, 64, 64), 200))
    assert set(specs) == {"pgd-10", "mim-10", "spsa"}
    for key in ("pgd-10", "mim-10"):
        assert specs[key].epsilons == (0.005, 0.010, 0.015)
        assert specs[key].settings["steps"] == 10
    assert specs["spsa"].epsilons == (0.015,)


def test_spsa_can_cross_every_budget_that_the_paper_gives_it() -> None:
    for shape, classes in KINDS.values():
        spec = by_key(find_preset("paper", shape, classes))["spsa"]
        assert spec.settings["steps"] * spec.settings["lr"] >= 2 * max(spec.epsilons) - 1e-9


def test_the_released_notebook() -> None:
    specs = by_key(find_preset("released", GREY, 10))
    for key in ("bim-eps/10", "pgd-10", "mim-10"):
        settings = specs[key].settings
        assert (settings["steps"], settings["step_size"], settings["per_epsilon"]) == (
            10,
            0.1,
            True,
        )
    spsa = specs["spsa-10"].settings
    assert (spsa["steps"], spsa["samples"], spsa["loss"]) == (10, 128, "margin")
    assert all(spec.source == "released notebook" for spec in specs.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_one_that_its_attack_takes(name: str, kind: str) -> None:
    preset = find_preset(name, *KINDS[kind])
    keys = [spec.key for spec in preset.specs]
    assert len(set(keys)) == len(keys)
    for spec in preset.specs:
        inspect.signature(ATTACKS[spec.attack].run).bind(None, **spec.settings)
        assert spec.epsilons or not spec.has_budget
        assert spec.source
    # What a source leaves open is said.
    assert (name == "strong") == (not preset.assumptions)


def test_every_attack_names_its_paper() -> None:
    for name, entry in ATTACKS.items():
        doc = inspect.getdoc(entry.run) or ""
        assert name == "random-noise" or any(year in doc for year in ("20", "19")), name


def test_attacks_are_picked_by_name_from_any_preset() -> None:
    strong = find_preset("strong", GREY, 10)
    picked = pick(["pgd", "apgd-ce"], strong, GREY, 10)
    assert [spec.key for spec in picked.specs] == ["pgd", "apgd-ce"]
    assert picked.cumulative
    with pytest.raises(ValueError, match=r"attacks must be some of .*; got pdg"):
        pick(["pdg"], strong, GREY, 10)
    with pytest.raises(ValueError, match="different ones"):
        pick(["pgd", "pgd"], strong, GREY, 10)
    with pytest.raises(ValueError, match="must be one of strong, paper, released; got weak"):
        find_preset("weak", GREY, 10)
