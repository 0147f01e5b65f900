"""Values in filters are quoted, never pasted."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import UsageError
from embedding_core.lake.filters import bind, is_in, quote


def test_quote_string_with_sql_in_it_stays_one_string() -> None:
    assert quote("x' OR 1=1 --") == "'x'' OR 1=1 --'"


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (3, "3"),
        (1.5, "1.5"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "TIMESTAMP '2026-01-02 03:04:05.000000'"),
    ],
)
def test_quote_plain_value_is_its_sql_literal(value: object, literal: str) -> None:
    assert quote(value) == literal  # type: ignore[arg-type]


def test_quote_infinite_number_is_refused() -> None:
    with pytest.raises(UsageError, match="finite"):
        quote(float("inf"))


def test_is_in_without_values_matches_nothing() -> None:
    assert is_in("id", []) == "FALSE"


def test_bind_names_inside_quotes_stay_text() -> None:
    assert bind("a = ':a' AND b = :b", {"b": "it's"}) == "a = ':a' AND b = 'it''s'"


def test_bind_cast_is_not_a_parameter() -> None:
    assert bind("a::int = :n", {"n": 1}) == "a::int = 1"


def test_bind_unknown_name_says_which_exist() -> None:
    with pytest.raises(UsageError, match=r":year .*\(title\)"):
        bind("year = :year", {"title": "x"})


def test_bind_unused_value_is_refused() -> None:
    with pytest.raises(UsageError, match="'year'"):
        bind("title = 'x'", {"year": 1})


@given(st.text())
def test_quote_any_text_has_no_lone_quote(text: str) -> None:
    inside = quote(text)[1:-1]
    assert "'" not in inside.replace("''", "")
