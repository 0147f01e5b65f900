"""The example that fine-tunes: what is held out is never trained on, what it writes can be used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedding_core.errors import UsageError
from embedding_core.quality.labels import read_labels
from embedding_core.recipe import Recipe
from examples import finetune
from tests.checkpoints import TEXTS
from tests.driver import run
from tests.models import describe

ROOT = Path(__file__).resolve().parents[1]
TEXT = "{title}: {text}"
N_QUERIES = 60


def write_beir(folder: Path, n_queries: int = N_QUERIES, qrels: str = "qrels.tsv") -> Path:
    """Queries with two relevant documents each, one that is not relevant, and one unknown."""
    documents = [
        {"_id": f"d{number}", "title": f"Title {number}", "text": f"Text {number}"}
        for number in range(2 * n_queries)
    ]
    queries = [{"_id": f"q{one}", "text": f"Question  {one}"} for one in range(n_queries)]
    queries.append({"_id": "again", "text": "question 0 "})
    judged = ["query-id\tcorpus-id\tscore", "again\td1\t1"]
    for one in range(n_queries):
        other = (2 * one + 2) % len(documents)
        judged += [f"q{one}\td{2 * one}\t2", f"q{one}\td{2 * one + 1}\t1"]
        judged += [f"q{one}\td{other}\t0", f"q{one}\tnowhere\t1"]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / qrels).parent.mkdir(exist_ok=True)
    (folder / qrels).write_text("\n".join(judged) + "\n")
    return folder


def write_topics(folder: Path) -> Path:
    """Real texts, some of which repeat parts of others."""
    lines = [{"_id": f"t{one}", "title": "", "text": text} for one, text in enumerate(TEXTS)]
    (folder / "topics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def words(query: str) -> str:
    return " ".join(query.lower().split())


# Labelled queries


def test_labelled_held_out_queries_are_never_trained_on(tmp_path: Path) -> None:
    split = finetune.labelled(write_beir(tmp_path), TEXT, seed=0)
    trained = {words(pair.query) for pair in split.pairs}
    kept = {words(query) for query in split.queries.values()}
    assert not trained & kept
    assert trained | kept == {f"question {one}" for one in range(N_QUERIES)}
    assert set(split.queries) == set(split.grades)
    assert ("q0" in split.queries) == ("again" in split.queries), "the same words, both sides"


def test_labelled_each_relevant_document_makes_a_pair_as_the_recipe_renders_it(
    tmp_path: Path,
) -> None:
    split = finetune.labelled(write_beir(tmp_path), TEXT, seed=0)
    expected = set()
    for pair in split.pairs:
        number = int(words(pair.query).split()[1])
        expected |= {
            (f"Question  {number}", f"Title {document}: Text {document}")
            for document in (2 * number, 2 * number + 1)
        }
    found = {(pair.query, pair.text) for pair in split.pairs if pair.query != "question 0 "}
    assert found == expected


def test_labelled_query_stays_held_out_when_more_come(tmp_path: Path) -> None:
    before = finetune.labelled(write_beir(tmp_path, 30), TEXT, seed=0)
    after = finetune.labelled(write_beir(tmp_path, 60), TEXT, seed=0)
    assert before.queries.items() <= after.queries.items()
    assert set(before.pairs) <= set(after.pairs)


def test_labelled_test_judgements_of_beir_are_found(tmp_path: Path) -> None:
    assert finetune.labelled(write_beir(tmp_path, qrels="qrels/test.tsv"), TEXT, seed=0).pairs


# Known items


def test_known_items_of_held_out_documents_are_never_trained_on(tmp_path: Path) -> None:
    split = finetune.known_items(write_topics(tmp_path), TEXT, seed=0)
    texts = {f"t{one}": " ".join(text.split()) for one, text in enumerate(TEXTS)}
    held_out = {document for grades in split.grades.values() for document in grades}
    assert held_out < set(texts)
    assert not any(pair.text in texts[document] for pair in split.pairs for document in held_out)
    for query, text in split.queries.items():
        (document,) = split.grades[query]
        assert set(text.split()) <= set(re.findall(r"[^\W_]+", texts[document].casefold()))
    assert split == finetune.known_items(tmp_path, TEXT, seed=0)


# What is written


def test_held_out_files_are_what_the_gate_reads(tmp_path: Path) -> None:
    split = finetune.labelled(write_beir(tmp_path), TEXT, seed=0)
    finetune.write_held_out(split, tmp_path / "models")
    recipe = recipe_of(tmp_path)
    labels = read_labels(recipe)
    assert labels.texts == split.queries
    assert labels.grades == split.grades
    finetune.write_held_out(split, tmp_path / "models")  # once more, as the next fine-tune does


def test_held_out_queries_are_not_trained_on_by_a_later_seed(tmp_path: Path) -> None:
    write_beir(tmp_path)
    models = tmp_path / "models"
    finetune.write_held_out(finetune.labelled(tmp_path, TEXT, seed=0), models)
    kept = (models / "queries.jsonl").read_bytes()
    with pytest.raises(UsageError, match="would be trained on"):
        finetune.write_held_out(finetune.labelled(tmp_path, TEXT, seed=1), models)
    assert (models / "queries.jsonl").read_bytes() == kept


def recipe_of(folder: Path, model: str = "hashing") -> Recipe:
    content = {
        "name": "finetuned",
        "source": {"uri": str(folder / "corpus.jsonl"), "id": "_id", "text": TEXT},
        "model": {"name": model},
        "lake": {"uri": str(folder / "lake"), "table": "docs"},
        "release": {
            "queries": str(folder / "models" / "queries.jsonl"),
            "qrels": str(folder / "models" / "qrels.tsv"),
        },
    }
    return Recipe.load(content)


@pytest.mark.slow
def test_finetuned_checkpoint_is_another_space_that_a_recipe_can_name(
    tmp_path: Path, minilm: str
) -> None:
    write_beir(tmp_path, 8)
    command = [sys.executable, "examples/finetune.py", "--data", tmp_path, "--epochs", "1",
               "--out", tmp_path / "models", "--text", TEXT]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = Path(done.stdout.splitlines()[-1])
    latest = str(tmp_path / "models" / "latest")
    old, new = describe(minilm).space, describe(latest).space
    assert new.revision == written.name
    assert set(new.identity).isdisjoint(old.identity), "trained weights"
    assert (new.tokenizer, new.max_tokens, new.dim, new.pooling) == (
        old.tokenizer, old.max_tokens, old.dim, old.pooling,
    )  # fmt: skip
    recipe = recipe_of(tmp_path, latest)
    assert run(recipe).outcome == "done"
    assert read_labels(recipe).texts, "the held-out queries are there too"


# Bad input


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("qrels.tsv", None, r"no qrels\.tsv or qrels/test\.tsv .* --known-items"),
        ("queries.jsonl", None, r"no queries\.jsonl"),
        ("queries.jsonl", "", "holds no queries"),
        ("queries.jsonl", '{"_id": "q0", "text": " "}', "line 1: text is missing"),
        ("queries.jsonl", '{"_id": "q0", "text": "only one"}', "both are needed"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0\tnowhere\t1", "both are needed"),
    ],
)
def test_labelled_bad_input_says_what_is_wrong(
    tmp_path: Path, file: str, content: str | None, said: str
) -> None:
    write_beir(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(UsageError, match=said):
        finetune.labelled(tmp_path, TEXT, seed=0)
