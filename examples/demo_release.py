"""A model change, for real: ask, judge answers, fine-tune, announce, re-embed, promote, go back.

Embeds what ``make demo`` embeds and serves it. Simulated people ask on the search page and say
which answers are good; that becomes labelled queries, most to train on, the others held out. The
model is fine-tuned and announced. The event starts the deployment that embeds the table anew, holds
both models against the held-out queries, and puts the better one in service, which the page
follows. The same questions are asked before, after, and once more after a rollback. Stops what it
started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

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
    told,
    write_corpus,
    write_recipe,
)
from examples.simulated_users import TABLE, ask, visits

MODELS, LABELS = HOME / "models", HOME / "feedback"
QUERIES, QRELS = LABELS / "queries.jsonl", LABELS / "qrels" / "test.tsv"
ASKED = HOME / "questions.jsonl"
SHOWN = 3
"""Held-out queries whose answers are shown, of those that got better; of the others it is one."""
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
        with _served(running) as url:
            _people_ask(url)
            checkpoint = _fine_tuned(running, model)
            _release(running, checkpoint, url)
    print(f"\ndemo finished in {time.perf_counter() - started:.0f} s")
    return 0


@contextmanager
def _served(running: Servers) -> Iterator[str]:
    """The URL of the search page while the context lasts."""
    title(f"embedlake serve {RECIPE.relative_to(ROOT)} --feedback")
    program = Path(sys.executable).parent / "embedlake"
    process = subprocess.Popen(
        [str(program), "serve", str(RECIPE), "--feedback", "--port", "0", "--json"],
        env={**os.environ, **running.environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait()


def _people_ask(url: str) -> None:
    people = visits(HOME / "corpus", _text_field())
    title(f"{len(people)} simulated people ask, each for a passage, and judge what they see")
    n_found, how = ask(url, people, HOME / "browser")
    print(f"{n_found} of {len(people)} found their document and said so, {how}")


def _text_field() -> str:
    return str(yaml.safe_load(RECIPE.read_text())["source"]["text"])


def _fine_tuned(running: Servers, model: str) -> Path:
    title("embedlake feedback RECIPE --to-beir .demo/feedback")
    run(["embedlake", "feedback", str(RECIPE), "--to-beir", str(LABELS)], running.environment)
    title("python examples/finetune.py --data .demo/feedback --text '{text}' --out .demo/models")
    run(["python", "examples/finetune.py", "--data", str(LABELS), "--text", "{text}",
         "--out", str(MODELS), "--model", model], {})  # fmt: skip
    return max(path for path in MODELS.iterdir() if path.is_dir())


def _release(running: Servers, checkpoint: Path, url: str) -> None:
    held_out = read_qrels(QRELS.read_bytes(), str(QRELS))
    queries = read_queries(QUERIES.read_bytes(), str(QUERIES))
    known = {query: words for query, words in queries.items() if query in held_out}
    title(f"Ask the model in service {len(QUESTIONS)} questions and {len(known)} held-out queries")
    before, space_before = _answers(running, known), _space(url)
    _show_questions(before)
    title(f"embedlake announce-model {checkpoint.relative_to(ROOT)}")
    with followed(running.worker_log):
        run(["embedlake", "announce-model", str(checkpoint)], running.environment)
        outcome = _outcome(running)
    if outcome != "Completed":
        raise SystemExit(f"the run ended as {outcome}: the old model is still in service")
    title("Ask the new model the same")
    _follow_page(url, lambda space: space != space_before)
    after = _answers(running, known)
    _show_questions(after)
    _show_held_out(known, before, after)
    title("embedlake rollback")
    run(["embedlake", "rollback", str(RECIPE)], running.environment)
    _follow_page(url, lambda space: space == space_before)
    if _answers(running, known) != before:
        raise SystemExit("the answers after the rollback are not those of before")
    print("every question has its old answers again")
    title("embedlake releases")
    run(["embedlake", "releases", str(RECIPE)], running.environment)


def _space(url: str) -> str:
    """The space that the page answers from now."""
    message = {"query": QUESTIONS[0], "k": 1}
    answer = httpx.post(f"{url}/api/tables/{TABLE}/search", json=message, timeout=60)
    return str(answer.raise_for_status().json()["space_id"])


def _follow_page(url: str, is_there: Callable[[str], bool]) -> None:
    """Wait until the page answers from another space; it was not restarted."""
    deadline = time.monotonic() + RUN_SECONDS
    while not is_there(space := _space(url)):
        if time.monotonic() > deadline:
            raise SystemExit(f"the page still answers from space {space[:12]}")
        time.sleep(0.5)
    print(f"the page answers from space {space[:12]}, and was not restarted")


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


def _show_held_out(known: Mapping[str, str], before: Answers, after: Answers) -> None:
    """How often the document that was looked for comes first, and a few of them."""
    grades = read_qrels(QRELS.read_bytes(), str(QRELS))
    first = {
        query: [answers[query][:1] == list(grades[query]) for answers in (before, after)]
        for query in known
    }
    better = [query for query, (was, is_now) in first.items() if is_now and not was]
    worse = [query for query, (was, is_now) in first.items() if was and not is_now]
    n_before, n_after = (sum(side) for side in zip(*first.values(), strict=True))
    print(
        f"held-out queries that find their document first: {n_before} -> {n_after} of {len(known)} "
        f"({len(better)} now do, {len(worse)} no longer do), such as"
    )
    for query in (*better[:SHOWN], *worse[:1]):
        print(f"  {known[query]}: {before[query][0]} -> {after[query][0]}")


if __name__ == "__main__":
    sys.exit(told(main))
