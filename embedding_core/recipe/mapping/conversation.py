"""The conversation section: a list of turns, and the fields that are derived from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.recipe.section import Section

DERIVED = (
    "prompt",
    "response",
    "think",
    "system",
    "question",
    "roles",
    "last_role",
    "num_turns",
    "num_other_parts",
)
"""Fields that a conversation gives to its record."""


def _several(names: Any) -> Any:
    """A name stands for a list with that name alone."""
    return (names,) if isinstance(names, str) else names


Names = Annotated[
    tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | tuple[str, ...])
]


class ConversationSpec(Section):
    """Where a record's turns are, and how fields are derived from them."""

    messages: str = "messages"
    """Path of the list of turns, or of the JSON text of one."""
    role: Names = Field(default=("role", "from"), min_length=1)
    """Names that the speaker may have in a turn; the first that is there counts."""
    content: Names = Field(default=("content", "value"), min_length=1)
    """Names that the text may have in a turn, a string or a list of parts; likewise."""
    think: Names = ()
    """Names of fields of the last turn that hold its thinking beside its text, such as
    ``reasoning_content``."""
    think_tags: tuple[str, str] | None = ("<think>", "</think>")
    """Around thinking inside a text; null leaves it there."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Other names of roles, beside human, gpt, chatgpt, bot and model: ``{Bob: user}``."""
    response_roles: tuple[str, ...] = ("assistant",)
    """Roles that the last turn may have."""
    prompt_roles: tuple[str, ...] | None = None
    """Roles of the turns that make up the prompt; default: every role."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Text before each turn of the prompt, by role: ``{user: "User: "}``; default: none."""
    separator: str = "\n\n"
    """Text between the turns of the prompt."""
    prefix: str = ""
    """Text before the name of each derived field: with ``chat_`` the prompt is ``chat_prompt``."""

    @field_validator("messages")
    @classmethod
    def _is_a_path(cls, messages: str) -> str:
        FieldPath.parse(messages)
        return messages

    @field_validator("think_tags")
    @classmethod
    def _differ(cls, tags: tuple[str, str] | None) -> tuple[str, str] | None:
        if tags is not None and ("" in tags or tags[0] == tags[1]):
            raise ValueError(f"{list(tags)} cannot be told apart; name two tags, or null")
        return tags

    @property
    def derived(self) -> tuple[str, ...]:
        """The names of the derived fields."""
        return tuple(self.prefix + name for name in DERIVED)


def written_out(section: Any) -> Any:
    """A path alone stands for a section with the defaults."""
    if isinstance(section, str):
        return {"messages": section}
    return section
