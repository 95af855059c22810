"""The command line: a table of commands, each a frozen dataclass that tyro parses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tyro

from .attack_config import AttackConfig
from .config import DigitsExperiment
from .doctor_config import DoctorConfig
from .errors import RunError
from .report_config import ReportConfig
from .train_config import TrainConfig


class Configuration(Protocol):
    """A frozen dataclass with the options of a command."""

    def check(self) -> None:
        """Raise ValueError for the first value that makes no sense."""


class Command(NamedTuple):
    """What a command takes, and the function of this package that runs it."""

    configuration: type[Configuration]
    module: str  # imported when it is called: --help should not wait for what training needs
    function: str

    def load(self) -> Callable[[Any, Sequence[str]], None]:
        """Import the function; it takes a checked configuration and the words of the command."""
        module = importlib.import_module(f".{self.module}", __package__)
        function: Callable[[Any, Sequence[str]], None] = getattr(module, self.function)
        return function


_COMMANDS = {
    "train": Command(TrainConfig, "train", "train"),
    "attack": Command(AttackConfig, "attack", "attack"),
    "report": Command(ReportConfig, "report.command", "report"),
    "reproduce digits": Command(DigitsExperiment, "reproduce", "reproduce_digits"),
    "doctor": Command(DoctorConfig, "doctor", "doctor"),
}


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; return the exit code: 2 for bad input, 1 for a failed run."""
    given = list(arguments)
    name = next((n for n in _COMMANDS if given[: len(n.split())] == n.split()), None)
    if name is None:
        return _no_command(given)
    command = _COMMANDS[name]
    config = tyro.cli(
        command.configuration,
        prog=f"pclc {name}",
        args=given[len(name.split()) :],
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        config.check()
    except (TypeError, ValueError) as error:
        return _fail(error, code=2)
    try:
        command.load()(config, arguments)
    except RunError as error:
        return _fail(error, code=error.code)
    except KeyboardInterrupt:
        return _fail("interrupted, nothing new was saved", code=130)
    return 0


def _no_command(arguments: Sequence[str]) -> int:
    if arguments and not {"-h", "--help"} & set(arguments):
        names = ", ".join(_COMMANDS)
        return _fail(f"the command must be one of: {names}; got: {' '.join(arguments)}", code=2)
    print("usage: pclc COMMAND [OPTIONS]\n\nTrain with the PC-LC loss and attack what came out.\n")
    width = max(map(len, _COMMANDS))
    for name, command in _COMMANDS.items():
        print(f"  {name:<{width}}  {(command.configuration.__doc__ or '').splitlines()[0]}")
    print("\npclc COMMAND --help lists the options of a command.")
    return 0


def _fail(reason: object, *, code: int) -> int:
    print(f"pclc: {reason}", file=sys.stderr)
    return code
