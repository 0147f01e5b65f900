"""Target: recipes. A recipe is one, or ``UsageError`` names the key or the line that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from embedding_core.errors import UsageError
from embedding_core.identity import digest
from embedding_core.recipe import Recipe
from experiments.fuzz.shapes import change_yaml, nest
from experiments.fuzz.target import Check, Target, Wrong

FULL = b"""name: cran
source:
  uri: ./data/cranfield
  include: ["corpus.jsonl", "**/*.csv"]
  exclude: ["**/drafts"]
  format: csv
  formats: {csv: {delimiter: ";", header: [a, b], nulls: [NA]}, json: {items: a.b}}
  id: _id
  text: "{title|untitled}\\n{meta['No. [kg]'].x}"
  title: "{title} ({year})"
  normalize: nfc
  whitespace: collapse
  metadata: {title: string, by: {field: "meta.author", type: string}, at: timestamp}
  deduplicate: true
  sample: {rows: 5, per: lang, seed: 7}
  limit: 9
  storage: {endpoint_url: "http://127.0.0.1:1", region: eu-1}
chunk: {strategy: tokens, max_tokens: 512, overlap: 51, min_tokens: 32, tokenizer: ./model}
model: {name: Qwen/Qwen3-Embedding-0.6B, revision: main, dtype: fp16, over_length: drop}
lake: {uri: ./lake, table: cran}
index: {target_recall: 0.95, min_rows: 1000, full_text: true, kind: IVF_SQ}
maintain: {small_fragments: 2, keep_hours: 1.5}
release: {queries: queries.jsonl, qrels: qrels.tsv, max_ndcg_drop: 0.01}
max_rejected_share: 0.5
"""
CHAT = b"""name: chats
source:
  uri: /data
  conversation: {messages: "chats[0].turns", roles: {Bob: user}, labels: {user: "U: "}, prefix: c_}
  map: {function: "pkg.mod:fn", folder: ./code, fields: [a], seconds: 1.5}
  text: c_prompt
chunk: {strategy: markdown, max_tokens: 64, headings: both}
model: {name: "http://127.0.0.1:8001/v1", api: tei, endpoints: ["http://127.0.0.1:8002"]}
lake: {uri: "s3://bucket/lake", table: chats}
"""
MINIMAL = b"""name: a
source: {uri: /data}
model: {name: hashing, dim: 32}
lake: {uri: /lake, table: t}
"""
TOKENS = (b"&a ", b"*a", b"<<: *a\n", b"!!int ''", b"!!binary x", b"? ", b"- ", b": ", b"!!str ",
          b"!!python/object/apply:os.system [x]", b"2024-13-45", b"0x", b"0b_", b"1:99", b"[", b"{",
          b"]", b"}", b"'", b'"', b"|\n", b">\n", b"%YAML 9.9\n", b"---\n", b"...\n", b"\t", b"\0",
          b"\xff", b"\\ud800", b"!!timestamp x", b"!!float x", b"!!set {a}", b"!!omap [a]", b"~",
          b"~nobody/x", b"null", b"1" * 5_000, b"1e999", b".nan", b".inf", b"  name: x\n",
          b"a: &b [*b, *b]\n", b"s3://", b"file://", b"hf://", b"http://u:p@h")  # fmt: skip
NAMES_A_KEY = re.compile(r"^  \S.*: \S", re.MULTILINE)
NAMES_A_LINE = re.compile(r"line \d+|position \d+|is not YAML|holds no recipe|no recipe at")
MOST_CHARACTERS = 20_000
"""Longest message: it is read on a terminal."""


def _seeds() -> Sequence[bytes]:
    return (FULL, CHAT, MINIMAL)


@contextmanager
def _opened(folder: Path) -> Iterator[Check]:
    yield partial(_load, folder / "recipe.yaml")


def _load(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        recipe = Recipe.load(path)
    except UsageError as error:
        message = str(error)
        message.encode()
        if len(message) > MOST_CHARACTERS:
            raise Wrong(f"a message of {len(message):,} characters: {message[:100]}") from error
        if not NAMES_A_KEY.search(message) and not NAMES_A_LINE.search(message):
            raise Wrong(f"names neither a key nor a line: {message[:300]}") from error
        return "refused"
    written = json.dumps(recipe.model_dump(mode="json"))
    digest(json.loads(written))
    written.encode()
    if Recipe.load(json.loads(written)) != recipe:
        raise Wrong("written out and read again it is another recipe")
    return "recipe"


RECIPE = Target(
    "recipe",
    _seeds,
    _opened,
    TOKENS,
    (change_yaml, change_yaml, nest(b"[", b"]"), nest(b"{a: ", b"}")),
)
