"""What a target is: what its inputs are made of, and how one is read and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.fuzz.mutation import Material, Shape

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target, with inputs that were interesting: they broke a promise, or ended as no
good input does."""

Check = Callable[[bytes], str]
"""Reads an input and says in a word how it ended. Raises ``Wrong`` for a broken promise; any other
exception is one too."""


class Wrong(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads what others write."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    """Good inputs; the same bytes each time."""
    opened: Callable[[Path], AbstractContextManager[Check]]
    """What reads inputs, for as long as the context lasts; it may write below the folder."""
    tokens: Sequence[bytes] = ()
    shapes: Sequence[Shape] = ()
    where: str = ""
    """``module:NAME`` of a target that is none of ``TARGETS``."""

    def material(self) -> Material:
        """What inputs are made of: good ones, and those of the corpus."""
        return Material([*self.seeds(), *self.corpus()], self.tokens, self.shapes)

    def corpus(self) -> list[bytes]:
        """The inputs that are kept of this target, in the order of their names."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]

    def digest(self) -> str:
        """Identity of all that an input follows from, beside seed and number."""
        content = hashlib.sha256()
        for data in (*self.material().seeds, *self.tokens):
            content.update(len(data).to_bytes(8, "big") + data)
        return content.hexdigest()[:16]


_READERS = "experiments.fuzz.reading"
_LAKE = "experiments.fuzz.lake_files"
_ANSWERS = "experiments.fuzz.answers"
TARGETS = {
    "jsonl": f"{_READERS}:JSONL",
    "json": f"{_READERS}:JSON",
    "csv": f"{_READERS}:CSV",
    "parquet": f"{_READERS}:PARQUET",
    "arrow": f"{_READERS}:ARROW",
    "markdown": f"{_READERS}:MARKDOWN",
    "html": f"{_READERS}:HTML",
    "pdf": f"{_READERS}:PDF",
    "docx": f"{_READERS}:DOCX",
    "pptx": f"{_READERS}:PPTX",
    "text": f"{_READERS}:TEXT",
    "gzip": f"{_READERS}:GZIP",
    "bzip2": f"{_READERS}:BZIP2",
    "zstd": f"{_READERS}:ZSTD",
    "recipe": "experiments.fuzz.recipes:RECIPE",
    "openai": f"{_ANSWERS}:OPENAI",
    "tei": f"{_ANSWERS}:TEI",
    "models": f"{_ANSWERS}:MODELS",
    "info": f"{_ANSWERS}:INFO",
    "lock": f"{_LAKE}:LOCK",
    "run-record": f"{_LAKE}:RUN_RECORD",
    "unit-report": f"{_LAKE}:UNIT_REPORT",
    "bridge": f"{_LAKE}:BRIDGE",
    "reference": f"{_LAKE}:REFERENCE",
    "choice": f"{_LAKE}:CHOICE",
    "manifest": f"{_LAKE}:MANIFEST",
    "import-jsonl": f"{_LAKE}:IMPORT_JSONL",
    "import-npy": f"{_LAKE}:IMPORT_NPY",
    "import-safetensors": f"{_LAKE}:IMPORT_SAFETENSORS",
}
"""Where each target is."""
SERVE = "serve"
"""The target that schemathesis asks."""
_SAME = "the same"
PROMISES = {
    "jsonl": ("JSON lines", "documents and rejects, or a reject of the file"),
    "json": ("JSON", _SAME),
    "csv": ("CSV", _SAME),
    "parquet": ("Parquet", _SAME),
    "arrow": ("Arrow IPC, files and streams", _SAME),
    "markdown": ("Markdown with front matter", _SAME),
    "text": ("plain text", _SAME),
    "pdf": ("PDF", _SAME),
    "docx": ("DOCX", _SAME),
    "pptx": ("PPTX", _SAME),
    "html": ("HTML", _SAME),
    "gzip": ("JSON lines in gzip", _SAME),
    "bzip2": ("JSON lines in bzip2", _SAME),
    "zstd": ("JSON lines in zstd", _SAME),
    "recipe": (
        "recipes (YAML)",
        "a recipe that is the same when it is written out and read, or an error that names a key "
        "or a line",
    ),
    "openai": (
        "answers of `/v1/embeddings`",
        "vectors that a careful reader takes from the same bytes, or an error",
    ),
    "tei": ("answers of TEI's `/embed`", _SAME),
    "models": (
        "answers of `/v1/models`",
        "a model with its dimension and limit, and the right vector of a text, or an error",
    ),
    "info": ("answers of TEI's `/info`", _SAME),
    "lock": ("a lock's record", "whoever holds it is named or not; the next run gets the lock"),
    "run-record": ("a run's record", "a record of numbers, or none"),
    "unit-report": (
        "the report of a staged unit",
        "gone on with as its own files are, or done again",
    ),
    "bridge": ("a bridge", "a matrix, or an error"),
    "reference": ("reference vectors", "a matrix, or none"),
    "choice": ("the chosen documents", "a choice, or none"),
    "manifest": ("an export's manifest", "files of its folder, or an error"),
    "import-jsonl": ("JSON lines of an import", "rows, or an error"),
    "import-npy": ("`.npy` of an import", _SAME),
    "import-safetensors": ("safetensors of an import", _SAME),
    SERVE: (
        "the API of `serve`",
        "no status 5xx; status, type and body as the OpenAPI document says; bad requests refused",
    ),
}
"""What is read and how it must end, in the order of the page that publishes campaigns."""
READERS = tuple(name for name, where in TARGETS.items() if where.startswith(_READERS))


def target_named(name: str) -> Target:
    """A target by its name, or by ``module:NAME``."""
    module, _, attribute = TARGETS.get(name, name).partition(":")
    target: Any = getattr(import_module(module), attribute)
    assert isinstance(target, Target)
    return target
