"""A model change, for real: fine-tune, announce, re-embed, judge, promote, go back.

Embeds what ``make demo`` embeds, fine-tunes its model on known items of one part of the documents,
and announces the new one. The event starts the deployment that embeds the table anew, holds both
models against the known items of the other documents, and puts the better one in service. The same
questions are asked before, after, and once more after a rollback. Stops what it started.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from embedding_core.errors import EmbedlakeError
from embedding_core.quality import read_qrels, read_queries
from examples.demo import (
    HOME,
    QUESTIONS,
    RECIPE,
    ROOT,
    Servers,
    check_model,
    clear,
    deploy,
    embed,
    followed,
    run,
    servers,
    title,
    write_corpus,
    write_recipe,
)

MODELS = HOME / "models"
QUERIES, QRELS = MODELS / "queries.jsonl", MODELS / "qrels.tsv"
ASKED = HOME / "questions.jsonl"
SHOWN = 3
"""Known items whose answers are shown, of those that got better; of the others it is one."""
RUN_SECONDS = 900.0
"""Patience with the run that the announcement starts: a minute on two idle cores."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Answers = dict[str, list[str]]
"""Documents by question, the best first."""


def main() -> int:
    """Tell the story; the exit code is that of the first command that failed, else 0."""
    started = time.perf_counter()
    clear()
    release = {"queries": str(QUERIES), "qrels": str(QRELS), "follow": True}
    model = write_recipe(release=release)
    check_model(model)
    write_corpus()
    with servers() as running:
        title("Deploy: embed by hand, reembed when a model is announced")
        deploy(running, "demo")
        deploy(running, "reembed", "--param", f"recipe={RECIPE}")
        embed(running)
        checkpoint = _fine_tuned(model)
        _release(running, checkpoint)
    print(f"\ndemo finished in {time.perf_counter() - started:.0f} s")
    return 0


def _fine_tuned(model: str) -> Path:
    title("python examples/finetune.py --data .demo/corpus --known-items --out .demo/models")
    text = yaml.safe_load(RECIPE.read_text())["source"]["text"]
    run(["python", "examples/finetune.py", "--data", str(HOME / "corpus"), "--known-items",
         "--out", str(MODELS), "--model", model, "--text", text], {})  # fmt: skip
    return max(path for path in MODELS.iterdir() if path.is_dir())


def _release(running: Servers, checkpoint: Path) -> None:
    known = read_queries(QUERIES.read_bytes(), str(QUERIES))
    title(f"Ask the model in service {len(QUESTIONS)} questions and {len(known)} known items")
    before = _answers(running, known)
    _show_questions(before)
    title(f"embedlake announce-model {checkpoint.relative_to(ROOT)}")
    print("what the gate calls labelled queries are the known items: words of held-out documents")
    with followed(running.worker_log):
        run(["embedlake", "announce-model", str(checkpoint)], running.environment)
        outcome = _outcome(running)
    if outcome != "Completed":
        raise SystemExit(f"the run ended as {outcome}: the old model is still in service")
    title("Ask the new model the same")
    after = _answers(running, known)
    _show_questions(after)
    _show_known_items(known, before, after)
    title("embedlake rollback")
    run(["embedlake", "rollback", str(RECIPE)], running.environment)
    if _answers(running, known) != before:
        raise SystemExit("the answers after the rollback are not those of before")
    print("every question has its old answers again")
    title("embedlake releases")
    run(["embedlake", "releases", str(RECIPE)], running.environment)


def _answers(running: Servers, known: Mapping[str, str]) -> Answers:
    """What `embedlake search` finds for the questions, whose words are their ids, and the rest."""
    asked = {question: question for question in QUESTIONS} | dict(known)
    lines = [json.dumps({"_id": one, "text": words}) for one, words in asked.items()]
    ASKED.write_text("\n".join(lines) + "\n")
    command = ["embedlake", "search", str(RECIPE), "--queries", str(ASKED), "-k", "10", "--json"]
    results = json.loads(run(command, running.environment, quiet=True))["results"]
    return {one["query_id"]: _documents(one["hits"]) for one in results}


def _documents(hits: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(hit["doc_id"] for hit in hits))


def _outcome(running: Servers) -> str:
    """Name of the state in which the run that was announced ends."""
    wanted = {"deployments": {"name": {"any_": ["reembed"]}}}
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        answer = httpx.post(f"{running.api_url}/flow_runs/filter", json=wanted, timeout=30)
        for found in answer.raise_for_status().json():
            if found["state_type"] in ENDED and not found["auto_scheduled"]:
                return str(found["state_name"])
        time.sleep(1)
    raise SystemExit(f"the announced model was not in service after {RUN_SECONDS:.0f} s")


def _show_questions(answers: Answers) -> None:
    for question in QUESTIONS:
        print(f"  {question}: {', '.join(answers[question][:3])}")


def _show_known_items(known: Mapping[str, str], before: Answers, after: Answers) -> None:
    """How often the document that a known item was made from comes first, and a few of them."""
    grades = read_qrels(QRELS.read_bytes(), str(QRELS))
    first = {
        query: [answers[query][:1] == list(grades[query]) for answers in (before, after)]
        for query in known
    }
    better = [query for query, (was, is_now) in first.items() if is_now and not was]
    worse = [query for query, (was, is_now) in first.items() if was and not is_now]
    print(
        f"known items that find their document first: {sum(was for was, _ in first.values())} -> "
        f"{sum(is_now for _, is_now in first.values())} of {len(known)} "
        f"({len(better)} now do, {len(worse)} no longer do), such as"
    )
    for query in (*better[:SHOWN], *worse[:1]):
        print(f"  {known[query]}: {before[query][0]} -> {after[query][0]}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EmbedlakeError as error:
        sys.exit(f"demo: {error}")
