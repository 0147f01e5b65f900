"""What an install brings: a small core, bounds with reasons, and all that the code imports."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from embedlake.extras import EXTRAS
from tests.requirements import (
    ORCHESTRATOR,
    OURS,
    ROOT,
    brought_by,
    declared,
    modules_outside_the_core,
    names,
)

LEFT_OUT_OF_THE_LOCK = frozenset({"umap"})
"""Extras that nothing of ours needs and that are large: their reasons stand beside them."""
LOCK = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.M
    )
}
EVERY_EXTRA = sorted(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)
TRITON_OF_TORCH = {"2.13.0": "3.7.1"}
"""What torch's published wheels for Linux require exactly. Its CPU build requires none, so that on
a machine without a GPU nobody would notice another."""
UNDECLARED = {
    "pandas",  # for ``Hits.to_pandas`` alone: who calls it has it
    "pydantic-core",  # a part of pydantic
    "triton",  # comes with torch for CUDA
}


@pytest.mark.slow
def test_core_brings_no_orchestrator_and_no_pictures() -> None:
    core = brought_by(declared())
    assert {"torch", "pylance", "botocore"} <= core
    assert not core & ORCHESTRATOR
    assert brought_by(declared("run")) >= ORCHESTRATOR


@pytest.mark.slow
def test_modules_of_extras_are_outside_the_core() -> None:
    brought_by_others_too = {"rich"}  # by huggingface-hub's command line
    assert EXTRAS.keys() - brought_by_others_too <= modules_outside_the_core()


def test_upper_bound_and_exact_version_have_a_reason_beside_them() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bounded = [line for line in lines if re.match(r'\s*"[\w.\[\],-]+[^"]*(<|==)\d', line)]
    assert len(bounded) >= 8
    assert [line for line in bounded if "#" not in line] == []


def test_lock_has_a_version_that_fits_of_all_that_is_declared() -> None:
    for extra in (None, *sorted({*EVERY_EXTRA} - LEFT_OUT_OF_THE_LOCK)):
        for requirement in declared(extra):
            name = canonicalize_name(requirement.name)
            assert name == "embedlake" or requirement.specifier.contains(LOCK[name]), requirement


def test_lock_has_the_triton_of_its_torch() -> None:
    assert LOCK["triton"] == TRITON_OF_TORCH[LOCK["torch"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (["embedding_core"], []),
        (["embedlake", "flows"], ["run", "otel", "langchain", "llama-index"]),
        (["tests", "tools", "examples"], EVERY_EXTRA),
    ],
)
def test_what_the_code_imports_is_declared(folders: list[str], extras: list[str]) -> None:
    requirements = [requirement for extra in (None, *extras) for requirement in declared(extra)]
    allowed = names(requirements) | UNDECLARED
    if not extras:  # each is imported where it is needed, and its lack is explained
        allowed |= {canonicalize_name(module) for module in EXTRAS}
    distributions = packages_distributions()
    undeclared = {
        module
        for folder in folders
        for module in imported_by(folder)
        if module in distributions.keys() - OURS
        and allowed.isdisjoint(map(canonicalize_name, distributions[module]))
    }
    assert undeclared == set()


def imported_by(folder: str) -> set[str]:
    """Top-level modules that the code of a folder imports, at any place."""
    modules: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules
