"""A campaign: the inputs of a target, read in one child after the other, and what came of them."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from benchmarks.machine import ROOT
from experiments.fuzz.child import READY, Line
from experiments.fuzz.mutation import made
from experiments.fuzz.target import Target

STARTED_SECONDS = 300.0
HANG_SECONDS = 1_200.0
"""An input that takes longer never ends, on a machine however busy: its work is bounded apart."""
INPUTS_PER_CHILD = 2_500
"""A child lets go of what its libraries leak."""
SHOWN_CHARACTERS = 2_000
"""Most of what a child said before it died."""
KEPT = ROOT / "build" / "fuzz"
"""Inputs that broke a promise, by target and the first digits of their SHA-256. What is to be read
by the tests from then on is moved to the corpus by hand."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An input that broke a promise."""

    number: int
    wrong: str
    sha256: str
    size_bytes: int


@dataclass(slots=True)
class Campaign:
    """What came of a target's inputs so far."""

    target: str
    seed: int
    material: str
    """Digest of what inputs are made of."""
    inputs: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    cpu_seconds: float = 0.0
    slowest_cpu_seconds: float = 0.0
    largest_mib: float = 0.0

    @classmethod
    def of(cls, target: Target, seed: int, path: Path) -> Campaign:
        """The campaign that a file holds, if it is of this target, seed and material; else one
        without inputs."""
        began = cls(target.name, seed, target.digest())
        if not path.exists():
            return began
        content = json.loads(path.read_text())
        kept = {name: content[name] for name in asdict(began) if name in content}
        kept["endings"] = Counter(kept["endings"])
        kept["violations"] = [Violation(**violation) for violation in kept["violations"]]
        campaign = cls(**kept)
        is_same = (campaign.seed, campaign.material) == (seed, began.material)
        return campaign if is_same else began

    def __str__(self) -> str:
        return (
            f"{self.inputs:,} inputs, {len(self.violations)} violations, at most "
            f"{self.slowest_cpu_seconds:.1f} s and {self.largest_mib:.0f} MiB each; "
            f"{dict(self.endings.most_common(6))}"
        )

    def count(self, line: Line) -> None:
        """Count what became of an input."""
        self.inputs += 1
        self.endings[line.ending] += 1
        self.cpu_seconds = round(self.cpu_seconds + line.cpu_seconds, 3)
        self.slowest_cpu_seconds = max(self.slowest_cpu_seconds, line.cpu_seconds)
        self.largest_mib = max(self.largest_mib, line.mib)

    def figures(self) -> dict[str, object]:
        """What a result file holds; ``share_at_most`` at 95 %, by the rule of three."""
        share = None if self.violations or not self.inputs else round(3 / self.inputs, 6)
        content = asdict(self) | {"endings": dict(self.endings.most_common())}
        return content | {"share_at_most": share}


def go_on(
    campaign: Campaign,
    target: Target,
    inputs: int,
    until: float,
    hang_seconds: float = HANG_SECONDS,
    kept: Path = KEPT,
) -> None:
    """Read inputs up to number ``inputs``, or until a time of ``time.monotonic``."""
    while campaign.inputs < inputs and time.monotonic() < until:
        count = min(INPUTS_PER_CHILD, inputs - campaign.inputs)
        for line in _lines(target, campaign.seed, campaign.inputs, count, hang_seconds):
            campaign.count(line)
            if line.wrong is not None:
                data = base64.b64decode(line.data)
                campaign.violations.append(_keep(kept / target.name, line, data))
            if time.monotonic() > until:
                break


def _keep(folder: Path, line: Line, data: bytes) -> Violation:
    digest = hashlib.sha256(data).hexdigest()
    print(f"{folder.name} {line.number} {digest[:16]}: {line.wrong}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest[:16]).write_bytes(data)
    return Violation(line.number, line.wrong or "", digest, len(data))


def _lines(
    target: Target, seed: int, first: int, count: int, hang_seconds: float
) -> Iterator[Line]:
    """What became of inputs, each of them: a child that dies or hangs says nothing of its last."""
    command = [sys.executable, "-m", "experiments.fuzz.child", target.where or target.name]
    with TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, str(seed), str(first), str(count)],
            stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        passing = threading.Thread(target=_pass_on, args=(process.stdout, lines))
        passing.start()
        number = first
        try:
            if _next(lines, STARTED_SECONDS) != READY:
                raise RuntimeError(f"the child of {target.name} did not begin: {_tail(said)}")
            while (text := _next(lines, hang_seconds)) is not None:
                line = Line(**json.loads(text))
                number = line.number + 1
                yield line
        finally:
            process.kill()
            status = process.wait()
            passing.join()
        if number < first + count:
            yield _dead(target, seed, number, status, _tail(said))


def _tail(said: IO[bytes]) -> str:
    """The end of what a child said."""
    said.seek(0)
    return said.read().decode("utf-8", "replace")[-SHOWN_CHARACTERS:]


def _pass_on(source: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with source:
        for text in source:
            lines.put(text)
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None], hang_seconds: float) -> str | None:
    """The next line; None at the end, or when none comes for too long."""
    try:
        return lines.get(timeout=hang_seconds)
    except queue.Empty:
        return None


def _dead(target: Target, seed: int, number: int, status: int, said: str) -> Line:
    data = made(target.material(), target.name, seed, number)
    if status == 1:  # an error of Python's outside of any input
        raise RuntimeError(f"the child of {target.name} failed: {said}")
    wrong = f"the process ended with {status} or hung: {' '.join(said.split())}"
    return Line(number, "dead", 0.0, 0.0, wrong, base64.b64encode(data).decode())
