"""Values in filters are quoted, never pasted."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import UsageError
from embedding_core.lake.filters import bind, is_in, quote
from embedding_core.records import ColumnType, Scalar


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
        (datetime(999, 1, 2, tzinfo=UTC), "TIMESTAMP '0999-01-02 00:00:00.000000'"),
        (datetime(1, 1, 1), "TIMESTAMP '0001-01-01 00:00:00.000000'"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "(-9223372036854775807 - 1)"),
    ],
)
def test_quote_plain_value_is_its_sql_literal(value: object, literal: str) -> None:
    assert quote(value) == literal  # type: ignore[arg-type]


def test_quote_infinite_number_is_refused() -> None:
    with pytest.raises(UsageError, match="finite"):
        quote(float("inf"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
        (date(2024, 1, 1), "a date cannot be compared"),
    ],
)
def test_quote_value_that_no_column_holds_is_refused(value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        quote(value)  # type: ignore[arg-type]


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


TYPES: dict[str, ColumnType] = {
    "t": "timestamp", "n": "int", "f": "float", "b": "bool", "drink": "string",
}  # fmt: skip
MIDNIGHT = "TIMESTAMP '2024-01-01 00:00:00.000000'"


@pytest.mark.parametrize(
    ("where", "bound"),
    [
        ("t >= :v", f"t >= {MIDNIGHT}"),
        (":v < t", f"{MIDNIGHT} < t"),
        ("T=:v AND NOT t = :v", f"T={MIDNIGHT} AND NOT t = {MIDNIGHT}"),
        ("`t` = :v", f"`t` = {MIDNIGHT}"),
        ('"t" = :v', f"`t` = {MIDNIGHT}"),
        ("t NOT IN (:v, '2024-01-01')", f"t NOT IN ({MIDNIGHT}, {MIDNIGHT})"),
        ("t BETWEEN :v AND :v", f"t BETWEEN {MIDNIGHT} AND {MIDNIGHT}"),
        ("t not between :v and :v", f"t not between {MIDNIGHT} and {MIDNIGHT}"),
        ("t > '2024-01-01'", f"t > {MIDNIGHT}"),
        ("t > TIMESTAMP '2024-01-01'", "t > TIMESTAMP '2024-01-01'"),
        ("drink = :v", "drink = '2024-01-01'"),
        ("nope = :v", "nope = '2024-01-01'"),
        ("CAST(t AS string) = :v", "CAST(t AS string) = '2024-01-01'"),
        (":v = lower(t)", "'2024-01-01' = lower(t)"),
        ("arrow_cast(t, 'Utf8') = :v", "arrow_cast(t, 'Utf8') = '2024-01-01'"),
    ],
)
def test_bind_text_is_read_as_its_column_s_type(where: str, bound: str) -> None:
    params = {"v": "2024-01-01"} if ":v" in where else {}
    assert bind(where, params, TYPES) == bound


@pytest.mark.parametrize(
    ("where", "value", "bound"),
    [
        ("n = :v", "7", "n = 7"),
        ("n = :v", "-9223372036854775808", "n = (-9223372036854775807 - 1)"),
        ("n = :v", 7.0, "n = 7"),
        ("f > :v", "1e-3", "f > 0.001"),
        ("b = :v", "true", "b = TRUE"),
        ("n = :v", None, "n = NULL"),
    ],
)
def test_bind_value_is_that_of_its_column(where: str, value: Scalar, bound: str) -> None:
    assert bind(where, {"v": value}, TYPES) == bound


@pytest.mark.parametrize("where", ["t = :v", "n IN (1, :v)", "b = :v", "f = :v"])
def test_bind_text_of_another_type_is_refused_with_its_column(where: str) -> None:
    with pytest.raises(UsageError, match="cannot be compared: expected"):
        bind(where, {"v": "x' OR 1=1 --"}, TYPES)


@pytest.mark.parametrize(
    ("where", "bound"),
    [
        ('"Drink" = \'"tea"\'', "`Drink` = '\"tea\"'"),
        ('"a""b" = 1', '`a"b` = 1'),
        ("`Drink` = 'x'", "`Drink` = 'x'"),
    ],
)
def test_bind_quoted_name_is_in_lance_s_quotes(where: str, bound: str) -> None:
    assert bind(where, {}) == bound


@given(st.text(st.characters(exclude_characters='":')))
def test_bind_text_without_names_stays_as_it_is(where: str) -> None:
    assert bind(where, {}) == where


@given(st.text())
def test_quote_any_text_has_no_lone_quote(text: str) -> None:
    inside = quote(text)[1:-1]
    assert "'" not in inside.replace("''", "")
