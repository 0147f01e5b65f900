"""How much a component has to do with a field: a coefficient between 0 and 1 for any kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedding_core.projections.components import Numbers

Values = Sequence[object]


def association(component: Numbers, values: Values) -> float | None:
    """The size of Pearson's correlation for numbers, the correlation ratio for anything else.

    The ratio is the root of the share of the variance that lies between the values' means, less
    what so many values would have by chance (epsilon squared, Kelley 1935). Rows without a value
    are left out. None where nothing can be said: fewer than three rows, a single value, or as many
    values as rows.
    """
    present = np.array([value is not None for value in values], bool)
    if present.sum() < 3 or not np.ptp(component[present]) > 0:
        return None
    measured = component[present]
    kept = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in kept):
        numbers = np.array(kept, np.float64)
        finite = np.isfinite(numbers)
        if finite.sum() < 3 or not np.ptp(numbers[finite]) > 0:
            return None
        return abs(float(np.corrcoef(measured[finite], numbers[finite])[0, 1]))
    return _ratio(measured, [str(value) for value in kept])


def _ratio(measured: Numbers, names: list[str]) -> float | None:
    _, codes = np.unique(np.array(names, object), return_inverse=True)
    counts = np.bincount(codes)
    if len(counts) < 2 or len(counts) == len(codes):
        return None
    means = np.bincount(codes, weights=measured) / counts
    within = float(np.square(measured - means[codes]).sum())
    total = float(np.square(measured - measured.mean()).sum())
    n_rows, n_values = len(codes), len(counts)
    explained = 1.0 - within / total * (n_rows - 1) / (n_rows - n_values)
    return float(np.sqrt(max(0.0, explained)))
