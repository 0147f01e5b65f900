"""Other people's packages: one that works, and the ways in which one can be broken."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def install(site: Path, package: str, group: str, name: str, target: str, code: str) -> None:
    """A distribution as an installer leaves it: a module, its metadata, an entry point."""
    site.mkdir(exist_ok=True)
    module = target.partition(":")[0]
    (site / f"{module}.py").write_text(code)
    metadata = site / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")


def run(site: Path, code: str) -> Any:
    """What a process that sees the packages in ``site`` prints as JSON."""
    path = os.pathsep.join([str(site), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"log": done.stderr}


def worked_example(language: str) -> str:
    """A block of the page's section on a format."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("\n## A format of your own\n")[1]
    block = re.search(rf"^```{language}\n(.*?)^```", section.split("\n## ")[0], re.DOTALL | re.M)
    assert block is not None
    return block.group(1)


READ = """
import json, sys
from embedding_core.errors import PluginError
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document
from embedding_core.sources import bytes_per_record, discover, read_documents, slices
from embedding_core.recipe.formats import KNOWN_FORMATS

def asked(name):
    try:
        KNOWN_FORMATS.get(name)
    except PluginError as error:
        return str(error)

spec = SourceSpec(uri=%r, text="text")
found = discover(spec)
entries = [entry for file in found.files for entry in read_documents(file, spec)]
print(json.dumps({
    "files": [file.uri.rpartition("/")[2] for file in found.files],
    "unmatched": found.passed_over.unmatched,
    "texts": [entry.text for entry in entries if isinstance(entry, Document)],
    "rejects": [[e.position, e.reason] for e in entries if not isinstance(e, Document)],
    "slices": [len(slices(file, spec, 1)) for file in found.files],
    "density": [bytes_per_record(file, spec) for file in found.files],
    "working": list(KNOWN_FORMATS.working()),
    "problems": list(KNOWN_FORMATS.problems()),
    "asked": {name: asked(name) for name in KNOWN_FORMATS.names()},
}))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with cards and JSON lines."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.cards").write_text(
        "text: first\nyear: 1\n\n\ntext: second\nno colon\n\ntext: thi: rd\n"
    )
    (folder / "b.jsonl").write_text('{"text": "line"}\n')
    return folder


def test_the_worked_example_is_a_format_that_is_read(tmp_path: Path, source: Path) -> None:
    site, code = tmp_path / "site", worked_example("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    toml = re.search(r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', worked_example("toml"))
    assert toml is not None
    install(site, "card-files", *toml.groups(), code)
    (source / "a.cards.gz").write_bytes(gzip.compress((source / "a.cards").read_bytes()))
    said = run(site, READ % str(source))
    assert said["files"] == ["a.cards", "a.cards.gz", "b.jsonl"]
    assert said["texts"] == ["first", "thi: rd", "first", "thi: rd", "line"]
    assert said["rejects"] == [[1, "no_colon"], [1, "no_colon"]]
    assert said["slices"] == [0, 0, 0]
    assert said["density"][0] is None
    assert said["problems"] == [] and said["log"] == ""


FORMAT = worked_example("python")
BROKEN = {
    "import": ("raise ImportError('no libcards')", r"cannot be imported: no libcards; upgrade or"),
    "exit": ("import sys\nsys.exit('bye')", r"cannot be imported: bye; upgrade or"),
    "attribute": ("CARD = 1", r"cannot be imported: .*CARDS.*; upgrade or"),
    "protocol": (
        "class CARDS:\n    suffixes = ('.cards',)\n    def records(self): ...",
        r"has no bytes_per_record, fit, is_text, options, spans; upgrade or uninstall the package",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_names_its_package_and_all_else_works(
    tmp_path: Path, source: Path, kind: str
) -> None:
    code, words = BROKEN[kind]
    install(tmp_path / "site", "bad-cards", "embedlake.formats", "cards", "cards:CARDS", code)
    said = run(tmp_path / "site", READ % str(source))
    (problem,) = said["problems"]
    assert re.search(rf"the plugin 'cards' .* of the package bad-cards {words}", problem)
    assert said["asked"]["cards"] == problem
    assert said["log"].count("bad-cards") == 1, "the log warns once"
    assert said["files"] == ["b.jsonl"] and said["texts"] == ["line"]
    assert said["unmatched"] == 1
    assert said["working"] == [name for name in said["asked"] if name != "cards"]


@pytest.mark.slow
def test_two_plugins_of_one_name_are_both_named_and_neither_is_used(
    tmp_path: Path, source: Path
) -> None:
    for package, module in (("first-cards", "cards_1"), ("other-cards", "cards_2")):
        target = f"{module}:CARDS"
        install(tmp_path / "site", package, "embedlake.formats", "cards", target, FORMAT)
    said = run(tmp_path / "site", READ % str(source))
    (problem,) = said["problems"]
    assert re.search(r"'cards' from (first|other)-cards and from (first|other)-cards", problem)
    assert "uninstall one of them" in problem and said["asked"]["cards"] == problem
    assert said["texts"] == ["line"]


@pytest.mark.slow
def test_a_plugin_with_a_name_of_ours_does_not_take_its_place(tmp_path: Path, source: Path) -> None:
    install(tmp_path / "site", "my-jsonl", "embedlake.formats", "jsonl", "cards:CARDS", FORMAT)
    said = run(tmp_path / "site", READ % str(source))
    (problem,) = said["problems"]
    assert "my-jsonl" in problem and "'jsonl'" in problem and "renamed" in problem
    assert said["texts"] == ["line"] and said["asked"]["jsonl"] is None


@pytest.mark.slow
def test_a_file_of_a_broken_format_is_rejected_with_the_plugins_problem(
    tmp_path: Path, source: Path
) -> None:
    install(tmp_path / "site", "bad-cards", "embedlake.formats", "cards", "cards:CARDS", "")
    code = """
