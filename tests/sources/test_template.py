"""Text templates."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.recipe import SourceSpec
from embedding_core.recipe.mapping.template import Placeholder, TextTemplate
from embedding_core.sources.mapping.readers import text_reader
from tests.sources.record_files import NESTED, read, read_records, rejects, texts

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def rendered(template: str, **fields: object) -> str:
    return text_reader(SourceSpec(uri="/data", text=template))(fields)


def placeholders(template: str) -> list[tuple[str, str | None]]:
    return [(part.path.written, part.default) for part in TextTemplate.parse(template).placeholders]


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        ("body", ["body"], "<body>"),
        ("title|x", ["title|x"], "<title|x>"),
        ("{title}", ["title"], "<title>"),
        ("{title}\n{text}", ["title", "text"], "<title>\n<text>"),
        ("{a}{b}{a}", ["a", "b", "a"], "<a><b><a>"),
        ("{{{a}}} %s", ["a"], "{<a>} %s"),
        ("{two words}: {e-mail}", ["two words", "e-mail"], "<two words>: <e-mail>"),
        ("{['a|}b']}", ["['a|}b']"], "<a|}b>"),
    ],
)
def test_fields_are_set_in_where_the_template_names_them(
    template: str, fields: list[str], text: str
) -> None:
    assert [path for path, _ in placeholders(template)] == fields
    names = [str(part.path.steps[0]) for part in TextTemplate.parse(template).placeholders]
    assert rendered(template, **{name: f"<{name}>" for name in names}) == text


@pytest.mark.parametrize(
    ("template", "default"),
    [
        ("{a|untitled}", "untitled"),
        ("{a|}", ""),
        ("{a| two words }", " two words "),
        ("{a|x|y}", "x|y"),
        ("{a|'x } {{ |'}", "x } {{ |"),
        ('{a|"say ""x"""}', 'say "x"'),
        ("{a|'tis}", "'tis"),
        ("{a|\n}", "\n"),
        ("{a.b[0]|x}", "x"),
    ],
)
def test_default_stands_for_a_field_that_is_missing_or_null(template: str, default: str) -> None:
    template = "x" + template
    assert placeholders(template)[0][1] == default
    assert rendered(template) == "x" + default
    assert rendered(template, a=None) == "x" + default


def test_default_stands_for_nan_and_not_for_an_empty_or_wrong_value(tmp_path: Path) -> None:
    assert rendered("x{a|y}", a=math.nan) == "xy"
    assert rendered("x{a|y}", a="") == "x"
    assert rendered("x{a|y}", a=3) == "x3"
    ((_, reason, _),) = rejects(read_records(tmp_path, {"a": ["z"]}, text="x{a|y}"))
    assert reason == "wrong_type"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "empty"),
        ("{a!r}", "no field name"),
        ("{a:>10}", "no field name"),
        ("{!r}", "no field name"),
        ("{}", "character 1: '' is no path"),
        ("{x} {a[x]}", "character 5: 'a[x]' is no path"),
        ("{a", "character 1: '{' is not closed"),
        ("{x} {a|y", "character 5: '{' is not closed"),
        ("{a|{b}}", "character 1: '{' is not closed"),
        ("a}", "character 2: '}' closes nothing"),
        ("{a|}}", "character 5: '}' closes nothing"),
        ("{{a}}", "names no field"),
    ],
)
def test_anything_else_is_told_with_its_position_and_the_way_out(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"use a field name|write names") as caught:
        TextTemplate.parse(template)
    assert words in str(caught.value)


@given(ANY, ANY)
def test_values_are_never_read_as_templates(first: str, second: str) -> None:
    assert rendered("-{a}|{b}", a=first, b=second) == f"-{first}|{second}"


@given(ANY, ANY)
def test_any_literal_text_and_default_can_be_written(literal: str, default: str) -> None:
    written = literal.replace("{", "{{").replace("}", "}}")
    quoted = "'" + default.replace("'", "''") + "'"
    pieces = TextTemplate.parse(f"{written}{{a|{quoted}}}").pieces
    (placeholder,) = (piece for piece in pieces if isinstance(piece, Placeholder))
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == literal
    assert placeholder.default == default


@pytest.mark.parametrize("format", [*NESTED, "csv"])
def test_field_with_a_default_may_be_missing_in_a_record_and_in_a_whole_file(
    tmp_path: Path, format: str
) -> None:
    template = "{title|untitled}: {body}{note|}"
    if format == "csv":
        (tmp_path / "a.csv").write_text("title,body\na,x\nNA,y\n")
        formats = {"csv": {"nulls": ["NA"]}}
        items = read(tmp_path / "a.csv", text=template, formats=formats)
    else:
        records = [{"title": "a", "body": "x"}, {"title": None, "body": "y"}]
        items = read_records(tmp_path, *records, format=format, text=template)
    assert texts(items) == ["a: x", "untitled: y"]
