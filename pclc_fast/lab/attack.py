"""``pclc attack``: from a run, or any model, to attacks.json and adversarial.safetensors."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .attack_config import AttackConfig
from .attack_subject import Subject, run_folders, subject_of_factory, subject_of_run, substitute_of
from .attack_table import headline, result_table
from .attacks import Preset, Result, evaluate, save_result
from .attacks.pieces import PiecesInFolder
from .attacks.presets import find_preset, pick
from .attacks.result_file import RESULT
from .environment import environment, git_commit, versions
from .errors import RunError
from .progress import Progress


class Shown:
    """An evaluation as a progress bar, and a line for each attack that is finished."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def begin(self, total: int) -> None:
        self._progress = Progress(self._console, total=total)
        self._progress.__enter__()

    def advance(self, images: int, doing: str) -> None:
        assert self._progress is not None
        self._progress.advance(images, doing)

    def finished(self, line: str) -> None:
        assert self._progress is not None
        self._progress.finished(line)

    def end(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


def attack(config: AttackConfig, arguments: Sequence[str]) -> None:
    """Evaluate every model of a checked configuration; ``arguments`` are those of ``pclc``.

    Raises:
        RunError: a file, the data, the model or the device cannot be used.
    """
    console = Console(emoji=False)
    for subject in _subjects(config):
        out = _out(config, subject)
        result = _evaluated(config, subject, out, Console(stderr=True, emoji=False))
        where = {**environment(arguments), "commit": git_commit(), "packages": versions()}
        result = dataclasses.replace(
            result, model=subject.model(result), data=subject.data(result), environment=where
        )
        paths = save_result(out, result)
        PiecesInFolder(out).remove()
        if result.epsilons:
            console.print("", result_table(result), sep="\n")
        for line in headline(result):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        for path in paths:
            console.print(f"saved {path}", markup=False, highlight=False, soft_wrap=True)


def _subjects(config: AttackConfig) -> list[Subject]:
    if config.model is not None:
        return [subject_of_factory(config)]
    assert config.run is not None
    return [subject_of_run(folder, config) for folder in run_folders(config.run)]


def _out(config: AttackConfig, subject: Subject) -> Path:
    """The folder of a result; raises RunError where there is one already."""
    name = config.preset if config.norm == "Linf" else f"{config.preset}-{config.norm}"
    out = subject.folder / "attacks" / name if config.out is None else config.out
    if config.out is not None and config.run is not None and subject.folder != config.run:
        out = config.out / subject.folder.name  # a seed of several
    if (out / RESULT).exists() and not config.overwrite:
        raise RunError(
            f"{out / RESULT} is there already: choose another folder by --out, or say --overwrite",
            code=2,
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out} cannot be made: {error.strerror}") from error
    return out


def _evaluated(config: AttackConfig, subject: Subject, out: Path, console: Console) -> Result:
    pieces, shown = PiecesInFolder(out), Shown(console)
    number = pieces.count()
    console.print(
        f"{subject.name}: {len(subject.images)} images of {subject.data_name}"
        + (f", going on from {number} finished parts" if number else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    substitute = None if config.substitute is None else substitute_of(config.substitute, subject)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: console.print(
            f"warning: {message}", markup=False, highlight=False, soft_wrap=True
        )
        try:
            return evaluate(
                subject.network,
                subject.images,
                subject.labels,
                eps=config.epsilon or None,
                norm=config.norm,
                preset=_preset(config, subject),
                seed=config.seed,
                batch_size=config.batch_size,
                substitute=substitute,
                pieces=pieces,
                watch=shown,
            )
        except (TypeError, ValueError) as error:
            raise RunError(str(error), code=2) from error
        except KeyboardInterrupt as error:
            raise RunError(
                f"interrupted; what is finished is in {pieces.path}, and the same command goes on",
                code=130,
            ) from error
        finally:
            shown.end()


def _preset(config: AttackConfig, subject: Subject) -> Preset:
    shape = tuple(subject.images.shape[1:])
    try:
        preset = find_preset(config.preset, shape, subject.classes)
        if config.attacks:
            preset = pick(config.attacks, preset, shape, subject.classes)
    except ValueError as error:
        raise RunError(str(error), code=2) from error
    if config.individual:
        return dataclasses.replace(preset, cumulative=False, carry=False)
    return preset
