"""People who ask and judge, simulated: each looks for a passage, and says so when it is there.

They use the search page in a real browser if one is installed, else its API.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from examples.finetune import QUERY_WORDS, passage_words
from tests import browser

HITS_READ = 20
"""Nobody reads further."""
TABLE = "python_topics"

VISIT = """
(async ({ query, documentId }) => {
  const until = (test) => new Promise((done) => {
    const look = () => (test() ? done() : setTimeout(look, 5));
    look();
  });
  document.getElementById("query").value = query;
  document.getElementById("ask").requestSubmit();
  await until(() => !document.getElementById("results").hasAttribute("aria-busy"));
  const hits = Array.from(document.querySelectorAll("ol.hits > li"));
  const hit = hits.find((item) => item.dataset.document === documentId);
  if (!hit) return false;
  const thumb = hit.querySelector("[data-signal=relevant]");
  thumb.click();
  await until(() => thumb.getAttribute("aria-pressed") === "true");
  return true;
})
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who remembers a few words of a passage."""

    query: str
    document: str


def visits(data: Path, text: str) -> list[Visit]:
    """Somebody for each passage that no other document has."""
    return [
        Visit(" ".join(random.Random(item.passage).sample(item.words, QUERY_WORDS)), item.document)
        for item in passage_words(data, text)
    ]


def ask(url: str, people: Sequence[Visit], folder: Path) -> tuple[int, str]:
    """Let everybody ask; how many found what they looked for, and by what they asked."""
    if browser.program() is None:
        return _by_the_api(url, people), "by the API, for want of a browser"
    return _in_a_browser(url, people, folder), "on the page, in headless Chromium"


def _in_a_browser(url: str, people: Sequence[Visit], folder: Path) -> int:
    with browser.browser(folder) as tab:
        tab.open(f"{url}/?k={HITS_READ}")
        asked = [{"query": visit.query, "documentId": visit.document} for visit in people]
        return sum(bool(tab.run(f"{VISIT}({json.dumps(visit)})")) for visit in asked)


def _by_the_api(url: str, people: Sequence[Visit]) -> int:
    n_found = 0
    with httpx2.Client(base_url=url, timeout=60) as client:
        for visit in people:
            message = {"query": visit.query, "k": HITS_READ}
            answer = client.post(f"/api/tables/{TABLE}/search", json=message).raise_for_status()
            for hit in answer.json()["hits"]:
                if hit["doc_id"] == visit.document:
                    where = {name: hit[name] for name in ("source_uri", "chunk_id", "rank")}
                    said = {"table": TABLE, "query": visit.query, "doc_id": visit.document}
                    feedback = said | where | {"signal": "relevant"}
                    client.post("/feedback", json=feedback).raise_for_status()
                    n_found += 1
                    break
    return n_found
