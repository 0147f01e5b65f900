"""Paths to fields, wherever a recipe names a field, in every format that has nested fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput, UsageError
from embedding_core.recipe import Recipe
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import Document
from tests.sources.record_files import NESTED, read, read_records, rejects, texts, write

CHAT = {
    "id": "a",
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good day"},
    ],
    "meta": {"tags": ["x", "y"], "No. [kg]": {"unit": "g"}},
}
EMPTY = {"id": "b", "messages": [], "meta": {"tags": [], "No. [kg]": None}}


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("title", ("title",)),
        ("two words.e-mail", ("two words", "e-mail")),
        ("messages[0].content", ("messages", 0, "content")),
        ("messages[-12]", ("messages", -12)),
        ("grid[0][1]", ("grid", 0, 1)),
        ("['a.b'].c", ("a.b", "c")),
        ('a[\'it\'\'s\']["say ""x"""]', ("a", "it's", 'say "x"')),
        ("it's|{}", ("it's|{}",)),
    ],
)
def test_path_has_its_steps(written: str, steps: tuple[str | int, ...]) -> None:
    assert FieldPath.parse(written).steps == steps


@pytest.mark.parametrize(
    ("written", "character", "problem"),
    [
        ("", 1, "a name is missing"),
        (".a", 1, "a name is missing"),
        ("a.", 3, "a name is missing"),
        ("a..b", 3, "a name is missing"),
        ("a[", 2, "brackets hold a number"),
        ("a[]", 2, "brackets hold a number"),
        ("a[x]", 2, "brackets hold a number"),
        ("a[1", 2, "brackets hold a number"),
        ("a['x]", 2, "brackets hold a number"),
        ("price [EUR]", 7, "brackets hold a number"),
        ("a[0]b", 5, "expected a dot or a bracket"),
        ("a]", 2, "expected a dot or a bracket"),
        ("a.[0]", 3, "a number in brackets follows the name of a list"),
        ("[0]", 1, "a number in brackets follows the name of a list"),
        ("a.['b']", 3, "a name in brackets follows no dot"),
    ],
)
def test_what_is_no_path_is_told_with_its_position_and_the_way_out(
    written: str, character: int, problem: str
) -> None:
    with pytest.raises(ValueError) as caught:
        FieldPath.parse(written)
    assert f"at character {character} {problem}" in str(caught.value)
    assert "items[0]" in str(caught.value) and "['any name']" in str(caught.value)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_any_name_can_be_written_in_quotes(names: list[str]) -> None:
    written = "".join("['" + name.replace("'", "''") + "']" for name in names)
    assert FieldPath.parse(written).steps == tuple(names)


@given(st.text())
def test_any_text_is_a_path_or_a_value_error(text: str) -> None:
    try:
        path = FieldPath.parse(text)
    except ValueError:
        return
    assert path.written == text and isinstance(path.steps[0], str)


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"id": "a["}, "source.id"),
        ({"text": "a[x]"}, "source.text"),
        ({"text": "{title} {a[x]}"}, "source.text"),
        ({"metadata": {"n": {"field": "a..b", "type": "int"}}}, "source.metadata.n.field"),
        ({"conversation": "turns["}, "source.conversation.messages"),
    ],
)
def test_recipe_with_a_wrong_path_is_refused_with_its_field(
    source: dict[str, Any], field: str
) -> None:
    content = {
        "name": "r",
        "source": {"uri": "/data", **source},
        "model": {"name": "hashing"},
        "lake": {"uri": "/lake", "table": "t"},
    }
    with pytest.raises(UsageError, match=rf"{field}: .*is no path to a field: at character \d"):
        Recipe.load(content)


@pytest.mark.parametrize("format", NESTED)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("messages[0].content", "hello"),
        ("messages[-1].content", "good day"),
        ("messages[1]['role']", "assistant"),
        ("meta.tags[1]", "y"),
        ("meta['No. [kg]'].unit", "g"),
        ("['meta'].tags[-2]", "x"),
    ],
)
def test_path_leads_into_objects_and_lists_for_id_text_and_metadata(
    tmp_path: Path, format: str, path: str, value: str
) -> None:
    columns = {"n": {"field": path, "type": "string"}}
    (item,) = read_records(
        tmp_path, CHAT, format=format, id=path, text="<{" + path + "}>", metadata=columns
    )
    assert isinstance(item, Document)
    assert (item.doc_id, item.text, item.metadata) == (value, f"<{value}>", {"n": value})


@pytest.mark.parametrize("format", NESTED)
@pytest.mark.parametrize("path", ["messages[0].content", "messages[-1].content", "meta.tags[0]"])
def test_record_whose_path_leads_nowhere_is_rejected_and_its_neighbour_is_read(
    tmp_path: Path, format: str, path: str
) -> None:
    first, second = read_records(tmp_path, CHAT, EMPTY, format=format, id="id", text=path)
    assert isinstance(first, Document)
    assert rejects([second])[0][:2] == (1, "missing_field")
    assert f"field {path!r} is missing" in rejects([second])[0][2]
    columns = {"n": {"field": path, "type": "string"}}
    items = read_records(tmp_path, CHAT, EMPTY, format=format, text="id", metadata=columns)
    assert [item.metadata["n"] is None for item in items if isinstance(item, Document)] == [
        False,
        True,
    ]


@pytest.mark.parametrize("format", NESTED)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("id.x", ""),
        ("id[0]", "expected list, for the path 'id[0]', got string 'a'"),
        ("messages.content", ""),
        ("meta[0]", "expected list, for the path 'meta[0]', got object"),
        ("messages[0][0]", "field 'messages[0]': expected list"),
    ],
)
def test_record_with_another_shape_on_the_way_is_of_the_wrong_type(
    tmp_path: Path, format: str, path: str, words: str
) -> None:
    ((position, reason, detail),) = rejects(read_records(tmp_path, CHAT, format=format, text=path))
    assert (position, reason) == (0, "wrong_type")
    assert words in detail


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv"])
def test_field_of_the_whole_name_comes_first(tmp_path: Path, format: str) -> None:
    path = "tags[0].name"
    if format == "csv":
        (tmp_path / "a.csv").write_text(f'tags,"{path}"\nx,literal\n')
        items = read(tmp_path / "a.csv", text=path)
    else:
        record = {"tags": [{"name": "nested"}], path: "literal"}
        items = read_records(tmp_path, record, format=format, text=path)
    assert texts(items) == ["literal"]
    nested = {"meta": {"tags": ["nested"], "tags[0]": "literal"}}
    if format != "csv":
        assert texts(read_records(tmp_path, nested, format=format, text="meta.tags[0]")) == [
            "literal"
        ]


def test_path_into_a_csv_cell_is_of_the_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("meta,text\nx,y\n")
    columns = {"n": {"field": "meta.tags[0]", "type": "string"}}
    ((_, reason, detail),) = rejects(read(tmp_path / "a.csv", metadata=columns))
    assert reason == "wrong_type" and "field 'meta': expected object" in detail


def test_columnar_file_without_the_column_of_a_path_is_rejected_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [{"id": "a"}])
    with pytest.raises(RejectedInput, match=r"no column 'messages\[0\]'"):
        read(path, text="messages[0]")
    assert read(path, text="id", metadata={"n": {"field": "messages[0]", "type": "int"}}) != []
