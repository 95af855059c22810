"""The document of a report: everything that the page and the CSV are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..paper import paper_numbers
from .rows import Document, Run

FORMAT = "pclc-report-1"


def document(runs: Sequence[Run], environment: Mapping[str, Any]) -> Document:
    """Put measured runs together; those whose configuration differs only by the seed are a group.

    Each run has a ``key``, which only the runs of its group share, and an ``about``, which they
    share too.
    """
    groups: dict[str, dict[str, Any]] = {}
    named = []
    for run in runs:
        key, about = run["key"], run["about"]
        members = [other["id"] for other in runs if other["key"] == key]
        group = groups.setdefault(
            key, {"name": _group_name(members), "about": about, "runs": members}
        )
        kept = {k: v for k, v in run.items() if k not in ("key", "about")}
        named.append({**kept, "group": group["name"]})
    data = {run["data"].get("set") for run in runs}
    return {
        "format": FORMAT,
        "title": _title(named),
        "environment": dict(environment),
        "groups": list(groups.values()),
        "runs": named,
        "paper": [
            n._asdict() for n in paper_numbers() if n.data in data or n.quantity == "prob_gap"
        ],
    }


def _group_name(members: Sequence[str]) -> str:
    """What the names of the runs have in common: runs/mnist-ce of runs/mnist-ce/seed-0."""
    if len(members) == 1:
        return members[0]
    parents = {str(Path(member).parent) for member in members}
    (parent, *others) = parents
    if not others and parent != ".":
        return f"{parent}, {len(members)} seeds"
    return ", ".join(members)


def _title(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        (run,) = runs
        name: str = run["id"]
        return name
    names = dict.fromkeys(run["data"].get("set") or run["data"].get("name") for run in runs)
    return f"{len(runs)} models: {', '.join(Path(str(name)).name for name in names)}"


def identifiers(folders: Sequence[Path]) -> list[str]:
    """Short names of the runs: their paths without what all of these have in common."""
    parts = [folder.resolve().parts for folder in folders]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]
