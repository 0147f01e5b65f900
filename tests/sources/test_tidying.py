"""Normal forms and white space of texts."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.sources.mapping.tidying import collapsed
from tests.sources.record_files import read_records, rejects, texts

MESSY = " \u00a0e\u0301 \ufb01x\t\ty \r\n z\n \n\n w \u2028"


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({}, MESSY),
        ({"normalize": "none", "whitespace": "keep"}, MESSY),
        ({"normalize": "nfc"}, unicodedata.normalize("NFC", MESSY)),
        ({"normalize": "nfkc"}, unicodedata.normalize("NFKC", MESSY)),
        ({"whitespace": "trim"}, MESSY.strip()),
        ({"whitespace": "collapse"}, "e\u0301 \ufb01x y\nz\n\nw"),
        ({"normalize": "nfkc", "whitespace": "collapse"}, "\u00e9 fix y\nz\n\nw"),
    ],
)
def test_text_is_tidied_up_as_the_recipe_says(
    tmp_path: Path, mapping: dict[str, str], text: str
) -> None:
    assert texts(read_records(tmp_path, {"text": MESSY}, **mapping)) == [text]


def test_title_is_tidied_up_like_the_text_and_has_no_white_space_at_its_ends(
    tmp_path: Path,
) -> None:
    record = {"text": "x", "title": MESSY}
    (tidied,) = read_records(
        tmp_path, record, title="title", normalize="nfkc", whitespace="collapse"
    )
    assert tidied.title == "\u00e9 fix y\nz\n\nw"  # type: ignore[union-attr]
    (kept,) = read_records(tmp_path, record, title="title")
    assert kept.title == MESSY.strip()  # type: ignore[union-attr]


def test_ids_and_metadata_are_never_tidied_up(tmp_path: Path) -> None:
    (item,) = read_records(
        tmp_path,
        {"id": MESSY, "text": MESSY},
        id="id",
        metadata={"copy": {"field": "text", "type": "string"}},
        normalize="nfkc",
        whitespace="collapse",
    )
    assert (item.doc_id, item.metadata) == (MESSY, {"copy": MESSY})  # type: ignore[union-attr]


def test_text_that_is_blank_afterwards_is_rejected(tmp_path: Path) -> None:
    items = read_records(tmp_path, {"text": " \u00a0\n"}, whitespace="collapse")
    assert [reason for _, reason, _ in rejects(items)] == ["empty_text"]


@given(st.text())
def test_collapsed_text_has_the_same_words_and_stays_as_it_is(text: str) -> None:
    once = collapsed(text)
    assert once.split() == text.split()
    assert collapsed(once) == once
    assert once == once.strip() and "  " not in once and "\n\n\n" not in once
