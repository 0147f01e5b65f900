"""Groups of a field's values: a colour each for the common ones, bins for numbers and dates."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from embedding_core.runs.look.fields import grouped


def test_few_values_have_a_group_each_the_most_frequent_first() -> None:
    groups = grouped("lang", ["b", "a", "b", None, "b", "a"])
    assert groups.labels == ("b", "a", "(no value)")
    assert groups.numbers == (0, 1, 0, 2, 0, 1)
    assert (groups.n_values, groups.n_named, groups.is_ordered) == (2, 2, False)


def test_ten_thousand_values_leave_ten_groups_and_the_others_together() -> None:
    values = [f"v{n}" for n in range(10_000)] + ["common"] * 3
    groups = grouped("id", values)
    assert groups.labels[0] == "common" and groups.labels[-1] == "(9,991 other values)"
    assert (len(groups.labels), groups.n_named, groups.n_values) == (11, 10, 10_001)
    assert groups.numbers.count(10) == 9_991


def test_a_value_that_looks_like_a_group_of_ours_is_a_value() -> None:
    groups = grouped("lang", ["(no value)", None, "(no value)"])
    assert (groups.labels, groups.numbers) == (("(no value)", "(no value)"), (0, 1, 0))
    assert groups.n_named == 1


def test_numbers_are_put_into_six_groups_of_about_the_same_size() -> None:
    groups = grouped("n", [float(n) for n in range(600)])
    assert groups.is_ordered and groups.labels[0] == "0 to 99" and len(groups.labels) == 6
    assert {groups.numbers.count(group) for group in range(6)} <= {99, 100, 101}
    assert list(groups.numbers) == sorted(groups.numbers)


def test_skewed_numbers_have_no_empty_group() -> None:
    values = [0] * 900 + list(range(100)) + [None]
    groups = grouped("n", values)
    assert all(groups.numbers.count(group) for group in range(len(groups.labels)))
    assert groups.labels[-1] == "(no value)" and groups.numbers[-1] == len(groups.labels) - 1


def test_numbers_beyond_those_of_floats_are_shown_as_they_are() -> None:
    groups = grouped("n", [2**53 + 1 + 2 * n for n in range(60)])
    assert groups.labels[0].startswith("9,007,199,254,740,993 to ")


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_numbers_that_are_none_count_as_no_value(odd: float) -> None:
    groups = grouped("n", [*map(float, range(50)), odd])
    assert groups.labels[groups.numbers[-1]] == "(no value)"


def test_dates_are_put_into_groups_by_day() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    groups = grouped("seen", [noon + timedelta(days=n) for n in range(60)])
    assert groups.is_ordered and groups.labels[0].startswith("2026-01-01 to 2026-01-")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_groups_of_dates_do_not_depend_on_the_zone_of_the_machine(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        midnight = datetime(2026, 1, 1, tzinfo=UTC)
        groups = grouped("seen", [midnight + timedelta(days=n) for n in range(60)])
        assert groups.labels[0].startswith("2026-01-01 to ")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", [UTC, None])
def test_first_and_last_moment_of_the_calendar_have_a_group(zone: tzinfo | None) -> None:
    moments = [datetime(1, 1, 1, tzinfo=zone), datetime.max.replace(tzinfo=zone)]
    days = [datetime(2026, 1, day, tzinfo=zone) for day in range(1, 21)]
    groups = grouped("seen", [*moments, *days])
    assert groups.labels[0].startswith("0001-01-01 to ")
    assert groups.labels[-1].endswith(" to 9999-12-31")


def test_a_few_numbers_and_truths_have_their_values_as_groups() -> None:
    assert grouped("n", [1, 2, 1]).labels == ("1", "2")
    assert grouped("b", [True, False, True]).labels == ("true", "false")
    assert grouped("n", []).labels == ()
