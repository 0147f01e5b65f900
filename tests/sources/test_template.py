"""Text templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import UsageError
from embedding_core.sources import TextTemplate


@pytest.mark.parametrize(
    ("template", "fields", "rendered"),
    [
        ("body", ("body",), "<body>"),
        ("meta.title", ("meta.title",), "<meta.title>"),
        ("{title}", ("title",), "<title>"),
        ("{title}\n{text}", ("title", "text"), "<title>\n<text>"),
        ("{a}{b}{a}", ("a", "b"), "<a><b><a>"),
        ("{{{a}}} %s", ("a",), "{<a>} %s"),
        ("{two words}: {e-mail}", ("two words", "e-mail"), "<two words>: <e-mail>"),
    ],
)
def test_fields_are_set_in_where_the_template_names_them(
    template: str, fields: tuple[str, ...], rendered: str
) -> None:
    parsed = TextTemplate.parse(template)
    assert parsed.fields == fields
    assert parsed.render({name: f"<{name}>" for name in fields}) == rendered


@pytest.mark.parametrize(
    "template",
    ["", "{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{}", "{a", "a}", "{{a}}", "{a:{b}}", "{!r}"],
)
def test_anything_else_is_a_usage_error_with_the_way_out(template: str) -> None:
    with pytest.raises(UsageError, match=r"source\.text.*(use a field name|field name)"):
        TextTemplate.parse(template)


@given(st.text(), st.text())
def test_values_are_never_read_as_templates(first: str, second: str) -> None:
    parsed = TextTemplate.parse("{a}|{b}")
    assert parsed.render({"a": first, "b": second}) == f"{first}|{second}"
