"""The command line: a table of commands, each a frozen dataclass that tyro parses."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from .config import DigitsExperiment
from .reproduce import reproduce_digits

# The words of a command: its configuration, and what runs it.
_COMMANDS = {"reproduce digits": (DigitsExperiment, reproduce_digits)}


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; return the exit code: 2 for bad input, 1 for a failed run."""
    given = list(arguments)
    name = next((n for n in _COMMANDS if given[: len(n.split())] == n.split()), None)
    if name is None:
        return _no_command(given)
    configuration, function = _COMMANDS[name]
    config = tyro.cli(configuration, prog=f"pclc {name}", args=given[len(name.split()) :])
    try:
        config.check()
    except ValueError as error:
        return _fail(error, code=2)
    try:
        function(config, arguments)
    except FloatingPointError as error:
        return _fail(error, code=1)
    except KeyboardInterrupt:
        return _fail("interrupted, nothing was saved", code=130)
    return 0


def _no_command(arguments: Sequence[str]) -> int:
    if arguments and not {"-h", "--help"} & set(arguments):
        names = ", ".join(_COMMANDS)
        return _fail(f"the command must be one of: {names}; got: {' '.join(arguments)}", code=2)
    print("usage: pclc COMMAND [OPTIONS]\n\nTrain with the PC-LC loss and attack what came out.\n")
    for name, (configuration, _) in _COMMANDS.items():
        print(f"  {name}  {(configuration.__doc__ or '').splitlines()[0]}")
    print("\npclc COMMAND --help lists the options of a command.")
    return 0


def _fail(reason: object, *, code: int) -> int:
    print(f"pclc: {reason}", file=sys.stderr)
    return code
