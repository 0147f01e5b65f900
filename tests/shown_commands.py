"""Commands that the pages show: each is read as a shell reads it, and held against the program that
it calls, without running it.

A program has a checker in ``CHECKERS``: the real parser of its command line, or the files, targets
and packages that the command names. ``ELSEWHERE`` are programs of the system, which nothing here
knows.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from functools import cache
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import click
import cyclopts
import pytest
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import TypeAdapter, ValidationError

from benchmarks.cases import run_cases
from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Resources
from embedding_core.server.answering.messages import (
    ComparisonMessage,
    FeedbackMessage,
    SearchMessage,
)
from embedlake.cli.main import cli
from embedlake.cli.options import pair
from embedlake.settings import Settings
from tests.pages import commands

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LANGUAGES = frozenset({"", "console", "text", "yaml", "json", "toml", "python", "py"})
"""Blocks without a language are commands; ``text`` is whatever nobody types."""
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
ENDS = frozenset({"|", "||", "&&", ";", "&"})
"""What stands between two commands of a line."""
KEYWORDS = frozenset({"while", "do", "done", "if", "then", "fi", "for"})
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
MAINS = {
    "experiments.faults": "experiments.faults.command",
    "experiments.fuzz": "experiments.fuzz.__main__",
    "experiments.machine": "experiments.machine.program",
    "experiments.peers": "experiments.peers.command",
}
"""Modules whose ``main`` a program calls that is a folder."""
ELSEWHERE = frozenset({
    "cd", "cat", "cp", "df", "echo", "find", "grep", "hf", "journalctl", "nvidia-smi", "read",
    "sed", "sort", "source", "timedatectl", "uvx",
})  # fmt: skip
COMPOSE = frozenset({"up", "down", "logs", "ps", "build", "restart", "stop"})
KUBECTL = frozenset({"apply", "delete", "describe", "get", "logs", "port-forward", "rollout"})


def fenced_commands(text: str) -> list[str]:
    """Every command line of a page's blocks, long ones joined."""
    typed = [command for command, _ in commands(text)]
    for _, language, body in FENCED.findall(text):
        if language == "":
            typed.extend(logical_lines(body))
    return typed


def inline_commands(text: str, programs: Sequence[str]) -> list[str]:
    """Code within sentences and tables that calls one of the programs."""
    prose = FENCED.sub("", text)
    return [span for span in SPAN.findall(prose) if span.partition(" ")[0] in programs]


def logical_lines(block: str) -> Iterator[str]:
    """The commands of a block: a line goes on after a backslash and inside quotes."""
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        try:
            if shlex.split(pending, comments=True):
                yield pending
        except ValueError:  # a quote is open
            continue
        pending = ""
    if pending:
        yield pending


def problems(line: str) -> list[str]:
    """What is wrong with a command line, in words; empty for one that would be taken."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    calls: list[list[str]] = [[]]
    for number, word in enumerate(words):
        if word in ENDS:
            calls.append([])
        elif not _is_redirection(words, number):
            calls[-1].append(word)
    return [problem for call in calls for problem in _problems_of_call(call)]


def _is_redirection(words: Sequence[str], number: int) -> bool:
    """Whether a word is ``>``, or the file after it."""
    before = words[number - 1] if number else "first"
    return set(words[number]) <= set("<>&") or set(before) <= set("<>")


def _problems_of_call(words: Sequence[str]) -> Iterator[str]:
    left = [word for word in words if word not in KEYWORDS]
    while left and (assigned := ASSIGNMENT.fullmatch(left[0])):
        yield from _variable_problems(assigned[1])
        left = left[1:]
    if not left:
        return
    if left[0] == "export":
        for word in left[1:]:
            yield from _variable_problems(word.partition("=")[0])
        return
    name = left[0] if "/" not in left[0] or Path(left[0]).suffix == ".sh" else Path(left[0]).name
    if name in CHECKERS:
        yield from CHECKERS[name](left[1:])
    elif name.endswith(".sh"):
        if not (ROOT / name).is_file():
            yield f"there is no script {name}"
    elif name not in ELSEWHERE:
        yield f"nothing here checks the program {name!r}: give it a checker in {__name__}"


def _variable_problems(name: str) -> Iterator[str]:
    """An unknown variable of embedlake's."""
    other = {"EMBEDLAKE_ENGINE_TOKEN", "EMBEDLAKE_DEMO_MODEL"}
    names = {f"EMBEDLAKE_{field.upper()}" for field in Settings.model_fields}
    names |= {f"EMBEDLAKE_RESOURCES__{field.upper()}" for field in Resources.model_fields}
    if name.startswith("EMBEDLAKE_") and name not in names | other:
        yield f"there is no setting {name}"


