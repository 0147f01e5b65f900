"""The recipe: everything that changes rows or vectors, nothing that only changes speed.

A recipe is one YAML file. It is validated once, here, then passed on frozen. ``Resources`` holds
the rest: what only changes speed, never part of any digest.
"""

from embedding_core.recipe.choosing import SampleSpec
from embedding_core.recipe.chunk import ChunkOptions
from embedding_core.recipe.endpoints import TOKEN as ENGINE_TOKEN
from embedding_core.recipe.explain import section_variants
from embedding_core.recipe.paths import MODEL_PATHS, model_path
from embedding_core.recipe.resources import Resources
from embedding_core.recipe.spec import (
    RESERVED_COLUMNS,
    IndexKind,
    IndexSpec,
    LakeSpec,
    MaintainSpec,
    MetadataColumn,
    ModelSpec,
    Recipe,
    ReleaseSpec,
    SourceSpec,
)

__all__ = [
    "ENGINE_TOKEN",
    "MODEL_PATHS",
    "RESERVED_COLUMNS",
    "ChunkOptions",
    "IndexKind",
    "IndexSpec",
    "LakeSpec",
    "MaintainSpec",
    "MetadataColumn",
    "ModelSpec",
    "Recipe",
    "ReleaseSpec",
    "Resources",
    "SampleSpec",
    "SourceSpec",
    "model_path",
    "section_variants",
]
