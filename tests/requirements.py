"""Requirements of the project as declared, and all that they bring as installed here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ORCHESTRATOR = frozenset({"prefect", "prefect-ray", "ray", "matplotlib"})
"""What the core leaves to the extra ``run``, above all."""
OURS = frozenset({"embedding_core", "embedlake", "flows"})


@cache
def declared(extra: str | None = None) -> tuple[Requirement, ...]:
    """Requirements of the core, or those of an extra alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return tuple(map(Requirement, lines))


def names(requirements: Iterable[Requirement]) -> set[str]:
    """Canonical names of distributions."""
    return {canonicalize_name(requirement.name) for requirement in requirements}


def brought_by(requirements: Iterable[Requirement]) -> set[str]:
    """Canonical names of the distributions that an install of these requirements brings."""
    todo, seen = list(requirements), set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += _required_by(name, extra)
    return {name for name, _ in seen}


def _required_by(name: str, extra: str) -> list[Requirement]:
    try:
        required = map(Requirement, requires(name) or ())
    except PackageNotFoundError:  # nothing that this platform needs
        return []
    return [one for one in required if one.marker is None or one.marker.evaluate({"extra": extra})]


def modules_outside_the_core() -> set[str]:
    """Top-level modules installed here that an install of the core alone would not bring."""
    core = brought_by(declared())
    return {
        module
        for module, distributions in packages_distributions().items()
        if core.isdisjoint(map(canonicalize_name, distributions))
    } - OURS