def _by_click(group: click.Command, words: Sequence[str]) -> Iterator[str]:
    """Parse with the program's own options and arguments; run nothing."""
    context, command, left = click.Context(group), group, list(words)
    while isinstance(command, click.Group):
        name = left.pop(0) if left else ""
        if name == "COMMAND":  # stands for any
            return
        chosen = command.get_command(context, name)
        if chosen is None:
            yield f"there is no command {name!r}"
            return
        command = chosen
    try:
        made = command.make_context(command.name, left)
        Resources().updated(dict(pair(change) for change in made.params.get("changes") or ()))
    except click.exceptions.Exit:  # --help and --version
        return
    except click.ClickException as error:
        yield error.format_message()
    except EmbedlakeError as error:
        yield str(error)


def _embedlake(words: Sequence[str]) -> Iterator[str]:
    yield from _by_click(cli, words)
    if words[:1] == ["embed"] and "--then" in words:
        _, written = pair(words[words.index("--then") + 1])
        yield from _by_click(cli, ["export", words[1], *shlex.split(written)])


def _ray(words: Sequence[str]) -> Iterator[str]:
    from ray.scripts.scripts import cli as ray_cli

    yield from _by_click(ray_cli, words)


@cache
def _prefect_app() -> cyclopts.App:
    """Prefect's command line; its package shows the function around it alone."""
    app: cyclopts.App = vars(import_module("prefect.cli._app"))["_app"]
    return app


def _prefect(words: Sequence[str]) -> Iterator[str]:
    left = [word for word in words if word != "--no-prompt"]  # an option before every command
    left = [str(UUID(int=0)) if word == "ID" else word for word in left]
    try:
        _prefect_app().parse_args(left, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        yield str(error)


def _make(words: Sequence[str]) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        if (variable := ASSIGNMENT.fullmatch(word)) is not None:
            if variable[1] not in makefile:
                yield f"the Makefile has no variable {variable[1]}"
        elif re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE) is None:
            yield f"the Makefile has no target {word!r}"


def _python(words: Sequence[str]) -> Iterator[str]:
    if words[0] == "-c":
        ast.parse(words[1])
        return
    is_module = words[0] == "-m"
    name, options = (words[1], words[2:]) if is_module else (words[0], words[1:])
    if is_module and name in ("venv", "pip"):
        yield from _pip(options) if name == "pip" else ()
        return
    path = ROOT / (f"{name.replace('.', '/')}.py" if is_module else name)
    if is_module and not path.is_file():
        path = path.with_suffix("") / "__main__.py"
    if not path.is_file():
        yield f"there is no program {name}"
        return
    module = name if is_module else name.removesuffix(".py").replace("/", ".")
    yield from _by_argparse(module, [option for option in options if not option.startswith("$")])


class _Parsed(Exception):
    """A program has read its command line."""


def _by_argparse(name: str, options: Sequence[str]) -> Iterator[str]:
    """Let a program of the checkout read its command line, which each does first, and no more."""
    module = import_module(MAINS.get(name, name))
    text, errors = Path(module.__file__ or "").read_text(), io.StringIO()
    if ".parse_args()" not in text and "run_cases(" not in text:
        if any(option.startswith("-") for option in options):
            yield f"{name} takes no options"
        return
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser) -> None:
        real(parser)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch, redirect_stderr(errors):
        patch.setattr(sys, "argv", [name, *options])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        try:
            if "run_cases(" in text:
                run_cases(name, module.CASES, (), None)
            else:
                module.main()
        except _Parsed:
            return
        except SystemExit:
            yield errors.getvalue()


