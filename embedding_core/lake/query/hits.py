"""Results of a search, for programs and for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embedding_core.records import Scalar

if TYPE_CHECKING:
    import pandas as pd

TEXT_SHOWN = 120
"""Characters of a text in a readable form."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search returned."""

    score: float
    """Cosine similarity to the query, -1 to 1; of a hybrid search the fused score of the ranks."""
    chunk_id: str
    source_uri: str
    doc_id: str
    chunk_index: int
    text: str
    metadata: Mapping[str, Scalar]
    """The declared metadata columns."""

    def __repr__(self) -> str:
        return f"<Hit {self.score:.3f} {self.doc_id}: {_shortened(self.text)!r}>"


class Hits(list[Hit]):
    """The hits of one query, best first: a list that is readable and becomes a data frame."""

    def __repr__(self) -> str:
        lines = [f"{rank:>3}. {hit!r}" for rank, hit in enumerate(self, start=1)]
        return "\n".join(lines) if lines else "<no hits>"

    def to_pandas(self) -> pd.DataFrame:
        """A row per hit: its fields, and a column for each metadata column."""
        import pandas as pd

        rows = [asdict(hit) for hit in self]
        return pd.DataFrame([row | row.pop("metadata") for row in rows])

    def _repr_html_(self) -> str:
        names = sorted({name for hit in self for name in hit.metadata})
        header = "".join(
            f"<th>{_escaped(name)}</th>" for name in ["", "score", "doc_id", "text", *names]
        )
        rows = "".join(_row(rank, hit, names) for rank, hit in enumerate(self, start=1))
        return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _row(rank: int, hit: Hit, names: list[str]) -> str:
    values = [rank, f"{hit.score:.3f}", hit.doc_id, _shortened(hit.text)]
    values += [hit.metadata.get(name) for name in names]
    return "<tr>" + "".join(f"<td>{_escaped(value)}</td>" for value in values) + "</tr>"


def _escaped(value: object) -> str:
    return "" if value is None else html.escape(str(value))


def _shortened(text: str) -> str:
    flat = " ".join(text[: 4 * TEXT_SHOWN].split())
    return flat if len(flat) <= TEXT_SHOWN else flat[: TEXT_SHOWN - 1] + "…"
