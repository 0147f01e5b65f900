"""What every section of a recipe is: frozen, without unknown keys, each key explained."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from embedding_core.store.storage import without_secret


class Section(BaseModel):
    """A part of a recipe; the docstring of a field is its description in the schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @field_validator("*")
    @classmethod
    def _without_secrets(cls, value: Any) -> Any:
        """No URL of a recipe holds a secret, whichever field it stands in."""
        return without_secret(value) if isinstance(value, str) else value
