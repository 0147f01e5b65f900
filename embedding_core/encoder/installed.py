"""Models that come with an installed Python package."""

from __future__ import annotations

import re
from importlib.metadata import distributions

_WEIGHTS = re.compile(r"^([A-Za-z_]\w*)/[^,\n]*model\.safetensors,", re.MULTILINE)
"""A line of the list of files that a package was installed with."""


def packaged_models() -> tuple[str, ...]:
    """Names of models that packages ship, as ``model.name`` takes them, sorted. Imports nothing."""
    packages = {
        package
        for distribution in distributions()
        for package in _WEIGHTS.findall(distribution.read_text("RECORD") or "")
    }
    return tuple(f"package:{package}" for package in sorted(packages))
