"""Whose work this is: the run, the unit and the file that log lines, errors and spans name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass

DIGITS = 12
"""Digits of an id that people are shown."""


@dataclass(slots=True, eq=False)
class Subject:
    """What the code of this thread works on; empty where it is no single thing."""

    run: str = ""
    unit: str = ""
    """Id of the work unit."""
    file: str = ""
    """URI."""

    @property
    def fields(self) -> dict[str, str]:
        """What is known, by name; also the ``extra`` of a log line."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        return " · ".join(
            f"{name} {value if name == 'file' else value[:DIGITS]}"
            for name, value in self.fields.items()
        )


_current: ContextVar[Subject | None] = ContextVar("subject", default=None)
_of_process: list[Subject] = []
"""What this process works on, the innermost last."""


def current_subject() -> Subject:
    """What this thread works on; a thread that says nothing of it (a lock's heart, a thread of
    Lance's that asks for rows) works for what the process does, which is one unit at a time."""
    return _current.get() or (_of_process[-1] if _of_process else Subject())


@contextmanager
def working_on(run: str = "", unit: str = "", file: str = "") -> Iterator[Subject]:
    """Name what the code of this context works on; its ``file`` may change meanwhile.

    An error that leaves the context carries it along, to other processes too.
    """
    subject = Subject(run, unit, file)
    token = _current.set(subject)
    _of_process.append(subject)
    try:
        yield subject
    except Exception as error:
        if subject_of(error) is None:
            error.subject = subject  # type: ignore[attr-defined]  # any exception takes it
            error.add_note(f"while working on {subject}")
        raise
    finally:
        _current.reset(token)
        _of_process.remove(subject)


def subject_of(error: BaseException | None) -> Subject | None:
    """What was worked on when the error came; None where nobody said it."""
    subject = getattr(error, "subject", None)
    return subject if isinstance(subject, Subject) else None
