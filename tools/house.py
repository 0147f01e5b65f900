"""The rules of the house that no linter has: names that are nouns, folders that can be seen whole.

    python -m tools.house              break a rule: it is printed, and the exit code is 1
    python -m tools.house --measure    sizes, names, cycles and duplicates, as JSON

The rules are explained in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import io
import json
import re
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

PACKAGES = ("embedding_core", "embedlake", "flows")
TESTS = ("tests",)
BESIDE = ("benchmarks", "examples", "tools")
"""Code that no wheel carries."""
NEVER_A_NAME = frozenset({"one", "found", "held", "wanted", "given", "place", "known"})
PRONOUNS = NEVER_A_NAME | {
    "part", "some", "own", "mine", "said", "asked", "told", "gone", "come", "taken", "both",
    "there", "again", "what", "which", "whole", "several", "it", "this", "that", "those", "these",
}  # fmt: skip
MOST_PRONOUNS = 1.0
"""Bindings of a pronoun per 1,000 lines."""
MOST_LINES = 450
"""Lines of a module."""
MOST_FILES = 14
"""Modules of one folder, ``__init__`` counted."""
LONG_SLEEP_SECONDS = 1.0
"""A test that sleeps for so long waits for the clock."""
PRIVATE = re.compile(r"_[a-zA-Z](\w*[a-zA-Z0-9])?")
MOST_NAMESAKES = 2
"""Modules of one file name, in all folders."""
DIALECT = re.compile(r"\b(of its own|of their own|of our own|anew|is none|are none|by now)\b")
BEGINS_WITHOUT_SUBJECT = ("Of", "By", "With", "At", "As", "Those", "Likewise")


@dataclass(frozen=True)
class Module:
    """A module of the packages."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def n_lines(self) -> int:
        """Lines of the file."""
        return len(self.text.splitlines())


def modules(root: Path, packages: Sequence[str] = PACKAGES) -> dict[str, Module]:
    """Every module of the packages below ``root`` by its dotted name."""
    read = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text()
            read[name] = Module(name, path.relative_to(root), text, ast.parse(text))
    return read


def broken_rules(code: dict[str, Module]) -> Iterator[str]:
    """A line for every rule that is broken, with its file."""
    bindings = [(module, name, line) for module in code.values() for name, line in _names(module)]
    for module, name, line in bindings:
        if name in NEVER_A_NAME:
            yield f"{module.path}:{line}: the name {name!r} says nothing; call it by its noun"
    rate = _rate(sum(name in PRONOUNS for _, name, _ in bindings), code)
    if rate > MOST_PRONOUNS:
        yield f"{rate} names per 1,000 lines are pronouns; at most {MOST_PRONOUNS}"
    for folder, count in Counter(module.path.parent for module in code.values()).items():
        if count > MOST_FILES:
            yield f"{folder}: {count} modules; at most {MOST_FILES}, make a room"
    stems = Counter(module.path.stem for module in code.values())
    for stem, count in stems.items():
        if stem != "__init__" and count > MOST_NAMESAKES:
            yield f"{count} modules are called {stem}.py; at most {MOST_NAMESAKES}"
    yield from (f"{name}: a name of the package hides its module" for name in _shadows(code))
    for module in code.values():
        for line, text in _prose(module):
            yield f"{module.path}:{line}: {text}"


def long_modules(code: dict[str, Module]) -> Iterator[str]:
    """A line for every module that is too long."""
    for module in code.values():
        if module.n_lines > MOST_LINES:
            yield f"{module.path}: {module.n_lines} lines; at most {MOST_LINES}, split it by noun"


def broken_rules_of_tests(tests: dict[str, Module], code: dict[str, Module]) -> Iterator[str]:
    """A line for every use of a private name of ``code``, and for every long sleep."""
    private = {name for module in code.values() for name in _private_names(module)}
    for module in tests.values():
        for node in ast.walk(module.tree):
            where = f"{module.path}:{getattr(node, 'lineno', 0)}"
            for name in private.intersection(_names_used(node)):
                yield (
                    f"{where}: {name} is private; test what is seen from outside, or make it a "
                    "parameter"
                )
            if (seconds := _seconds_slept(node)) >= LONG_SLEEP_SECONDS:
                yield f"{where}: sleeps {seconds:g} s; wait for what happens"


