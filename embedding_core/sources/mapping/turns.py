"""Conversations: the turns of a record, and the fields that are derived from them.

Turns are objects with a role and a text, in a list, in the JSON text of one, or as columns (an
object of lists). A text is a string or a list of parts, of which text and thinking are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import BAD_CONVERSATION, MISSING_FIELD
from embedding_core.recipe.mapping.conversation import ConversationSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.sources.formats.format import shown, type_name
from embedding_core.sources.formats.strict_json import STRICT
from embedding_core.sources.mapping.lookup import ABSENT, lookup, readable

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""Other names of roles that datasets use."""
SYSTEM = ("system", "developer")
THINKING = ("thinking", "reasoning")
"""Types of parts that hold thinking."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says."""

    role: str
    text: str
    """Without its thinking, where the speaker may answer."""
    think: tuple[str, ...] = ()
    """Its thinking, piece by piece."""
    n_other_parts: int = 0
    """Parts that are neither text nor thinking: images, audio, calls of tools."""


class Conversation:
    """Reads the conversations of a file's records."""

    def __init__(self, spec: ConversationSpec) -> None:
        self._spec = spec
        self._find = lookup(FieldPath.parse(spec.messages))
        self._roles = ROLES | spec.roles
        tags = spec.think_tags
        self._opening = tags[0] if tags is not None else ""
        self._tags = None if tags is None else re.compile("|".join(map(re.escape, tags)))

    def derived(self, fields: Mapping[str, object]) -> dict[str, object]:
        """The derived fields of a record; null where there is nothing.

        Raises ``RejectedInput`` for a record whose turns have not the declared shape.
        """
        spec, turns = self._spec, self._turns(fields)
        *before, last = turns
        if last.role not in spec.response_roles:
            raise self._bad(
                f"the last turn is by {last.role!r}, and a response is by "
                f"{' or '.join(spec.response_roles)}; cut it off, or correct "
                "source.conversation.response_roles or roles"
            )
        prompt = [
            spec.labels.get(turn.role, "") + turn.text
            for turn in before
            if turn.text and (spec.prompt_roles is None or turn.role in spec.prompt_roles)
        ]
        system = [turn.text for turn in turns if turn.role in SYSTEM and turn.text]
        questions = [turn.text for turn in before if turn.role == "user"]
        values = {
            "prompt": spec.separator.join(prompt) if prompt else None,
            "response": last.text,
            "think": "\n\n".join(last.think) if last.think else None,
            "system": spec.separator.join(system) if system else None,
            "question": questions[-1] if questions else None,
            "roles": ",".join(dict.fromkeys(turn.role for turn in turns)),
            "last_role": last.role,
            "num_turns": len(turns),
            "num_other_parts": sum(turn.n_other_parts for turn in turns),
        }
        return {spec.prefix + name: value for name, value in values.items()}

    def _turns(self, fields: Mapping[str, object]) -> list[Turn]:
        name = self._spec.messages
        value = readable(self._find(fields), name)
        if value is None or value is ABSENT:
            problem = "is null" if value is None else "is missing"
            raise RejectedInput(MISSING_FIELD, f"field {name!r}, the conversation, {problem}")
        items = self._listed(value)
        if not items:
            raise self._bad("it has no turns")
        return [self._turn(number, item, len(items)) for number, item in enumerate(items)]

    def _listed(self, value: object) -> Sequence[object]:
        """The turns as they stand there."""
        if isinstance(value, str):
            try:
                value = STRICT.decode(value)
            except (ValueError, RecursionError) as error:
                raise self._bad(f"it is text, but no JSON: {words(error)}") from error
        if isinstance(value, Mapping):
            value = self._by_columns(value)
        if not isinstance(value, (list, tuple)):
            raise self._bad(f"expected a list of turns, got {type_name(value)} {shown(value)}")
        return value

    def _by_columns(self, columns: Mapping[str, object]) -> object:
        """Turns that stand there as an object of lists, as some datasets have them."""
        lists = {name: values for name, values in columns.items() if isinstance(values, list)}
        if not lists or len({len(values) for values in lists.values()}) > 1:
            return columns
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def _turn(self, number: int, item: object, n_turns: int) -> Turn:
        spec, where = self._spec, f"turn {number}"
        if not isinstance(item, Mapping):
            raise self._bad(f"{where} is no object but {type_name(item)} {shown(item)}")
        written = next((item[name] for name in spec.role if item.get(name) is not None), None)
        if not isinstance(written, str) or not written:
            raise self._bad(
                f"{where} has no role: looked for {', '.join(spec.role)} in {shown(list(item))}; "
                "correct source.conversation.role"
            )
        role = self._roles.get(written, written)
        content = self._content(item, where)
        text, is_last = "\n".join(content.texts), number == n_turns - 1
        think = content.think
        if is_last or role in spec.response_roles:
            text, tagged = self._split(text, where)
            think = [*think, *tagged]
        beside = [item.get(name) for name in spec.think] if is_last else []
        think = [value for value in (*beside, *think) if isinstance(value, str) and value.strip()]
        return Turn(role, text, tuple(think), content.n_other_parts)

    def _content(self, item: Mapping[str, object], where: str) -> _Content:
        names = [name for name in self._spec.content if name in item]
        if not names:
            raise self._bad(
                f"{where} has no text: looked for {', '.join(self._spec.content)} in "
                f"{shown(list(item))}; correct source.conversation.content"
            )
        value = next((item[name] for name in names if item[name] is not None), None)
        content = _Content()
        if value is None:  # a turn that only calls a tool
            return content
        parts = value if isinstance(value, (list, tuple)) else [value]
        for part in parts:
            if isinstance(part, str):
                content.texts.append(part)
            elif isinstance(part, Mapping) and parts is value:
                content.add(part)
            else:
                raise self._bad(f"the text of {where} is {type_name(part)} {shown(part)}")
        return content

    def _split(self, text: str, where: str) -> tuple[str, list[str]]:
        """A text without its thinking, and the thinking.

        An end without a beginning ends thinking that began with the text: chat templates write the
        beginning themselves.
        """
        tags = [] if self._tags is None else list(self._tags.finditer(text))
        answer: list[str] = []
        think: list[str] = []
        begin: int | None = None
        end = 0
        for tag in tags:
            is_end = tag[0] != self._opening
            if not is_end and begin is None:
                answer.append(text[end : tag.start()])
                begin = tag.end()
            elif is_end:
                if begin is None and end:
                    raise self._bad(f"{where}: {tag[0]} at character {tag.start()} ends nothing")
                think.append(text[begin or 0 : tag.start()].strip())
                begin, end = None, tag.end()
        if begin is not None:
            raise self._bad(
                f"{where}: the thinking that begins at character {begin} is not closed; the answer "
                "was cut off, or set source.conversation.think_tags"
            )
        if not tags:
            return text, []
        pieces = [piece.strip() for piece in (*answer, text[end:])]
        return "\n\n".join(filter(None, pieces)), think

    def _bad(self, problem: str) -> RejectedInput:
        return RejectedInput(BAD_CONVERSATION, f"field {self._spec.messages!r}: {problem}")


@dataclass(slots=True)
class _Content:
    """What a turn holds, by kind."""

    texts: list[str] = field(default_factory=list)
    think: list[str] = field(default_factory=list)
    n_other_parts: int = 0

    def add(self, part: Mapping[str, object]) -> None:
        """Take a part of a text by its type."""
        kind, text = part.get("type"), part.get("text")
        if kind in THINKING:
            thought = part.get(str(kind)) or text
            if isinstance(thought, str):
                self.think.append(thought.strip())
        elif isinstance(text, str):
            self.texts.append(text)
        else:
            self.n_other_parts += 1
