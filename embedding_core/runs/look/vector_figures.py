"""What vectors look like: a map of a sample, its components, neighbours and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_core.errors import UsageError
from embedding_core.lake.query.search import Query
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.projections.association import association
from embedding_core.projections.components import Components, Numbers
from embedding_core.projections.likeness import near_duplicates
from embedding_core.projections.projection import projection
from embedding_core.protocols import Vectors
from embedding_core.runs.look.fields import Grouped, grouped, number
from embedding_core.runs.look.sample import SampledRows, sampled_rows, shortened

COMPONENTS_MEASURED = 20
COMPONENTS_SHOWN = 4
"""Components with extremes and associations."""
EXTREMES = 3
"""Texts at each end of a component."""
EXAMPLES = 6
"""Rows whose neighbours are shown."""
NEIGHBOURS = 3
LEAST_COSINE = 0.95
"""From here on two rows are near-duplicates."""
PAIRS_SHOWN = 20
Positions = npt.NDArray[np.intp]
MOST_SAMPLED = 50_000
"""Rows of a sample: all pairs of them are compared."""
FEWEST_VALUES, MOST_VALUES = 2, 10
"""A field is chosen for colours by itself when it has so many values."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked of a look at vectors."""

    column: str | None = None
    """The column of vectors; None: the one in service."""
    color: str | None = None
    """The field that points are coloured by; None: the first with two to ten values."""
    method: str = "pca"
    """The projection."""
    n_sampled: int = 5_000
    """Rows at most."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_sampled <= MOST_SAMPLED:
            raise UsageError(
                f"a sample of {counted(self.n_sampled, 'row')} cannot be looked at; take 1 to "
                f"{MOST_SAMPLED:,}"
            )


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A row in short."""

    chunk_id: str
    doc_id: str
    text: str
    """Its beginning."""
    value: float
    """Where it lies on a component, or its cosine to another row."""