def measured(code: dict[str, Module]) -> dict[str, object]:
    """What the house looks like in figures."""
    sizes = sorted((module.n_lines, module.name) for module in code.values())
    functions = sorted(
        ((node.end_lineno or 0) - node.lineno + 1, f"{module.name}.{node.name}")
        for module in code.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef)
    )
    names = Counter(name for module in code.values() for name, _ in _names(module))
    return {
        "modules": len(sizes),
        "lines": sum(size for size, _ in sizes),
        "median and longest module": (statistics.median(size for size, _ in sizes), sizes[-1]),
        "functions": len(functions),
        "median and longest function": (functions[len(functions) // 2][0], functions[-1]),
        "names that say nothing": sum(names[name] for name in NEVER_A_NAME),
        "pronouns per 1,000 lines": _rate(sum(names[name] for name in PRONOUNS), code),
        "comment lines": sum(map(_comments, code.values())),
        "prose to rewrite": sum(len(list(_prose(module))) for module in code.values()),
        "largest folders": Counter(str(module.path.parent) for module in code.values()).most_common(
            3
        ),
        "duplicate pairs": [f"{a} = {b}" for a, b in _duplicates(code)],
    }


def _rate(count: int, code: dict[str, Module]) -> float:
    return round(1000 * count / sum(module.n_lines for module in code.values()), 2)


def _names(module: Module) -> Iterator[tuple[str, int]]:
    """Variables that are bound: assigned, looped over, taken as arguments or from ``with``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def _private_names(module: Module) -> Iterator[str]:
    """Functions, classes, attributes and variables whose name begins with one underscore."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        else:
            continue
        if PRIVATE.fullmatch(name):
            yield name


def _names_used(node: ast.AST) -> Iterator[str]:
    """Names that a node takes from something else: ``thing.name``, an import, ``setattr``."""
    if isinstance(node, ast.Attribute) and not _is_self(node.value):
        yield node.attr
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if called in ("setattr", "delattr", "getattr"):
            texts = (arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant))
            yield from (str(text).rpartition(".")[2] for text in texts)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _seconds_slept(node: ast.AST) -> float:
    """How long a call of ``sleep`` with a number takes; 0 for any other node."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("sleep"):
        return 0.0
    seconds = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    return max((float(n) for n in seconds if isinstance(n, int | float)), default=0.0)


def _shadows(code: dict[str, Module]) -> Iterator[str]:
    for module in code.values():
        if module.path.name == "__init__.py":
            for node in module.tree.body:
                if isinstance(node, ast.ImportFrom):
                    bound = [alias.asname or alias.name for alias in node.names]
                elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                    bound = [node.name]
                else:
                    continue
                yield from (
                    f"{module.name}.{name}" for name in bound if f"{module.name}.{name}" in code
                )


def _prose(module: Module) -> Iterator[tuple[int, str]]:
    """Docstrings that a reader has to read twice."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if not isinstance(node.value.value, str):
            continue
        text = node.value.value.strip()
        if text.split(" ", 1)[0] in BEGINS_WITHOUT_SUBJECT:
            yield node.lineno, f"begin with the subject, not with {text.split(' ', 1)[0]!r}"
        for phrase in DIALECT.findall(text):
            yield node.lineno, f"{phrase!r} is no plain English"


def _comments(module: Module) -> int:
    """Comments that have a line to themselves."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return sum(
        token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
        for token in tokens
    )


def _duplicates(code: dict[str, Module]) -> Iterator[tuple[str, str]]:
    """Functions of six lines or more that are alike but for their names."""
    shapes = []
    for module in code.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 5:
                kinds = [type(child).__name__ for child in ast.walk(node)]
                grams = {tuple(kinds[at : at + 6]) for at in range(len(kinds) - 5)}
                calls = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                shapes.append((f"{module.name}.{node.name}", grams, calls))
    for (a, a_grams, a_calls), (b, b_grams, b_calls) in combinations(shapes, 2):
        small, large = sorted((len(a_grams), len(b_grams)))
        if small * 4 < large * 3:
            continue
        alike = len(a_grams & b_grams) / len(a_grams | b_grams)
        if alike >= 0.75 and len(a_calls & b_calls) * 2 >= len(a_calls | b_calls) > 0:
            yield a, b


def main() -> int:
    """Print what is asked for; the exit code."""
    root = Path(__file__).resolve().parent.parent
    code = modules(root)
    if "--measure" in sys.argv:
        print(json.dumps(measured(code), indent=1))
        return 0
    problems = [
        *broken_rules(code),
        *long_modules(code | modules(root, BESIDE)),
        *broken_rules_of_tests(modules(root, TESTS), code),
    ]
    print("\n".join(problems) if problems else "the house is in order")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