import json
from embedding_core.errors import RejectedInput, SetupError
from embedding_core.recipe import SourceSpec
from embedding_core.sources import discover, read_documents

spec = SourceSpec(uri=%r, include=("*.cards",))
(file,) = discover(spec).files
try:
    list(read_documents(file, spec))
except RejectedInput as error:
    rejected = {"reason": error.reason, "detail": error.detail}
try:
    SourceSpec(uri="/data", format="cards")
except SetupError as error:
    print(json.dumps(rejected | {"named": str(error)}))
"""
    said = run(tmp_path / "site", code % str(source))
    assert "bad-cards" in said["named"]
    assert said["reason"] == "unknown_format"
    assert "bad-cards" in said["detail"] and "source.include" in said["detail"]


@pytest.mark.slow
def test_a_source_of_nothing_but_a_broken_format_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.cards").write_text("text: first\n")
    install(tmp_path / "site", "bad-cards", "embedlake.formats", "cards", "cards:CARDS", "")
    code = """
import json
from embedding_core.errors import SetupError
from embedding_core.recipe import SourceSpec
from embedding_core.sources import discover

try:
    discover(SourceSpec(uri=%r))
except SetupError as error:
    print(json.dumps({"words": str(error)}))
"""
    words = run(tmp_path / "site", code % str(tmp_path / "source"))["words"]
    assert "nothing to read" in words and "bad-cards" in words


PARAGRAPHS = '''
"""A chunk per paragraph."""

import re
from typing import Literal

from embedding_core.recipe.chunk import ChunkOptions
from embedding_core.records import Chunk


class Paragraphs(ChunkOptions):
    strategy: Literal["paragraphs"]
    at_least: int = 1
    """Characters of a chunk."""


class Strategy:
    options = Paragraphs

    def settle(self, options, limit):
        return options

    def chunker(self, options, tokenizer, limit):
        return Chunker(options, tokenizer)


class Chunker:
    def __init__(self, options, tokenizer):
        self.options, self.tokenizer = options, tokenizer

    def chunk(self, document):
        pieces = re.finditer(r"\\S+(?:[ \\n]\\S+)*", document.text)
        texts = [piece for piece in pieces if len(piece.group()) >= self.options.at_least]
        for index, piece in enumerate(texts):
            (n_tokens,) = self.tokenizer.count([piece.group()])
            yield Chunk(index, piece.group(), *piece.span(), n_tokens)


PARAGRAPHS = Strategy()
'''

CUT = """
import json
from embedding_core.chunking import chunker_for, settled
from embedding_core.encoder import describe_model, model_spec
from embedding_core.errors import SetupError
from embedding_core.recipe import Recipe
from embedding_core.records import Document

