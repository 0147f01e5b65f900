"""A rule for settings of a checkpoint, and what breaks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding_core.errors import ModelError

Treatment = Literal["honoured", "irrelevant", "refused"]
UNTESTED = "which is not verified"


@dataclass(frozen=True, slots=True)
class Rule:
    """How settings of a file are treated."""

    treatment: Treatment
    keys: tuple[str, ...]
    why: str
    accepted: tuple[object, ...] = ()
    """Values of a refused setting that ask for nothing unusual, alone or in a list."""

    def accepts(self, value: object) -> bool:
        """Whether a checkpoint may have this value."""
        if self.treatment != "refused":
            return True
        values = value if isinstance(value, list) else [value]
        accepted = [(type(usual), usual) for usual in self.accepted]  # 1 is not True
        return all((type(member), member) in accepted for member in values)


Rules = tuple[Rule, ...]


def honoured(why: str, keys: str) -> Rule:
    """Settings, by their names with spaces between, that decide vectors and are applied."""
    return Rule("honoured", tuple(keys.split()), why)


def irrelevant(why: str, keys: str) -> Rule:
    """Settings that change no vector."""
    return Rule("irrelevant", tuple(keys.split()), why)


def refused(why: str, keys: str, *accepted: object) -> Rule:
    """Settings that no checkpoint may have, unless with one of the ``accepted`` values."""
    return Rule("refused", tuple(keys.split()), why, accepted)


def offence(settings: Mapping[str, Any], rules: Iterable[Rule]) -> str | None:
    """The first of these settings that is not honoured, and why; None when all are."""
    by_key = {key: rule for rule in rules for key in rule.keys}
    for key, value in settings.items():
        rule = by_key.get(key)
        if rule is None and value is not None:
            return f"sets {key} to {_shown(value)}, a setting that is not known"
        if rule is not None and not rule.accepts(value):
            return f"sets {key} to {_shown(value)}, {rule.why}"
    return None


def refuse_others(settings: Mapping[str, Any], rules: Iterable[Rule], file: Path | str) -> None:
    """Raise ``ModelError`` that names a setting of ``file`` that is not honoured."""
    why = offence(settings, rules)
    if why is not None:
        raise ModelError(
            f"{file} {why}. Remove it if the model was trained without it, or use another model"
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
