"""The installation: Python, the packages, and the plugins of other packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, version

from embedding_core.errors import SetupError
from embedding_core.plurals import counted

PACKAGES: Mapping[str, str | None] = {
    "prefect": "run", "prefect-ray": "run", "ray": "run", "torch": None, "transformers": None,
    "lancedb": None, "pylance": None,
}  # fmt: skip
"""What a run needs above all, with the extra that brings it."""
REGISTRIES = (
    "embedding_core.recipe.formats:KNOWN_FORMATS",
    "embedding_core.store.places:PLACES",
    "embedding_core.recipe.chunk:STRATEGIES",
    "embedding_core.encoder.engines:KNOWN_ENGINES",
    "embedding_core.exports.exporter:KNOWN_EXPORTERS",
    "embedding_core.quality.checks:GATE_CHECKS",
    "embedding_core.projections.projection:KNOWN_PROJECTIONS",
    "embedding_core.reports.report:WRITTEN",
)
"""Every registry of the library, one for each kind of plugin."""


def check_python(running: tuple[int, int] = sys.version_info[:2]) -> str:
    """Whether the package names this version of Python among those that it is tested with."""
    lines = metadata("embedlake").get_all("Classifier") or ()
    tested = re.findall(r"Programming Language :: Python :: (3\.\d+)$", "\n".join(lines), re.M)
    name = ".".join(map(str, running))
    if name not in tested:
        raise SetupError(
            f"Python {name} is none of those that embedlake is tested with ({', '.join(tested)}); "
            f"make an environment of one: `python{tested[-1]} -m venv .venv`, then "
            "`.venv/bin/pip install 'embedlake[run]'`"
        )
    return sys.version.split()[0]


def check_packages() -> str:
    """The version of each package; those that are missing with what installs them."""
    versions = versions_of(PACKAGES)
    missing = [name for name in PACKAGES if name not in versions]
    if missing:
        extras = sorted({extra for name in missing if (extra := PACKAGES[name])})
        brought_by = f"embedlake[{','.join(extras)}]" if extras else "embedlake"
        raise SetupError(
            f"{', '.join(missing)}: not installed; run `pip install '{brought_by}'`, in a checkout "
            "`make setup`"
        )
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def versions_of(packages: Mapping[str, object]) -> dict[str, str]:
    """Versions of the packages that are installed here."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def check_plugins() -> str:
    """Load every implementation of every registry; name the packages of those that are broken."""
    n_loaded, problems = 0, []
    for line in REGISTRIES:
        module, _, name = line.partition(":")
        registry = getattr(import_module(module), name)
        problems += registry.problems()
        n_loaded += len(registry.working())
    if problems:
        raise SetupError("; ".join(problems))
    return f"{counted(n_loaded, 'implementation')} load, those of other packages included"