@dataclass(frozen=True, slots=True)
class MapPoints:
    """The sampled rows in a plane; the lists are as long as there are rows."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    chunk_ids: tuple[str, ...]
    doc_ids: tuple[str, ...]
    source_uris: tuple[str, ...]
    texts: tuple[str, ...]
    colours: Grouped | None
    """None where no field was asked for and none has two to ten values."""


@dataclass(frozen=True, slots=True)
class ComponentFigures:
    """A principal component of the sample."""

    number: int
    """From 1."""
    lowest: tuple[Excerpt, ...]
    highest: tuple[Excerpt, ...]
    associations: Mapping[str, float | None]
    """A number from 0 to 1 by field: Pearson's correlation of numbers, else the correlation ratio.
    None where nothing can be said."""


@dataclass(frozen=True, slots=True)
class NeighbourExample:
    """A row, and the rows of the table that are nearest to it."""

    row: Excerpt
    nearest: tuple[Excerpt, ...]


@dataclass(frozen=True, slots=True)
class AlikePair:
    """Two rows that are nearly the same."""

    first: Excerpt
    second: Excerpt
    cosine: float
    is_same_text: bool
    """Whether their beginnings are equal."""


@dataclass(frozen=True, slots=True)
class VectorFigures:
    """A sample of the vectors of a column."""

    rows: int
    """Sampled rows with a finite vector."""
    left_out: int
    """Sampled rows without one."""
    method: str
    points: MapPoints
    explained: tuple[float, ...]
    """Share of the variance that each of the first components explains."""
    is_flat: bool
    """Whether all sampled vectors are equal."""
    components: tuple[ComponentFigures, ...]
    neighbours: tuple[NeighbourExample, ...]
    """In the whole table, by its own search."""
    least_cosine: float
    n_alike: int
    """Pairs of the sample from this cosine on."""
    alike: tuple[AlikePair, ...]
    """The most alike of them."""


def vector_figures(snapshot: Snapshot, column: str, look: Look) -> VectorFigures | None:
    """Look at a sample of a column; None when no sampled row has a finite vector.

    Raises ``UsageError`` for a projection that needs more rows than there are.
    """
    rows = sampled_rows(snapshot, column, look.n_sampled)
    if not len(rows):
        return None
    components = Components.of(rows.vectors, COMPONENTS_MEASURED)
    placed = components.place(rows.vectors)  # (n_rows, n_components)
    plane = projection(look.method, len(rows)).fit(rows.vectors).points
    alike = near_duplicates(_unit(rows.vectors), LEAST_COSINE, PAIRS_SHOWN)
    return VectorFigures(
        rows=len(rows),
        left_out=rows.left_out,
        method=look.method,
        points=MapPoints(
            x=tuple(plane[:, 0].tolist()),
            y=tuple(plane[:, 1].tolist()),
            chunk_ids=tuple(rows.chunk_ids),
            doc_ids=tuple(rows.doc_ids),
            source_uris=tuple(rows.source_uris),
            texts=tuple(rows.texts),
            colours=_colours(rows, look.color),
        ),
        explained=components.shares,
        is_flat=not any(components.shares),
        components=_component_figures(rows, placed, components.shares),
        neighbours=_neighbours(snapshot, column, rows),
        least_cosine=LEAST_COSINE,
        n_alike=alike.count,
        alike=tuple(
            AlikePair(
                first=_excerpt(rows, pair.first, pair.cosine),
                second=_excerpt(rows, pair.second, pair.cosine),
                cosine=pair.cosine,
                is_same_text=rows.texts[pair.first] == rows.texts[pair.second],
            )
            for pair in alike.pairs
        ),
    )


def _colours(rows: SampledRows, color: str | None) -> Grouped | None:
    if color is not None:
        return grouped(color, rows.fields[color])
    for field, values in rows.fields.items():
        if FEWEST_VALUES <= len({*values} - {None}) <= MOST_VALUES:
            return grouped(field, values)
    return None


def _component_figures(
    rows: SampledRows, placed: Numbers, shares: Sequence[float]
) -> tuple[ComponentFigures, ...]:
    figures = []
    for index in range(min(COMPONENTS_SHOWN, placed.shape[1])):
        if not shares[index]:
            break
        values = placed[:, index]
        order = np.argsort(values, kind="stable")
        figures.append(
            ComponentFigures(
                number=index + 1,
                lowest=_excerpts(rows, order[:EXTREMES], values),
                highest=_excerpts(rows, order[::-1][:EXTREMES], values),
                associations={
                    name: association(values, _measured(column))
                    for name, column in rows.fields.items()
                },
            )
        )
    return tuple(figures)


def _measured(values: Sequence[object]) -> Sequence[object]:
    """Dates as numbers, everything else as it is."""
    return [number(value) if hasattr(value, "timestamp") else value for value in values]


def _neighbours(snapshot: Snapshot, column: str, rows: SampledRows) -> tuple[NeighbourExample, ...]:
    if len(rows) < 2:
        return ()
    chosen = sorted({position * len(rows) // EXAMPLES for position in range(EXAMPLES)})
    lengths = np.linalg.norm(rows.vectors[chosen], axis=1)
    chosen = [row for row, length in zip(chosen, lengths, strict=True) if length > 0]
    if not chosen:
        return ()
    queries = _unit(rows.vectors[chosen])
    _, space = snapshot.space(column)
    answers = snapshot.search_vectors(queries, space, Query(NEIGHBOURS + 1, column=column))
    examples = []
    for row, hits in zip(chosen, answers, strict=True):
        others = [hit for hit in hits if hit.chunk_id != rows.chunk_ids[row]][:NEIGHBOURS]
        nearest = tuple(
            Excerpt(hit.chunk_id, hit.doc_id, shortened(hit.text), hit.score) for hit in others
        )
        examples.append(NeighbourExample(_excerpt(rows, row, 1.0), nearest))
    return tuple(examples)


def _excerpts(rows: SampledRows, order: Positions, values: Numbers) -> tuple[Excerpt, ...]:
    return tuple(_excerpt(rows, int(row), float(values[int(row)])) for row in order)


def _excerpt(rows: SampledRows, row: int, value: float) -> Excerpt:
    return Excerpt(rows.chunk_ids[row], rows.doc_ids[row], rows.texts[row], value)


def _unit(vectors: Vectors) -> Vectors:
    """Vectors of unit length; those without a direction stay 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-30)).astype(np.float32)
    return unit
