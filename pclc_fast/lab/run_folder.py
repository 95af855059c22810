"""The folder of a run: config.json, env.json, state.pt, metrics.jsonl and model.safetensors.

state.pt is the truth: it holds everything, and metrics.jsonl is rewritten from it. So whenever the
process is killed, what is there belongs together. state.previous.pt is the state before it.
model.safetensors comes last, when the run is finished.

The folder of several seeds has a folder for each, and until all of these are there,
seeds-to-begin.json.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from .checkpoint import DamagedError, State, read_state, write_state
from .errors import RunError
from .files import atomic_file, write_atomically
from .train_config import TrainConfig

_CONFIG, _ENV, _METRICS, _MODEL = "config.json", "env.json", "metrics.jsonl", "model.safetensors"
_SEEDS, _PLAN = "seed-*", "seeds-to-begin.json"
_STATE, _PREVIOUS = "state.pt", "state.previous.pt"


class RunFolder:
    """Reads and writes one run. Every error is a RunError that says what still stands.

    ``whole``: the folder that goes on with this run and those that were begun along with it.
    """

    def __init__(self, path: Path, whole: Path | None = None) -> None:
        self.path, self.whole = path, path if whole is None else whole

    def check_is_free(self) -> None:
        """Raise RunError where a run is there already."""
        for folder in (self.path, self.path.parent):
            # A folder of seeds is not a run as well, nor the other way round.
            if _is_taken(folder) or holds_runs(self.path):
                whole = folder if self.whole == self.path else self.whole
                raise RunError(
                    f"{folder} holds a run already: go on with it by pclc train --resume "
                    f"{shlex.quote(str(whole))}, or choose another folder by --out",
                    code=2,
                )

    def is_begun(self) -> bool:
        """Whether ``create`` was done."""
        return (self.path / _CONFIG).exists()

    def create(self, config: TrainConfig, environment: dict[str, Any]) -> None:
        """Begin a run."""
        with self._writing(_CONFIG):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / _ENV, _json(environment))
            write_atomically(self.path / _CONFIG, _json(config.to_json()))  # last: now it is a run

    def config(self) -> TrainConfig:
        """The configuration of the run."""
        (config,) = _read_configs(self.path / _CONFIG, one=True)
        return config

    def environment(self) -> dict[str, Any]:
        """What the run began with; empty where that cannot be read."""
        try:
            found = json.loads((self.path / _ENV).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def state_bytes(self) -> bytes | None:
        """The last good state as ``read_state`` takes it; None where no epoch was finished.

        Raises:
            RunError: state.pt is damaged.
        """
        for leftover in self.path.glob(".*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
        for name in (_STATE, _PREVIOUS):
            content = self._read(name)
            if content is not None:
                self._check(name, content)
                return content
        return None

    def save(self, state: State) -> None:
        """Put ``state`` in the place of the last one, which is kept until the next."""
        with self._writing(_STATE):
            write_state(self.path / _STATE, state, keep=self.path / _PREVIOUS)
        self.write_metrics(state)

    def write_metrics(self, state: State | None) -> None:
        """Have metrics.jsonl hold what ``state`` holds: a line for each finished epoch."""
        rows = state.metrics if state is not None else []
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with self._writing(_METRICS):
            write_atomically(self.path / _METRICS, text)

    def finish(self, weights: dict[str, Tensor], about: dict[str, str]) -> Path:
        """Write the weights of a finished run; return their file."""
        content = safetensors_bytes({k: v.contiguous() for k, v in weights.items()}, about)
        with self._writing(_MODEL), atomic_file(self.path / _MODEL) as file:
            file.write(content)
        return self.path / _MODEL

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be read: {error.strerror}") from error

    def _check(self, name: str, content: bytes) -> None:
        try:
            read_state(content)
        except DamagedError as error:
            raise RunError(
                f"{self.path / name} is damaged ({error}). {self._what_is_left(name)}"
            ) from error

    def _what_is_left(self, damaged: str) -> str:
        advice = f"Remove it to begin {self.path} again from its first epoch."
        previous = self._read(_PREVIOUS)
        if damaged == _PREVIOUS or previous is None:
            return advice
        try:
            state = read_state(previous)
        except DamagedError:
            return f"{_PREVIOUS} is damaged too: remove both to begin again."
        return (
            f"The state before it, after epoch {state.epoch}, is good: "
            f"remove {_STATE} to go on from there."
        )

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            there = (self.path / _STATE).exists()
            raise RunError(
                f"{self.path / name} cannot be written: {error.strerror or error}. "
                + ("The last saved state is intact: go on " if there else "Begin again ")
                + (
                    f"by pclc train --resume {shlex.quote(str(self.whole))} "
                    if there or _is_taken(self.path) or _is_taken(self.whole)
                    else ""
                )
                + "once that is settled"
            ) from error


def holds_runs(folder: Path) -> bool:
    """Whether ``find_runs`` finds any."""
    return _is_taken(folder) or any(folder.glob(f"{_SEEDS}/{_CONFIG}"))


def seed_folder(folder: Path, seed: int) -> RunFolder:
    """One of several runs in ``folder``."""
    return RunFolder(folder / f"seed-{seed}", folder)


def find_runs(folder: Path) -> list[tuple[RunFolder, TrainConfig]]:
    """The run in ``folder``, or the runs of its seeds in their order; with their configurations.

    Those that have no folder yet, since making the folders was cut short, are among them.

    Raises:
        RunError: there is none, or a configuration cannot be used.
    """
    if (folder / _CONFIG).exists():
        return [(RunFolder(folder), RunFolder(folder).config())]
    begun = [RunFolder(path.parent, folder) for path in folder.glob(f"{_SEEDS}/{_CONFIG}")]
    found = {run.path: (run, run.config()) for run in begun}
    if (folder / _PLAN).exists():
        for config in _read_configs(folder / _PLAN):
            run = seed_folder(folder, *config.seeds)
            found.setdefault(run.path, (run, dataclasses.replace(config, out=run.path)))
    if not found:
        raise RunError(f"--resume must name the folder of a run; {folder} has no {_CONFIG}", code=2)
    return [found[path] for path in sorted(found, key=_seed_number)]


def write_plan(folder: Path, config: TrainConfig) -> None:
    """Have ``find_runs`` know the runs of all seeds before any has a folder; raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _PLAN, _json(config.to_json()))
    except OSError as error:
        raise RunError(
            f"{folder / _PLAN} cannot be written: {error.strerror or error}. "
            "Begin again once that is settled"
        ) from error


def remove_plan(folder: Path) -> None:
    """Do so once every run has its folder."""
    (folder / _PLAN).unlink(missing_ok=True)


def _is_taken(folder: Path) -> bool:
    """Whether it is the folder of a run, or of several that are being begun."""
    return (folder / _CONFIG).exists() or (folder / _PLAN).exists()


def _read_configs(path: Path, *, one: bool = False) -> list[TrainConfig]:
    """A configuration for each of the seeds in a file, which must be one if ``one`` says so."""
    try:
        config = TrainConfig.from_json(json.loads(path.read_text(encoding="utf-8")))
        seeds = [config.seeds] if one else [(seed,) for seed in config.seeds]
        configs = [dataclasses.replace(config, seeds=seed) for seed in seeds]
        for each in configs:
            each.check_is_of_a_run()
    except (OSError, ValueError) as error:  # JSON and Unicode errors are ValueErrors
        raise RunError(f"{path} cannot be used: {error}", code=2) from error
    return configs


def _seed_number(path: Path) -> tuple[int, str]:
    number = path.name.removeprefix("seed-")
    return (int(number) if number.isdigit() else -1, path.name)


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
