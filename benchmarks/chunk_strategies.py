"""The strategies that cut by structure or by characters, each beside its library alone.

``sentences``, ``markdown`` and ``code`` stand beside semantic-text-splitter with the same tokenizer
handed to it, ``characters`` beside the tokenizer's ``encode_batch_fast`` of slices of the text. The
peers give no counts with special tokens and no contexts: what they leave out is in our time.
Documents have some 60,000 characters: Python's language reference, the same as Markdown with
headings, and Python's own library.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import semantic_text_splitter
import tokenizers
import tree_sitter_python

from embedding_core.chunking import chunker_for, settled
from embedding_core.encoder.checkpoint.tokenizer import CheckpointTokenizer
from embedding_core.recipe.chunk import STRATEGIES
from embedding_core.records import Document

DOCUMENT_CHARACTERS = 60_000
WINDOW_CHARACTERS = 400
OVERLAP_CHARACTERS = 40

Cut = Callable[[str], Iterable[object]]
"""Cuts a document."""


def _prose() -> Iterator[str]:
    yield from (topics[name] for name in sorted(topics))


def _markdown() -> Iterator[str]:
    for name in sorted(topics):
        yield f"# {name}\n\n{topics[name]}\n\n## More of {name}\n\n{topics[name][:800]}\n\n"


def _python() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(errors="replace")


def _sentences(tokenizer: tokenizers.Tokenizer, capacity: int) -> Cut:
    splitter = semantic_text_splitter.TextSplitter
    return splitter.from_huggingface_tokenizer(tokenizer, capacity).chunk_indices


def _sections(tokenizer: tokenizers.Tokenizer, capacity: int) -> Cut:
    splitter = semantic_text_splitter.MarkdownSplitter
    return splitter.from_huggingface_tokenizer(tokenizer, capacity).chunk_indices


def _definitions(tokenizer: tokenizers.Tokenizer, capacity: int) -> Cut:
    splitter = semantic_text_splitter.CodeSplitter
    language = tree_sitter_python.language()
    return splitter.from_huggingface_tokenizer(language, tokenizer, capacity).chunk_indices


def _slices(tokenizer: tokenizers.Tokenizer, capacity: int) -> Cut:
    step = WINDOW_CHARACTERS - OVERLAP_CHARACTERS

    def cut(text: str) -> list[object]:
        windows = [text[at : at + WINDOW_CHARACTERS] for at in range(0, len(text), step)]
        return list(tokenizer.encode_batch_fast(windows))

    return cut


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy, what it cuts, and the library that it stands beside."""

    texts: Callable[[], Iterator[str]]
    library: Callable[[tokenizers.Tokenizer, int], Cut]
    options: dict[str, Any]


CASES = {
    "sentences": Case(_prose, _sentences, {}),
    "markdown": Case(_markdown, _sections, {}),
    "code": Case(_python, _definitions, {"language": "python"}),
    "characters": Case(
        _prose, _slices, {"max_characters": WINDOW_CHARACTERS, "overlap": OVERLAP_CHARACTERS}
    ),
}


def strategy_row(
    name: str, path: Path, limit: int, megabytes: float, library_megabytes: float
) -> dict[str, Any]:
    """Tokens per CPU-second of a strategy and of its library, on one text."""
    case = CASES[name]
    library = tokenizers.Tokenizer.from_file(str(path))
    library.no_truncation()
    library.no_padding()
    tokenizer = CheckpointTokenizer(path, None, "")
    section = STRATEGIES.get(name).options(strategy=name, **case.options)
    chunker = chunker_for(settled(section, limit), tokenizer, limit)
    cut = {
        name: lambda text: list(chunker.chunk(Document("d", 0, text))),
        "library": case.library(library, limit - tokenizer.n_special),
    }
    sizes = {name: megabytes, "library": min(megabytes, library_megabytes)}
    rates, chunks = {}, {}
    for subject, cutter in cut.items():
        documents = list(_documents(case.texts(), int(sizes[subject] * 1e6)))
        n_tokens = sum(map(len, library.encode_batch_fast(documents, add_special_tokens=False)))
        cutter(documents[0])  # warm
        started = time.process_time()
        chunks[subject] = sum(len(list(cutter(document))) for document in documents)
        rates[subject] = n_tokens / (time.process_time() - started)
    return {
        "strategy": name,
        "megabytes": sizes,
        "tokens_per_cpu_second": {subject: round(rate) for subject, rate in rates.items()},
        "times_its_library": round(rates[name] / rates["library"], 2),
        "chunks": chunks,
    }


def _documents(texts: Iterator[str], n_characters: int) -> Iterator[str]:
    """Documents of about ``DOCUMENT_CHARACTERS`` of the texts, over and over."""
    parts: list[str] = []
    length = 0
    for text in cycle(texts):
        parts.append(text)
        length += len(text)
        if length >= min(DOCUMENT_CHARACTERS, n_characters):
            yield "\n\n".join(parts)
            n_characters -= length
            parts, length = [], 0
        if n_characters <= 0:
            return