def _pip(words: Sequence[str]) -> Iterator[str]:
    if words[0] != "install":
        yield f"pip {words[0]}"
        return
    left = iter(words[1:])
    for word in left:
        if word in ("-r", "--requirement"):
            name = next(left)
            if not (ROOT / name).is_file():
                yield f"there is no file {name}"
        elif not word.startswith("-"):
            yield from _requirement_problems(word)


def _requirement_problems(word: str) -> Iterator[str]:
    try:
        requirement = Requirement(word)
    except InvalidRequirement as error:
        yield str(error)
        return
    if requirement.name == "embedlake":
        extras = set(metadata.metadata("embedlake").get_all("Provides-Extra") or ())
        for extra in requirement.extras - extras:
            yield f"embedlake has no extra {extra!r}"


def _docker(words: Sequence[str]) -> Iterator[str]:
    if words[0] != "compose" or not COMPOSE.intersection(words):
        yield f"docker {words[0]}: only compose is checked"
    for option, name in pairwise(words):
        if option in ("-f", "--env-file") and not _is_there(name):
            yield f"there is no file {name}"


def _kubectl(words: Sequence[str]) -> Iterator[str]:
    if not KUBECTL.intersection(words):
        yield f"kubectl {words[0]} is no command that is checked"
    for option, name in pairwise(words):
        if option == "-k" and not (ROOT / name / "kustomization.yaml").is_file():
            yield f"{name} has no kustomization.yaml"
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and kind in ("service", "deployment") and (kind, name) not in _kubernetes_names():
            yield f"infra/kubernetes has no {word}"


@cache
def _kubernetes_names() -> set[tuple[str, str]]:
    files = (ROOT / "infra" / "kubernetes").glob("*.yaml")
    documents = [entry for file in files for entry in yaml.safe_load_all(file.read_text()) if entry]
    return {
        (entry["kind"].lower(), entry["metadata"]["name"])
        for entry in documents
        if "metadata" in entry and "name" in entry["metadata"]
    }


def _is_there(name: str) -> bool:
    """Whether a file is in the checkout, or made as a copy of its example there."""
    return (ROOT / name).is_file() or (ROOT / f"{name}.example").is_file()


MESSAGES: Mapping[str, type] = {
    "/search": SearchMessage, "/compare": ComparisonMessage, "/feedback": FeedbackMessage,
}  # fmt: skip


def _curl(words: Sequence[str]) -> Iterator[str]:
    (url,) = [word for word in words if word.startswith("http")]
    path = urlsplit(url).path
    application = (ROOT / "embedding_core" / "server" / "web" / "application.py").read_text()
    routes = re.findall(r"@app\.(?:get|post)\(\s*\"([^\"]+)\"", application)
    if not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path) for route in routes):
        yield f"embedlake serve has nothing at {path}"
    if "-d" in words:
        message = next(kind for end, kind in MESSAGES.items() if path.endswith(end))
        try:
            TypeAdapter(message).validate_json(words[words.index("-d") + 1])
        except ValidationError as error:
            yield str(error)


CHECKERS: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "embedlake": _embedlake,
    "prefect": _prefect,
    "ray": _ray,
    "make": _make,
    "python": _python,
    "python3": _python,
    "pip": _pip,
    "docker": _docker,
    "kubectl": _kubectl,
    "curl": _curl,
}


def inline_problems(span: str) -> Iterator[str]:
    """What is wrong with a command in a sentence, which may leave arguments out."""
    words = shlex.split(span)[1:]
    command: click.Command = cli
    if words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        chosen = cli.commands.get(words[0])
        if chosen is None:
            yield f"there is no command {words[0]!r}"
            return
        command = chosen
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for word in words:
        name = re.fullmatch(r"(--[a-z-]+)\W?.*", word)
        if name is not None and name[1] not in options:
            yield f"{command.name} has no option {name[1]}"
