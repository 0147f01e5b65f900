"""`arabic.yaml`: whole articles, cut at the model's limit, each file's counts checked."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.corpora.conftest import Trial, Try
from tests.driver import rejects, rows
from tests.embedlake.conftest import Embedlake

pytestmark = pytest.mark.slow

MAX_TOKENS = 512


@pytest.fixture
def arabic(trial: Try, tiny_qwen3: Path) -> Trial:
    """The recipe with a small random model of the real one's layout, embedded."""
    made = trial("arabic", model=str(tiny_qwen3))
    made.embed()
    return made


def articles(trial: Trial) -> Iterator[tuple[str, int, str | None]]:
    """(path, line, text) as plain Python reads and normalises them."""
    for path in sorted(trial.data.rglob("*.ndjson")):
        for number, line in enumerate(path.read_text().splitlines()):
            content = json.loads(line).get("content")
            text = None if content is None else unicodedata.normalize("NFKC", content).strip()
            yield str(path.relative_to(trial.data)), number, text


def n_tokens(text: str, model: Path) -> int:
    """Tokens by the tokenizers library, the end token included."""
    return len(Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids)


def test_arabic_rows_are_whole_articles_with_their_full_counts(
    arabic: Trial, tiny_qwen3: Path
) -> None:
    expected = [
        (path, str(number), text, n_tokens(text, tiny_qwen3))
        for path, number, text in articles(arabic)
        if text is not None
    ]
    columns = ("source_uri", "doc_id", "text", "n_tokens")
    stored = [
        (arabic.file(row), *(row[name] for name in columns[1:]))
        for row in rows(arabic.recipe, *columns)
    ]
    assert sorted(stored) == sorted(expected)
    assert not any("\ufb50" <= letter <= "\ufefc" for *_, text, _ in stored for letter in text)
    assert any("\u200f" in text for *_, text, _ in stored), "marks of direction are kept"


def test_arabic_longer_articles_are_listed_and_cut(arabic: Trial, tiny_qwen3: Path) -> None:
    listed = sorted(
        (arabic.file(row), row["position"], row["n_tokens"], row["reason"])
        for row in rejects(arabic.recipe)
    )
    longer = [
        (path, number, tokens, "truncated")
        for path, number, text in articles(arabic)
        if text is not None and (tokens := n_tokens(text, tiny_qwen3)) > MAX_TOKENS
    ]
    missing = [
        (path, number, None, "missing_field")
        for path, number, text in articles(arabic)
        if text is None
    ]
    assert listed == sorted([*longer, *missing])
    assert len(longer) >= 16 and len(missing) == 1


def test_arabic_vector_is_that_of_the_beginning(arabic: Trial) -> None:
    """Articles 32 and 33 differ behind the limit alone."""
    by_line = {
        (arabic.file(row), row["doc_id"]): np.array(row["vector"], np.float32)
        for row in rows(arabic.recipe, "source_uri", "doc_id", "vector")
    }
    first, second, other = (by_line["2023/akhbar-1.ndjson", line] for line in ("32", "33", "34"))
    assert first @ second == pytest.approx(1, abs=2e-3)
    assert first @ other < 0.99


def test_arabic_counts_of_each_file_are_validated(arabic: Trial, embedlake: Embedlake) -> None:
    lines = Counter(path for path, _, text in articles(arabic) if text is not None)
    assert lines == {
        "2023/akhbar-1.ndjson": 39, "2024/01/أخبار.ndjson": 40, "2024/02/kutub/kitab.ndjson": 40,
    }  # fmt: skip
    for path, n_articles in lines.items():
        answer = embedlake("validate", str(arabic.path), path, "--json")
        assert answer.code == 0
        for side in ("expected", "in_table"):
            assert answer.json[side]["documents"] == answer.json[side]["chunks"] == n_articles
        assert answer.json["expected"] == answer.json["in_table"]
    changed = arabic.data / "2024/01/أخبار.ndjson"
    changed.write_text("".join(changed.read_text().splitlines(keepends=True)[:-1]))
    assert embedlake("validate", str(arabic.path), "2024/01/أخبار.ndjson").code == 1
