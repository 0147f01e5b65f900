"""Conversations: turns of chat datasets become prompt, thinking and response."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedding_core.recipe import SourceSpec
from embedding_core.recipe.mapping.conversation import DERIVED, ConversationSpec
from embedding_core.records import Document
from embedding_core.sources.mapping.turns import Conversation
from tests.sources.record_files import NESTED, read, read_records, rejects, texts

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "<think>Old thought.</think>Because."},
    {"role": "user", "content": "And how?"},
    {"role": "assistant", "content": "<think>\nA thought.\n</think>\n\nLike so."},
]
SHARED = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]


def turns(*pairs: tuple[str, object]) -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role, content in pairs]


def derived(messages: object, **options: Any) -> dict[str, object]:
    spec = ConversationSpec.model_validate(options)
    return Conversation(spec).derived({spec.messages: messages})


@pytest.mark.parametrize("format", NESTED)
def test_chat_gives_every_derived_field_in_every_format(tmp_path: Path, format: str) -> None:
    columns = {name: "int" if name.startswith("num_") else "string" for name in DERIVED}
    (item,) = read_records(
        tmp_path,
        {"prompt_id": "p1", "messages": CHAT},
        format=format,
        id="prompt_id",
        text="{prompt}\n<t>{think|}</t>\n{response}",
        conversation="messages",
        metadata=columns,
    )
    assert isinstance(item, Document)
    assert item.doc_id == "p1"
    assert item.text == ("Be brief.\n\nWhy?\n\nBecause.\n\nAnd how?\n<t>A thought.</t>\nLike so.")
    assert item.metadata == {
        "prompt": "Be brief.\n\nWhy?\n\nBecause.\n\nAnd how?",
        "response": "Like so.",
        "think": "A thought.",
        "system": "Be brief.",
        "question": "And how?",
        "roles": "system,user,assistant",
        "last_role": "assistant",
        "num_turns": 5,
        "num_other_parts": 0,
    }


@pytest.mark.parametrize(
    "text", ["{response} {think} {prompt}", "{prompt} {think} {response}", "{think}"]
)
def test_template_chooses_the_order(tmp_path: Path, text: str) -> None:
    chat = turns(("user", "P"), ("assistant", "<think>T</think>R"))
    (item,) = texts(read_records(tmp_path, {"m": chat}, conversation="m", text=text))
    assert item == text.format(prompt="P", think="T", response="R")


def test_names_of_sharegpt_are_understood_and_roles_translated(tmp_path: Path) -> None:
    items = read_records(
        tmp_path,
        {"conversations": SHARED},
        conversation="conversations",
        text="{prompt} {response} {roles}",
    )
    assert texts(items) == ["Why? Because. user,assistant"]


def test_other_names_of_turns_and_roles_are_declared() -> None:
    chat = [{"who": "Bob", "says": "Why?"}, {"who": "Eva", "says": "Because."}]
    roles = {"Bob": "user", "Eva": "assistant"}
    fields = derived(chat, role="who", content=["text", "says"], roles=roles)
    assert (fields["prompt"], fields["response"]) == ("Why?", "Because.")


def test_labels_separator_and_roles_make_up_the_prompt() -> None:
    labels = {"user": "User: ", "assistant": "Assistant: "}
    fields = derived(CHAT, labels=labels, separator="\n", prompt_roles=["user", "assistant"])
    assert fields["prompt"] == "User: Why?\nAssistant: Because.\nUser: And how?"
    assert fields["system"] == "Be brief."


def test_prefix_keeps_a_field_of_the_record_reachable(tmp_path: Path) -> None:
    record = {"prompt": "of the record", "messages": SHARED}
    options = {"messages": "messages", "prefix": "chat_"}
    items = read_records(tmp_path, record, conversation=options, text="{prompt}, {chat_prompt}")
    assert texts(items) == ["of the record, Why?"]
    assert texts(read_records(tmp_path, record, conversation="messages", text="prompt")) == ["Why?"]


def test_json_text_and_columns_of_turns_are_conversations(tmp_path: Path) -> None:
    columns = {"from": ["human", "gpt"], "value": ["Why?", "Because."]}
    for messages in (json.dumps(SHARED), json.dumps(columns), columns):
        for format in NESTED:
            items = read_records(
                tmp_path,
                {"m": messages},
                format=format,
                conversation="m",
                text="{prompt} {response}",
            )
            assert texts(items) == ["Why? Because."]
    cell = json.dumps(SHARED).replace('"', '""')
    (tmp_path / "b.csv").write_text(f'id,m\n007,"{cell}"\n')
    items = read(tmp_path / "b.csv", id="id", conversation="m", text="{prompt} {response}")
    assert texts(items) == ["Why? Because."]


def test_conversation_may_be_inside_an_object(tmp_path: Path) -> None:
    for format in NESTED:
        items = read_records(
            tmp_path,
            {"data": {"chats": [{"turns": SHARED}]}},
            format=format,
            conversation="data.chats[0].turns",
            text="response",
        )
        assert texts(items) == ["Because."]


def test_parts_of_a_text_are_joined_and_others_counted() -> None:
    parts = [
        {"type": "thinking", "thinking": "T"},
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "x"}},
        "two",
    ]
    fields = derived(turns(("user", parts), ("assistant", parts)))
    assert (fields["prompt"], fields["response"], fields["think"]) == ("one\ntwo", "one\ntwo", "T")
    assert fields["num_other_parts"] == 2


def test_thinking_beside_the_text_comes_first_where_the_recipe_names_it() -> None:
    chat = turns(("user", "Why?"), ("assistant", "<think>tagged</think>Because."))
    chat[1]["reasoning_content"] = "beside"
    assert derived(chat)["think"] == "tagged"
    assert derived(chat, think="reasoning_content")["think"] == "beside\n\ntagged"
    chat[1]["reasoning_content"] = None
    assert derived(chat, think="reasoning_content")["think"] == "tagged"


@pytest.mark.parametrize(
    ("text", "think", "response"),
    [
        ("plain\n", None, "plain\n"),
        ("<think></think>R", None, "R"),
        ("<think>\n</think>\nR", None, "R"),
        (" <think>T</think> R ", "T", "R"),
        ("T</think>R", "T", "R"),
        ("<think>a<think>b</think>R", "a<think>b", "R"),
        ("<think>a</think>x<think>b</think>y", "a\n\nb", "x\n\ny"),
        ("<think>T</think>", "T", ""),
        ("<Think>", None, "<Think>"),
    ],
)
def test_thinking_is_split_off_the_response(text: str, think: str | None, response: str) -> None:
    fields = derived(turns(("user", "P"), ("assistant", text)))
    assert (fields["think"], fields["response"]) == (think, response)


def test_think_tags_may_be_others_or_none() -> None:
    chat = turns(("user", "<think>P"), ("assistant", "[T]a[/T]<think>R"))
    assert derived(chat, think_tags=["[T]", "[/T]"])["response"] == "<think>R"
    assert derived(chat, think_tags=None)["response"] == "[T]a[/T]<think>R"
    assert derived(chat, think_tags=None)["prompt"] == "<think>P"


@given(st.text(), st.text().filter(str.strip))
def test_text_without_tags_is_kept_exactly(prompt: str, response: str) -> None:
    fields = derived(turns(("user", prompt), ("assistant", response)), think_tags=None)
    assert fields["response"] == response
    assert fields["prompt"] == (prompt or None)


def test_turn_that_only_calls_a_tool_has_no_text(tmp_path: Path) -> None:
    calls = [{"name": "look", "arguments": "{}"}]
    chat = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "seen"},
        {"role": "assistant", "content": "Done."},
    ]
    fields = derived(chat)
    assert (fields["prompt"], fields["response"]) == ("Look\n\nseen", "Done.")
    assert fields["roles"] == "user,assistant,tool" and fields["num_turns"] == 4
    items = read_records(tmp_path, {"messages": chat[:2]}, conversation="messages", text="response")
    assert rejects(items)[0][1] == "empty_text"


@pytest.mark.parametrize(
    ("messages", "reason", "words"),
    [
        (None, "missing_field", "field 'messages', the conversation, is null"),
        (3, "bad_conversation", "expected a list of turns, got int 3"),
        ({"role": "user"}, "bad_conversation", "expected a list of turns, got object"),
        ({"role": ["user"], "content": []}, "bad_conversation", "expected a list of turns"),
        ([], "bad_conversation", "no turns"),
        ("[]", "bad_conversation", "no turns"),
        ("hello", "bad_conversation", "text, but no JSON"),
        ("[{'role': 'user'}]", "bad_conversation", "text, but no JSON"),
        (["hello"], "bad_conversation", "turn 0 is no object but string 'hello'"),
        ([{"content": "x"}], "bad_conversation", "turn 0 has no role: looked for role, from"),
        ([{"role": None, "content": "x"}], "bad_conversation", "turn 0 has no role"),
        ([{"role": 1, "content": "x"}], "bad_conversation", "turn 0 has no role"),
        ([{"role": "", "content": "x"}], "bad_conversation", "turn 0 has no role"),
        ([{"role": "user"}], "bad_conversation", "turn 0 has no text: looked for content, value"),
        ([{"role": "user", "content": 3}], "bad_conversation", "text of turn 0 is int 3"),
        ([{"role": "user", "content": [3]}], "bad_conversation", "text of turn 0 is int 3"),
        ([{"role": "user", "content": {}}], "bad_conversation", "text of turn 0 is object"),
        (turns(("user", "x")), "bad_conversation", "the last turn is by 'user'"),
        (turns(("assistant", "<think>x")), "bad_conversation", "is not closed"),
        (turns(("assistant", "<think>a</think>b</think>")), "bad_conversation", "ends nothing"),
        (turns(("assistant", "<think>a"), ("assistant", "b")), "bad_conversation", "turn 0"),
    ],
)  # fmt: skip
def test_bad_shape_is_rejected_and_its_neighbour_is_read(
    tmp_path: Path, messages: object, reason: str, words: str
) -> None:
    good = {"id": "good", "messages": SHARED}
    items = read_records(
        tmp_path,
        {"id": "bad", "messages": messages},
        good,
        id="id",
        conversation="messages",
        text="response",
    )
    ((position, rejected, detail),) = rejects(items)
    assert (position, rejected) == (0, reason) and words in detail and len(detail) < 400
    assert isinstance(items[1], Document) and items[0].doc_id == "bad"


def test_record_without_the_field_is_rejected(tmp_path: Path) -> None:
    items = read_records(tmp_path, {"id": "a"}, conversation="messages", text="response")
    assert rejects(items)[0][1] == "missing_field"


def test_conversation_of_one_turn_has_no_prompt(tmp_path: Path) -> None:
    record = {"m": turns(("assistant", "R"))}
    items = read_records(tmp_path, record, conversation="m", text="{prompt|}{response}")
    assert texts(items) == ["R"]
    items = read_records(tmp_path, record, conversation="m", text="{prompt}{response}")
    assert rejects(items)[0][1] == "missing_field"


def test_last_turn_may_be_by_another_role_where_the_recipe_says_so() -> None:
    assert derived(turns(("user", "P")), response_roles=["user"])["response"] == "P"


@pytest.mark.parametrize(
    "options", [{"think_tags": ["", "x"]}, {"think_tags": ["x", "x"]}, {"role": []}, {"rol": "x"}]
)
def test_wrong_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SourceSpec.model_validate({"uri": "/data", "conversation": options})
