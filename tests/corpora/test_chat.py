"""`chat.yaml`: prompt, thinking and response of 16 sources, with an audit and samples."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from embedding_core.runs.embed.planning import plan
from embedlake import embed
from tests.corpora.conftest import Trial, Try, hashing_tokens
from tests.corpora.samples import CHAT_MAX_TOKENS, CHAT_SOURCES, chat_record, write_json_lines
from tests.driver import rejects, rows

pytestmark = pytest.mark.slow

SEEDED = "sample: {rows: 1000, per: source, seed: 7}"
FIVE = {SEEDED: "sample: {rows: 5, per: source, seed: 7}"}
OF_ALGEBRA = ["algebra-1", "algebra-13", "algebra-14", "algebra-4", "algebra-9"]
"""Those of one source among ``FIVE``."""
FIRST_FIVE = {SEEDED: "sample: {rows: 5, per: source, top: true}"}


@dataclass(frozen=True)
class Conversation:
    """A record of the sample, read by plain Python."""

    path: str
    position: int
    id: str
    source: str
    n_turns: int
    text: str | None
    """None for one that is no conversation with an answer."""


def conversations(trial: Trial) -> Iterator[Conversation]:
    """Every record, in the order of files and lines."""
    for path in sorted(trial.data.rglob("*.jsonl*")):
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
        for position, line in enumerate(lines):
            record = json.loads(line)
            turns = record["messages"]
            name = str(path.relative_to(trial.data))
            yield Conversation(
                name, position, record["id"], record["source"], len(turns), text_of(turns)
            )


def text_of(messages: list[dict[str, Any]]) -> str | None:
    """Prompt, thinking and response, a blank line between each."""
    *before, last = messages
    thinking, response = thought_of(last["content"])
    if last["role"] != "assistant" or response is None:
        return None
    prompt = "\n\n".join(
        f"{turn['role'].title()}: {thought_of(turn['content'])[1]}" for turn in before
    )
    return f"{prompt}\n\n{thinking}\n\n{response}".strip()


def thought_of(content: str) -> tuple[str, str | None]:
    """(thinking, response) of a turn; no response where the thinking does not end."""
    if not content.startswith("<think>"):
        return "", content
    thinking, end, response = content.removeprefix("<think>").partition("</think>")
    return thinking.strip(), response.strip() if end else None


def members(trial: Trial) -> dict[str, set[str]]:
    """Ids in the table by source."""
    by_source: dict[str, set[str]] = defaultdict(set)
    for row in rows(trial.recipe, "source", "doc_id"):
        by_source[row["source"]].add(row["doc_id"])
    return dict(by_source)


def test_chat_rows_are_prompt_thinking_and_response(trial: Try) -> None:
    made = trial("chat")
    report = made.embed()
    expected = sorted(
        (entry.path, entry.id, entry.source, entry.n_turns, entry.text, tokens)
        for entry in conversations(made)
        if entry.text is not None and (tokens := hashing_tokens(entry.text)) <= CHAT_MAX_TOKENS
    )
    columns = ("source_uri", "doc_id", "source", "num_turns", "text", "n_tokens")
    assert expected == sorted(
        (made.file(row), *(row[name] for name in columns[1:]))
        for row in rows(made.recipe, *columns)
    )
    assert {source for _, _, source, *_ in expected} == set(CHAT_SOURCES)
    assert max(tokens for *_, tokens in expected) == CHAT_MAX_TOKENS  # one that just fits
    assert (report.outcome, report.rows, report.dropped) == ("done", len(expected), 2)
    assert sum(report.rejects.values()) + report.rows == len(list(conversations(made)))


def test_chat_audit_has_tokens_position_and_text_of_what_is_dropped(trial: Try) -> None:
    made = trial("chat")
    made.embed()
    dropped = [row for row in rejects(made.recipe) if row["reason"] == "over_length"]
    assert [
        (made.file(row), row["position"], row["doc_id"], row["n_tokens"], row["text"])
        for row in dropped
    ] == [
        (entry.path, entry.position, entry.id, tokens, entry.text)
        for entry in conversations(made)
        if entry.text is not None and (tokens := hashing_tokens(entry.text)) > CHAT_MAX_TOKENS
    ]
    assert [row["n_tokens"] for row in dropped] == [CHAT_MAX_TOKENS + 1, 40_003]
    unusable = [row["doc_id"] for row in rejects(made.recipe) if row not in dropped]
    assert unusable == ["chess-5", "facts-6"]


def test_chat_first_ones_of_each_source(trial: Try) -> None:
    made = trial("chat", edits=FIRST_FIVE)
    report = made.embed()
    taken: Counter[str] = Counter()
    expected: dict[str, set[str]] = defaultdict(set)
    for entry in conversations(made):
        if entry.text is not None and taken[entry.source] < 5:
            taken[entry.source] += 1
            if hashing_tokens(entry.text) <= CHAT_MAX_TOKENS:
                expected[entry.source].add(entry.id)
    assert members(made) == expected
    assert set(taken.values()) == {5}
    assert len(expected["code"]) == 4, "what is dropped for its length was chosen before"
    assert report.left_out == sum(entry.text is not None for entry in conversations(made)) - 80


def test_chat_seeded_sample_is_the_same_everywhere_and_stays(trial: Try) -> None:
    made = trial("chat", edits=FIVE)
    made.embed()
    chosen = members(made)
    assert {source: len(ids) for source, ids in chosen.items()} == dict.fromkeys(CHAT_SOURCES, 5)
    assert sorted(chosen["algebra"]) == OF_ALGEBRA, "the same with every version of embedlake"
    elsewhere = trial("chat", folder="elsewhere", edits=FIVE)
    elsewhere.embed()
    assert members(elsewhere) == chosen
    other_seed = {SEEDED: "sample: {rows: 5, per: source, seed: 8}"}
    other = trial("chat", folder="other", edits=other_seed)
    other.embed()
    assert members(other) != chosen
    more = [chat_record(source, n) for n in range(100, 104) for source in CHAT_SOURCES]
    write_json_lines(made.data / "part-2" / "chat-00004-of-00005.jsonl", more)
    assert embed(made.recipe).outcome == "done"
    assert members(made) == chosen, "a corpus that grows keeps its sample"
    assert plan(made.recipe).is_empty
