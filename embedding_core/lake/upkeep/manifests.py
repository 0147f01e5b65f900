"""A manifest that is not what was written is put aside: the table is then as it was before it."""

from __future__ import annotations

from embedding_core.lake.damage import DamagedManifest, indexes_of
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.store import storage

MANIFEST = "manifest"
"""The kind of the damage."""
ASIDE = "damaged-"
"""How the name begins that such a manifest gets, in the folder of the table."""


def put_damaged_aside(table: Table) -> list[Damage]:
    """Move the newest manifest out of the list of versions when it does not parse, and then the one
    before it, until one does or none is left. Call it under the table's lock."""
    damages = []
    while (damaged := _damaged(table)) is not None:
        version, name = table.newest_manifest()
        old, new = (storage.join(table.uri, path) for path in (f"_versions/{name}", ASIDE + name))
        with store_faults(f"moving {old}"):
            storage.filesystem(table.uri, table.lake.storage).mv(old, new)
        what = f"the manifest of version {version} does not parse ({damaged.why}): moved to {new}"
        damages.append(Damage(MANIFEST, table.name, what))
    return damages


def _damaged(table: Table) -> DamagedManifest | None:
    if not table.exists():
        return None
    try:
        indexes_of(table.dataset())
    except DamagedManifest as error:
        return error
    return None
