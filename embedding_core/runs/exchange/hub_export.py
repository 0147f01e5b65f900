"""Export to a hub: into a folder of this machine first, and from there in one upload."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from embedding_core.exports.hub_upload import HubRepository
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import digest
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.claim import check_same_as_complete
from embedding_core.runs.exchange.exporting import ExportReport, export


def export_to_hub(
    recipe: Recipe,
    spec: ExportSpec,
    destination: str,
    staging: Path,
    overwrite: bool = False,
    resume: bool = False,
    endpoint: str | None = None,
) -> ExportReport:
    """Export the recipe's table to ``hf://datasets/owner/name[@branch]``.

    ``staging``: a folder with room for the export, which is there until it is uploaded; ``resume``
    goes on with it. ``endpoint``: the hub's address; default: what the hub's client says. Raises
    ``UsageError`` for a dataset that holds an export, unless one of both is asked for, or anything
    else.
    """
    repository = HubRepository.parse(destination, endpoint)
    there = repository.check_free(overwrite, resume)
    dataset = repository.dataset
    folder = staging / digest([endpoint, dataset.name, dataset.revision])
    if resume and there is not None and not folder.exists():
        check_same_as_complete(destination, there, recipe, spec)
    report = export(recipe, spec, str(folder), overwrite, resume)
    version = f"version {report.table_version} of {recipe.name}"
    message = f"Export {version}, manifest {report.manifest_sha256}"
    repository.upload(folder, message, overwrite, resume)  # others write there meanwhile, too
    shutil.rmtree(folder)
    return replace(report, destination=f"hf://datasets/{dataset.name}@{dataset.revision}")
