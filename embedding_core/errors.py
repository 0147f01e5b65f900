"""The error tree: three kinds of trouble, told apart by class and never by message.

    EmbedlakeError
    ├── Transient            worth another try after a pause (store hiccup, worker lost)
    ├── RejectedInput        one file, record or text is bad: list it in rejects, go on
    └── SetupError           nobody can go on until a person changes something
        ├── UsageError       the command or the recipe itself is wrong (exit code 2)
        ├── PluginError      a plugin's package cannot be used
        ├── ModelError       the model cannot be found, read, trusted or run here
        └── LakeError        the table or its store is not what the recipe says
            ├── Locked       another run is working on the table
            ├── Unfilled     rows lack a vector in the column that is to serve
            └── Switched     another space was put in service while a run went on

Every message gives the value, the limit and the next action. An action that is a command of
embedlake's stands in ``action``, not in the message: who shows the error knows how it is called
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from embedding_core.redaction import redacted

if TYPE_CHECKING:
    from embedding_core.reasons import Reason

Action = Literal[
    "embed",
    "reembed",
    "maintain",
    "verify",
    "repair",
    "promote",
    "retire",
    "releases",
    "status",
    "plan",
    "evaluate",
    "allow_removals",
    "wait",
    "schema",
    "resources",
    "resume",
    "overwrite",
]
"""What heals an error, where embedlake itself does it."""


class EmbedlakeError(Exception):
    """Root of every error embedlake raises on purpose."""

    code: ClassVar[str] = "failed"
    """A fixed word for the kind of error."""

    def __init__(self, *message: object, action: Action | None = None) -> None:
        super().__init__(*message)
        self.action = action


class Transient(EmbedlakeError):
    """A fault that may pass by itself; the task that met it is tried again."""

    code = "transient"

    def __init__(
        self, *message: object, action: Action | None = None, pause_seconds: float = 0.0
    ) -> None:
        super().__init__(*message, action=action)
        self.pause_seconds = pause_seconds
        """Time that the store asked to be left alone for."""


def words(error: BaseException) -> str:
    """The error's message, without secrets of URLs; for an error without a message, the meaning of
    its class."""
    if said := str(error).strip():
        return redacted(said)
    if isinstance(error, MemoryError):
        return "out of memory; give the task more of it, or split the file or the record"
    return f"{type(error).__name__}, without a message"


MOST_DETAIL = 2_000
"""Characters of a reject's detail: a library's own words may repeat what a file says."""


class RejectedInput(EmbedlakeError):
    """One input cannot be used. It becomes a row of the rejects table.

    ``reason`` is the fixed word that is stored and grouped by; ``detail`` is for a person.
    """

    code = "rejected"

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason.name
        self.detail = detail if len(detail) <= MOST_DETAIL else detail[:MOST_DETAIL] + "…"

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class SetupError(EmbedlakeError):
    """Something a person must change before the work can go on."""

    code = "setup"


class PluginError(SetupError):
    """A plugin cannot be used; the message names its package."""

    code = "plugin"


class UsageError(SetupError):
    """The command line or the recipe is wrong; nothing was started."""

    code = "usage"


class ModelError(SetupError):
    """The model cannot be found, read, trusted or run on this machine."""

    code = "model"


class LakeError(SetupError):
    """The table, or the store under it, is not what the recipe says it is."""

    code = "lake"


class Locked(LakeError):
    """Another run is working on the table; nothing was changed."""

    code = "locked"


class Unfilled(LakeError):
    """Rows have no vector in the column that is to be put in service; nothing was changed."""

    code = "unfilled"


class Switched(LakeError):
    """Another space was put in service while a run went on; what it committed before is kept."""

    code = "switched"
