"""The ``code`` strategy: functions, classes and statements, by the grammar of the language."""

from __future__ import annotations

import re
from functools import partial
from importlib import import_module
from typing import Any, Literal

from pydantic import Field

from embedding_core.chunking.options import LengthOptions, with_lengths
from embedding_core.chunking.structure.libraries import splitters
from embedding_core.chunking.structure.pieces import Everywhere, Lengths
from embedding_core.chunking.structure.sentences import text_splitter
from embedding_core.chunking.structure.sizer import Sizer
from embedding_core.errors import RejectedInput, UsageError, words
from embedding_core.protocols import Tokenizer
from embedding_core.reasons import MISSING_LIBRARY
from embedding_core.recipe.chunk import ChunkStrategy
from embedding_core.records import Chunk, Document

LANGUAGES = {
    "py": "python", "pyi": "python",
    "js": "javascript", "mjs": "javascript", "cjs": "javascript", "jsx": "javascript",
    "ts": "typescript", "mts": "typescript", "cts": "typescript", "tsx": "tsx",
    "go": "go", "rs": "rust", "java": "java",
}  # fmt: skip
"""Language by the end of a file's name."""
COMPRESSED = (".gz", ".bz2", ".zst")
MOST_NESTED = 100
"""Brackets that may be open at once. For each chunk the splitter looks at all levels of the syntax
tree: 5,000 brackets took 17 s and gave chunks of a character. Nobody writes so by hand."""
BRACKET = re.compile(r"[\[\](){}]|^[ \t]*\w", re.MULTILINE)
"""A bracket, or a word that begins a line: what is open then is mostly in a string."""
GRAMMARS = {
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
}
"""Module and function of grammars that are not ``tree_sitter_<language>.language``."""


class CodePieces(LengthOptions):
    """Code by its syntax. Needs ``embedlake[code]``."""

    strategy: Literal["code"]
    """``code``: the largest of definition, statement and line that fits."""
    language: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Language of all files: one whose package ``tree-sitter-<language>`` is installed; default:
    told by the end of each file's name. A file of another language is cut like ``sentences``."""


class CodeChunker:
    """Chunks along the syntax tree of a file's language."""

    def __init__(self, lengths: Lengths, language: str | None) -> None:
        self._lengths = lengths
        self._language = language

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``. Raises ``RejectedInput`` when the grammar is not installed."""
        title = Everywhere(self._lengths.title_of(document))
        language = self._language or language_of(document.uri)
        if language is None or is_nested_deep(document.text):
            return self._lengths.chunks(document.text, text_splitter, title)
        try:
            splitter = partial(code_splitter, grammar(language))
        except UsageError as error:
            raise RejectedInput(MISSING_LIBRARY, str(error)) from error
        return self._lengths.chunks(document.text, splitter, title)


def language_of(uri: str) -> str | None:
    """The language of a file by the end of its name; None when it is not a known one."""
    name = uri.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return LANGUAGES.get(name.rsplit(".", 1)[-1])


def is_nested_deep(text: str) -> bool:
    """Whether more than ``MOST_NESTED`` brackets open without a line that a word begins."""
    depth = 0
    for match in BRACKET.finditer(text):
        if match[0] in "[({":
            depth += 1
        else:
            depth = max(0, depth - 1) if match[0] in "])}" else 0
        if depth > MOST_NESTED:
            return True
    return False


def grammar(language: str) -> Any:
    """The grammar of a language. Raises ``UsageError`` with the line that installs it."""
    module, function = GRAMMARS.get(language, (f"tree_sitter_{language}", "language"))
    try:
        return getattr(import_module(module), function)()
    except (ImportError, AttributeError) as error:
        is_ours = language in LANGUAGES.values()
        package = "'embedlake[code]'" if is_ours else f"tree-sitter-{language.replace('_', '-')}"
        raise UsageError(
            f"cutting {language} needs {module} ({words(error)}): pip install {package}"
        ) from error


def code_splitter(language: Any, sizer: Sizer, capacity: int, overlap: int) -> Any:
    """The library's splitter of code."""
    return splitters("code").CodeSplitter.from_callback(language, sizer, capacity, overlap)


class Code:
    """The strategy ``code``."""

    options = CodePieces

    def settle(self, options: CodePieces, limit: int) -> CodePieces:
        """See ``ChunkStrategy``."""
        self._check(options)
        return with_lengths(options, limit)

    def chunker(self, options: CodePieces, tokenizer: Tokenizer, limit: int) -> CodeChunker:
        """See ``ChunkStrategy``."""
        self._check(options)
        return CodeChunker(Lengths.of(options, tokenizer, limit), options.language)

    def _check(self, options: CodePieces) -> None:
        """Raise ``UsageError`` when the splitter, or the grammar of ``language``, is not there."""
        splitter = splitters(options.strategy).CodeSplitter
        if options.language is None:
            return
        language = grammar(options.language)
        try:
            splitter(language, options.max_tokens or 1)
        except Exception as error:
            raise UsageError(
                f"chunk.language {options.language}: its grammar cannot be used "
                f"({words(error)}); upgrade tree-sitter-{options.language}"
            ) from error


CODE: ChunkStrategy[CodePieces] = Code()
