"""What a table says of tokens is what the model sees: prompts, limits, unknown tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding_core import Encoder
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.space.build import build_space
from tests.checkpoints import build_qwen3
from tests.driver import recipe_for, rejects, rows, run, write_jsonl
from tests.models import describe

LIMIT = 24
TEXTS = {"long": "ed words of a text that goes on " * 30, "short": "ed", "letters": "ed " * 100}


def with_prompt(folder: Path, prompt: str) -> Path:
    """A checkpoint with a document prompt and a limit of ``LIMIT`` tokens."""
    build_qwen3(folder)
    settings = {"prompts": {"document": prompt, "query": "query: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def recipe_with(folder: Path, checkpoint: Path, **changes: object) -> Recipe:
    model = {"name": str(checkpoint), "dim": None, "max_tokens": LIMIT}
    return recipe_for(folder, **({"model": model, "chunk": {"max_tokens": LIMIT}} | changes))


def seen(recipe: Recipe) -> list[tuple[int, bool]]:
    """Per row of the table the tokens that the encoder read, and whether it cut the text."""
    encoder = Encoder.load(recipe.model.name, dtype="fp32", device="cpu", max_tokens=LIMIT)
    texts = [row["text"] for row in rows(recipe, "text")]
    (batch,) = encoder.encode_stream([texts])
    return list(zip(*(batch[name].to_pylist() for name in ("n_tokens", "truncated")), strict=True))


@pytest.mark.parametrize("prompt", ["passage: ", "Represent", "s"])
@pytest.mark.parametrize("strategy", ["tokens", "none"])
def test_run_with_a_document_prompt_counts_what_the_model_sees(
    tmp_path: Path, prompt: str, strategy: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    checkpoint = with_prompt(tmp_path / "model", prompt)
    recipe = recipe_with(tmp_path, checkpoint)
    if strategy == "none":
        model = {"name": str(checkpoint), "max_tokens": LIMIT, "over_length": "truncate"}
        recipe = recipe_for(tmp_path, chunk={"strategy": "none"}, model=model | {"dim": None})
    report = run(recipe)
    counted = [row["n_tokens"] for row in rows(recipe, "n_tokens")]
    read = seen(recipe)
    assert [min(n, LIMIT) for n in counted] == [n for n, _ in read]
    assert [n > LIMIT for n in counted] == [cut for _, cut in read]
    assert report.rejects.get("truncated", 0) == sum(cut for _, cut in read)
    if strategy == "tokens":
        assert max(counted) <= LIMIT


@pytest.mark.slow
def test_plan_after_a_promote_of_another_prompt_cuts_nothing_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    recipe = recipe_with(tmp_path, with_prompt(tmp_path / "first", ""))
    run(recipe)
    before = rows(recipe, "chunk_id", "n_tokens")
    newer = recipe.model.model_copy(
        update={"name": str(with_prompt(tmp_path / "second", "a longer prompt than before: "))}
    )
    built = build_space(recipe, newer, Resources(), "build")
    promote(table_of(recipe), built.column, "me")
    served = recipe.model_copy(update={"model": newer})
    assert plan(served).is_empty
    write_jsonl(tmp_path, "b.jsonl", {"again": TEXTS["long"]})
    report = run(served)
    assert rows(served, "chunk_id", "n_tokens")[: len(before)] == before
    new = [row for row in rows(served, "n_tokens", "doc_id") if row["doc_id"] == "again"]
    old = [row for row in rows(served, "n_tokens", "doc_id") if row["doc_id"] == "long"]
    assert [row["n_tokens"] for row in new] == [row["n_tokens"] for row in old]
    cut = [one for one in rejects(served) if one["doc_id"] == "again"]
    assert report.rejects["truncated"] == len(cut) > 0, "the longer prompt pushes text out"


def test_plan_of_a_recipe_with_the_prompt_changed_says_so(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    first = recipe_with(tmp_path, with_prompt(tmp_path / "first", ""))
    run(first)
    named = first.model_copy(
        update={
            "chunk": first.chunk.model_copy(
                update={"tokenizer": str(with_prompt(tmp_path / "second", "passage: "))}
            )
        }
    )
    (planned,) = plan(named).files
    assert "document prompt changed" in planned.why


@pytest.mark.slow
def test_run_texts_of_unknown_tokens_are_kept_and_listed(tmp_path: Path, minilm: str) -> None:
    write_jsonl(
        tmp_path,
        "a.jsonl",
        {"thai": "ความรู้ทั่วไป", "word": "x" * 1_000_000, "english": "plain words", "é": "café"},
    )
    recipe = recipe_for(tmp_path, model={"name": minilm, "dim": None}, chunk={"max_tokens": 64})
    report = run(recipe)
    assert report.rejects == {"unknown_tokens": 2} and report.outcome == "done"
    assert report.embedded == 4
    listed = {one["doc_id"]: one["detail"] for one in rejects(recipe)}
    assert listed.keys() == {"thai", "word"} and "100%" in listed["word"]
    tokenizer = describe(minilm).tokenizer
    for row in rows(recipe, "text", "n_tokens"):
        assert [row["n_tokens"]] == tokenizer.count([row["text"]])
