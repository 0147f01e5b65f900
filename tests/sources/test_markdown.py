"""Markdown: text as it is written, front matter as fields."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, read_documents


def read(folder: Path, content: str, **mapping: object) -> Document | Reject:
    (folder / "a.md").write_bytes(content.encode())
    spec = SourceSpec(uri=str(folder / "a.md"), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    (item,) = read_documents(file, spec)
    return item


YAML = "---\ntitle: A: B\n---\n"
FIELDS = {"title": "string", "day": "timestamp", "n": "int", "draft": "bool"}


@pytest.mark.parametrize(
    "front",
    [
        '---\ntitle: "A"\nday: 2024-05-01\nn: 3\ndraft: true\ntags: [x, y]\n---\n',
        "---\r\ntitle: A\r\nday: 2024-05-01\r\nn: 3\r\ndraft: yes\r\n---\r\n",
        '+++\ntitle = "A"\nday = 2024-05-01\nn = 3\ndraft = true\n+++\n',
        "\ufeff---  \ntitle: A\nday: 2024-05-01\nn: 3\ndraft: true\n---   \n",
    ],
)
def test_front_matter_is_fields_and_no_text(tmp_path: Path, front: str) -> None:
    item = read(tmp_path, front + "# Body\n\n---\n\nend\n", metadata=FIELDS)
    assert isinstance(item, Document)
    assert item.text == "# Body\n\n---\n\nend\n"
    day = datetime(2024, 5, 1, tzinfo=UTC)
    assert item.metadata == {"title": "A", "day": day, "n": 3, "draft": True}


@pytest.mark.parametrize(
    "text",
    [
        "# Title\r\n\r\nBody",
        "---\n\nprose between two rules\n\n---\n\nmore",
        "---\nno end of it: true\n",
        "----\na: b\n----\n",
        "text\n---\na: b\n---\n",
    ],
)
def test_rules_in_a_text_stay_text(tmp_path: Path, text: str) -> None:
    item = read(tmp_path, text)
    assert isinstance(item, Document)
    assert item.text == text


def test_front_matter_that_is_empty_or_alone(tmp_path: Path) -> None:
    item = read(tmp_path, "---\n---\nbody")
    assert isinstance(item, Document) and item.text == "body"
    item = read(tmp_path, "---\ntitle: A\n---", text="{title}")
    assert isinstance(item, Document) and item.text == "A"


def test_front_matter_does_not_take_the_place_of_the_files_own_fields(tmp_path: Path) -> None:
    item = read(tmp_path, "---\ntext: other\nname: other\n---\nbody", text="{name}: {text}")
    assert isinstance(item, Document) and item.text == "a.md: body"


@pytest.mark.slow
@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: [\n---\n",
        "---\na: b: c\n---\n",
        "---\n? [a\n---\n",
        "---\na: !!python/object:os.system x\n---\n",
        "+++\ntitle = \n+++\n",
        "+++\na" + ".a" * 30_000 + " = 1\n+++\n",
        "+++\na" + ' . "\\"" . \'b\'' * 50 + " = 1\n+++\n",
        "---\na: " + "[" * 3_000 + "\n---\n",
        "---\na: " + "x" * 70_000 + "\n---\n",
        "---\nday: 2024-13-41\n---\n",
        "---\na: !!bool maybe\n---\n",
        "---\na: [!!int '']\n---\n",
        "---\na: {b: !!float ''}\n---\n",
        "---\na: !!timestamp soon\n---\n",
        "---\na0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
        + "---\n",
    ],
)
def test_front_matter_that_cannot_be_read_rejects_the_document(tmp_path: Path, front: str) -> None:
    item = read(tmp_path, front + "body")
    assert isinstance(item, Reject)
    assert item.reason == "malformed_front_matter"
    assert "correct it" in item.detail and len(item.detail) < 400


def test_lists_that_repeat_each_other_cost_their_record(tmp_path: Path) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 99))
    item = read(tmp_path, f"---\na0: &a0 [x]\n{levels}title: *a98\n---\nbody", metadata=FIELDS)
    assert isinstance(item, Reject)
    assert item.reason == "wrong_type" and len(item.detail) < 400


@pytest.mark.parametrize("value", ["0x" + "f" * 5_000, "[0x" + "f" * 5_000 + "]"])
def test_number_too_long_to_be_written_out_costs_its_record(tmp_path: Path, value: str) -> None:
    item = read(tmp_path, f"---\ntitle: {value}\n---\nbody", metadata=FIELDS)
    assert isinstance(item, Reject)
    assert item.reason == "wrong_type" and "of 20,000 bits" in item.detail