def recipe(**chunk):
    return Recipe.load({
        "name": "r", "source": {"uri": "/s"}, "model": {"name": "hashing"},
        "lake": {"uri": "/l", "table": "t"}, "chunk": {"strategy": "paragraphs"} | chunk,
    })

def refused(**chunk):
    try:
        recipe(**chunk)
    except SetupError as error:
        return f"{error.code}: {error}"

said = {"refused": refused(at_most=3), "unknown": refused(strategy="pages")}
if %r:
    loaded = recipe(at_least=4)
    again = Recipe.model_validate_json(loaded.model_dump_json())
    tokenizer = describe_model(model_spec("hashing")).tokenizer
    chunker = chunker_for(settled(loaded.chunk, 512), tokenizer, 512)
    chunks = chunker.chunk(Document("d", 0, "a\\n\\nsome words\\n\\nmore"))
    said |= {
        "hashed": loaded.chunk.hashed(), "equal": loaded == again,
        "texts": [chunk.text for chunk in chunks],
        "schema": json.dumps(Recipe.model_json_schema()["properties"]["chunk"]),
    }
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_strategy_of_a_plugin_validates_cuts_and_stands_in_the_schema(tmp_path: Path) -> None:
    group, target = "embedlake.chunk_strategies", "paragraphs:PARAGRAPHS"
    install(tmp_path / "site", "by-paragraph", group, "paragraphs", target, PARAGRAPHS)
    said = run(tmp_path / "site", CUT % True)
    assert said["hashed"] == {"strategy": "paragraphs", "at_least": 4}
    assert said["equal"]
    assert said["texts"] == ["some words", "more"]
    assert "Characters of a chunk" in said["schema"]
    assert "chunk.at_most: unknown key" in said["refused"]
    assert "'code', 'none', 'paragraphs'" in said["unknown"]


@pytest.mark.slow
def test_a_recipe_that_names_a_broken_strategy_says_which_package(tmp_path: Path) -> None:
    group, target = "embedlake.chunk_strategies", "paragraphs:PARAGRAPHS"
    install(tmp_path / "site", "by-paragraph", group, "paragraphs", target, "")
    said = run(tmp_path / "site", CUT % False)
    assert re.match(r"plugin: the plugin 'paragraphs' .* package by-paragraph", said["refused"])


MEMORY_STORE = '''
"""Files that stand in this module."""

import io

from embedding_core.records import SourceFile

FILES = {"mem://a.txt": b"first", "mem://b.txt": b"second"}


class Memory:
    schemes = ("mem",)
    is_read_to_plan = True

    def list(self, uri, spec, names):
        for name, content in FILES.items():
            if names.takes(name.removeprefix("mem://")):
                yield SourceFile(name, content.decode(), len(content))

    def open(self, file, spec):
        return Stream(FILES[file.uri])

    def check_unchanged(self, file, spec):
        pass


class Stream(io.RawIOBase):
    def __init__(self, content):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.content.readinto(buffer)


MEMORY = Memory()
'''


@pytest.mark.slow
def test_a_store_of_a_plugin_is_read(tmp_path: Path) -> None:
    install(tmp_path / "site", "mem", "embedlake.stores", "mem", "mem_store:MEMORY", MEMORY_STORE)
    code = """
import json
from embedding_core.recipe import Recipe
from embedding_core.sources import discover, read_documents

recipe = Recipe.load({
    "name": "r", "source": {"uri": "mem://"}, "model": {"name": "hashing"},
    "lake": {"uri": "/l", "table": "t"},
})
files = discover(recipe.source).files
print(json.dumps({
    "uris": [file.uri for file in files],
    "texts": [entry.text for file in files for entry in read_documents(file, recipe.source)],
}))
"""
    said = run(tmp_path / "site", code)
    assert said["uris"] == ["mem://a.txt", "mem://b.txt"]
    assert said["texts"] == ["first", "second"]
