"""Several seeds in one command: begun all or none, stopped and gone on with together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from train_command import RUN, Stopper, assert_same_result, rows, train

from pclc_fast.lab.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_folder")


def test_all_seeds_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--epochs", "1", "--seeds", "2", "10", "--out", "undisturbed") == 0
    with monkeypatch.context() as patch:
        Stopper(patch, after=3)
        assert (
            train("--epochs", "1", "--seeds", "2", "10", "--out", "it's", "--warm-ups", "x") == 130
        )
    assert """--resume 'it'"'"'s'""" in capsys.readouterr().err
    assert train("--resume", "it's") == 0
    for seed in ("seed-2", "seed-10"):
        assert_same_result(Path("it's", seed), Path("undisturbed", seed))


@pytest.mark.parametrize("made", [0, 1])
def test_seeds_whose_folders_were_not_all_made(
    made: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create, left = RunFolder.create, [made]

    def cut_short(*arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        create(*arguments)

    command = ["--epochs", "1", "--seeds", "2", "10", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "create", cut_short)
        assert train(*command) == 130
    assert capsys.readouterr().err.endswith(f"Go on by pclc train --resume {RUN}\n")
    assert train(*command) == 2
    assert f"holds a run already: go on with it by pclc train --resume {RUN}," in (
        capsys.readouterr().err
    )
    assert train("--resume", str(RUN)) == 0
    assert sorted(path.name for path in RUN.iterdir()) == ["seed-0", "seed-10", "seed-2"]
    for seed in (0, 2, 10):
        folder = RUN / f"seed-{seed}"
        assert rows(folder)[-1]["epoch"] == 2
        config = RunFolder(folder).config()
        assert (config.seeds, config.out) == ((seed,), folder)


def test_seeds_begin_all_or_none(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, "seeds/seed-0")
    assert train("--epochs", "1", "--seeds", "7", "0", "--out", "seeds") == 2
    assert "seeds/seed-0 holds a run already: go on with it by pclc train --resume seeds," in (
        capsys.readouterr().err
    )
    assert [path.name for path in Path("seeds").iterdir()] == ["seed-0"]
