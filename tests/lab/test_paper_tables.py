"""The paper's numbers as package data: all are there, and they are the paper's."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pclc_fast.lab.paper import INTRODUCTION, PaperNumber, paper_numbers

PAPER = Path(__file__).parents[3] / "shared" / "paper.txt"
DATA = {
    "1": ("mnist", "kmnist", "fashion-mnist", "cifar10", "svhn"),
    "4": ("cifar100", "tiny-imagenet-200"),
    "5": ("mnist", "kmnist", "fashion-mnist"),
}


def of(**wanted: object) -> list[PaperNumber]:
    return [n for n in paper_numbers() if wanted.items() <= n._asdict().items()]


def test_every_cell_is_there_once() -> None:
    numbers = paper_numbers()
    # Table 1: 5 data sets, 2 losses, 14 rows; 2: 2, 3, 13; 3: 5, 2, 7; 4: 2, 3, 8;
    # 5: 3 of grey images with 4 columns and CIFAR-10 with 2, 5 rows.
    sizes = {"1": 140, "2": 78, "3": 70, "4": 48, "5": 70, INTRODUCTION: 4}
    assert Counter(n.table for n in numbers) == sizes
    assert len({n[:-1] for n in numbers}) == len(numbers)
    for table, names in DATA.items():
        assert set(names) <= {n.data for n in of(table=table)}
    assert all(0 <= n.value <= 100 for n in numbers)
    assert {n.epsilon for n in of(attack="clean")} == {n.epsilon for n in of(attack="cw")} == {None}
    assert {n.epsilon for n in of(table="1", data="svhn", attack="pgd")} == {0.04, 0.12, 0.2}


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("1", "mnist", "lenet5", "ce", "pgd", 0.1), 49.0),
        (("1", "mnist", "lenet5", "pclc", "mim", 0.3), 43.3),
        (("1", "svhn", "vgg13", "pclc", "cw", None), 36.2),
        (("2", "cifar10", "resnet56", "gce", "mim", 0.12), 13.1),
        (("3", "fashion-mnist", "lenet5", "ce", "spsa", 0.3), 4.3),
        (("4", "tiny-imagenet-200", "vgg13", "gce", "clean", None), 32.8),
        (("5", "mnist", "lenet5", "pclc+at", "bim", 0.3), 86.1),
        (("5", "fashion-mnist", "lenet5", "pclc", "cw", None), 21.8),
        (("5", "cifar10", "vgg13", "ce+at", "spsa", 0.3), 6.5),
        ((INTRODUCTION, "cifar100", "resnet56", "ce", "clean", None), 0.527),
        ((INTRODUCTION, "tiny-imagenet-200", "resnet56", "pclc", "clean", None), 0.231),
    ],
)
def test_cells_read_from_the_paper(cell: tuple[object, ...], value: float) -> None:
    assert [n.value for n in paper_numbers() if n[:6] == cell] == [value]


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not at hand")
@pytest.mark.parametrize("table", ["1", "2", "3", "4", "5"])
def test_each_table_of_the_paper_holds_these_numbers(table: str) -> None:
    before = PAPER.read_text(encoding="utf-8").split(f"\nTable {table}: ")[0]
    printed = re.sub("</?b>", "", before[before.rindex("\nAttacks\t") :])
    decimals = Counter(re.findall(r"\b\d+\.\d\b(?!\d)", printed))
    ours = Counter(f"{n.value:.1f}" for n in of(table=table))
    assert not ours - decimals
    assert set(decimals - ours) <= {"0.0", "0.1", "0.2", "0.3"}  # the column of parameters
