"""attacks.json and adversarial.safetensors: a result on the disk."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load as safetensors_tensors
from safetensors.torch import save as safetensors_bytes

from ..files import atomic_file, write_atomically
from .result import FORMAT, Adversarial, Result, Share

RESULT, IMAGES = "attacks.json", "adversarial.safetensors"


def save_result(folder: Path, result: Result) -> list[Path]:
    """Write both files, each whole or not at all; return their paths."""
    assert result.adversarial is not None
    tensors = {name: tensor.contiguous() for name, tensor in result.adversarial._asdict().items()}
    with atomic_file(folder / IMAGES) as file:
        file.write(safetensors_bytes(tensors, {"format": FORMAT}))
    write_atomically(folder / RESULT, json.dumps(to_json(result), allow_nan=False) + "\n")
    return [folder / RESULT, folder / IMAGES]


def load_result(folder: Path) -> Result:
    """Read both files of a folder; ``adversarial`` is None where the second is not there.

    Raises:
        ValueError: one cannot be read, is damaged or of another format, or is not of the same
            evaluation as the other; the message names it.
    """
    path = folder / RESULT
    try:
        result = from_json(json.loads(path.read_text(encoding="utf-8")))
        correct, least = result.images.correct, result.minimum_epsilon()
        fooled = [(i, e) for i, e in enumerate(least) if e is not None and i in correct]
        path = folder / IMAGES
        if not path.exists():
            return result
        kept = Adversarial(**safetensors_tensors(path.read_bytes()))
        positions = zip(kept.position.tolist(), kept.epsilon.tolist(), strict=True)
        if list(positions) != fooled:
            raise ValueError(f"its images are not those of the {RESULT} beside it")
        return dataclasses.replace(result, adversarial=kept)
    except (OSError, ValueError, SafetensorError, TypeError, IndexError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def to_json(result: Result) -> dict[str, Any]:
    """The fields, and for people and other programs a summary that is not read back."""
    fields = dataclasses.asdict(dataclasses.replace(result, adversarial=None))
    del fields["adversarial"]  # has a file of its own
    worst = [{"epsilon": e, **_share(result.worst_case(e))} for e in result.epsilons]
    summary = {"clean": _share(result.clean), "worst_case": worst}
    return {"format": FORMAT, "summary": summary, **_plain(fields)}


def from_json(values: object) -> Result:
    """The inverse of ``to_json``; raises ValueError for anything else."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"it is not of the format {FORMAT}")
    try:
        result: Result = _typed(Result, values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a field is missing or of another type: {error}") from error
    return result


def _share(share: Share) -> dict[str, Any]:
    return {**share._asdict(), "accuracy": share.accuracy, "wilson_95": list(share.wilson_95)}


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinities: they become null."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(kind: Any, value: Any) -> Any:
    """Build dataclasses, and lists of them, out of what JSON has."""
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if not isinstance(value, list):
            raise TypeError(f"a list was expected, got {value!r:.40}")
        if dataclasses.is_dataclass(item):
            return [_typed(item, v) for v in value]
        if set(map(type, value)) <= _types(item):
            return value
    elif dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name != "adversarial"]
        return kind(**{name: _typed(hints[name], value[name]) for name in names})  # type: ignore[operator]
    elif type(value) in _types(kind):
        return value
    raise TypeError(f"{kind} was expected, got {value!r:.40}")


def _types(kind: Any) -> set[type]:
    """Which types of JSON a field may have; null stands for the numbers that JSON lacks."""
    if kind is float:
        return {int, float, type(None)}
    if get_origin(kind) in (Union, UnionType):
        return set().union(*map(_types, get_args(kind)))
    if get_origin(kind) is Literal:
        return set(map(type, get_args(kind)))
    return {get_origin(kind) or kind}
