"""Names and texts that would steer a terminal reach it as escapes, and JSON as they are."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from embedding_core.recipe import Recipe
from embedlake.terminal import STEERING, HarmlessLines, harmless, harmless_line
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake

TITLE, COLOUR, TURNED, C1, HALF = "\x1b]0;mine\x07", "\x1b[31m", "\u202e", "\x9b2J", "\ud800"
HOSTILE = f"{COLOUR}{TURNED}{C1}{TITLE}\r"
"""Sets a colour, turns the direction, clears the screen, sets the title, overwrites the line."""
FILE = f"a{COLOUR}{TURNED}.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose files, ids, texts, values and rejects are hostile, and a file to add."""
    folder = tmp_path_factory.mktemp("hostile")
    write_jsonl(
        folder,
        FILE,
        [
            {"id": f"id{HOSTILE}", "text": f"words {HOSTILE} of a text", "tag": HOSTILE},
            {"id": f"none{HOSTILE}", "text": " ", "tag": ""},
            {"id": f"id{HOSTILE}", "text": "twice", "tag": ""},
        ],
    )
    recipe = write_recipe(folder, source={"metadata": {"tag": "string"}}, max_rejected_share=1.0)
    run(Recipe.load(recipe))
    queries = {"_id": f"q{HOSTILE}", "text": f"words {HOSTILE}"}
    (folder / "queries.jsonl").write_text(json.dumps(queries) + "\n")
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\nq{COLOUR}\tnone\t1\n")
    return folder


COMMANDS = {
    "plan": ("plan", "RECIPE"),
    "embed": ("embed", "RECIPE"),
    "peek": ("peek", "RECIPE"),
    "peek-file": ("peek", "RECIPE", FILE),
    "peek-unknown": ("peek", "RECIPE", f"no{HOSTILE}"),
    "stats": ("stats", "RECIPE"),
    "stats-table": ("stats", "RECIPE", "--table"),
    "validate": ("validate", "RECIPE", FILE),
    "validate-unknown": ("validate", "RECIPE", f"no{HOSTILE}"),
    "search": ("search", "RECIPE", "words"),
    "search-where": ("search", "RECIPE", "words", "--where", f"nothing = '{HOSTILE}'"),
    "status": ("status", "RECIPE"),
    "rejects": ("status", "RECIPE", "--rejects"),
    "verify": ("verify", "RECIPE", "--deep"),
    "releases": ("releases", "RECIPE"),
    "evaluate": ("evaluate", "RECIPE", "--queries", "queries.jsonl", "--qrels", "qrels.tsv"),
    "metrics": ("metrics", "RECIPE"),
    "init": ("init", "src", "--out", "proposed.yaml"),
    "export": ("export", "RECIPE", "--to", "jsonl", f"out{COLOUR}"),
    "export-column": ("export", "RECIPE", "--to", "jsonl", "out2", "--columns", HOSTILE),
    "retire": ("retire", "RECIPE", f"vector__{HOSTILE}"),
    "import": ("import", "RECIPE", f"no{HOSTILE}"),
    "no-recipe": ("status", f"no{HOSTILE}.yaml"),
    "no-command": (f"emb{HOSTILE}",),
    "no-option": ("status", "RECIPE", f"--{HOSTILE}"),
    "wrong-set": ("embed", "RECIPE", "--set", HOSTILE),
}
"""Commands that print what comes from data or from the command line."""


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_command_prints_nothing_that_steers_the_terminal(
    words: tuple[str, ...], folder: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    answer = embedlake(*("recipe.yaml" if word == "RECIPE" else word for word in words))
    said = answer.out + answer.err
    assert said and STEERING.findall(said) == []


def test_json_keeps_what_a_terminal_would_obey(
    folder: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (hit,) = embedlake("search", "recipe.yaml", "words", "--json").json["hits"]
    assert (hit["doc_id"], hit["text"]) == (f"id{HOSTILE}", f"words {HOSTILE} of a text")
    said = embedlake("search", "recipe.yaml", "words").out
    assert r"id\x1b[31m\u202e\x9b2J\x1b]0;mine\x07\r" in said


def test_escapes_are_told_and_tabs_letters_and_joiners_stay() -> None:
    kept = "a\tb\nc é ש \u200d👩\u200d🚀 می\u200cخواهم"
    assert harmless(kept) == kept
    assert harmless_line("a\nb") == r"a\nb"
    assert harmless(HALF + "\u2066\u200f\x7f") == r"\ud800\u2066\u200f\x7f"


def test_log_line_with_a_hostile_name_is_harmless_and_keeps_its_lines() -> None:
    formatter = HarmlessLines(logging.Formatter("%(message)s"))
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (f"a\n{HOSTILE}",), error)
    said = formatter.format(record)
    assert STEERING.findall(said) == [] and said.startswith("a\n\\x1b[31m")
