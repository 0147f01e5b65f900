"""Where the time of a run goes, and how its models were used."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

Stage = Literal["read", "chunk", "load", "tokenise", "forward", "write", "commit", "wait"]


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Seconds by stage, of a file, a unit or a run; no second is counted in two stages."""

    read: float = 0.0
    """Opening, parsing and mapping files; reading staged rows, and vectors that are reused."""
    chunk: float = 0.0
    """Cutting texts, counting their tokens, staging the rows."""
    load: float = 0.0
    """Loading a model into a worker."""
    tokenise: float = 0.0
    """The model waited for token ids, which are made in the background."""
    forward: float = 0.0
    """The model computed, or a server was waited for."""
    write: float = 0.0
    """Writing rows and vectors into the table's storage."""
    commit: float = 0.0
    """Committing rows and rejects."""
    wait: float = 0.0
    """Units waited for a worker; no work."""

    def __add__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def share(self, portion: float) -> StageSeconds:
        """A portion of each stage, 1 for all of it."""
        return StageSeconds(*(portion * seconds for seconds in astuple(self)))

    @property
    def of_workers(self) -> float:
        """Work before the commit."""
        return self.read + self.chunk + self.load + self.tokenise + self.forward + self.write

    @property
    def work(self) -> float:
        """Seconds that somebody pays for: all but ``wait``."""
        return self.of_workers + self.commit

    def cost(self, price_per_hour: float | None) -> float | None:
        """What the work costs; None without a price."""
        return None if price_per_hour is None else self.work / 3_600 * price_per_hour


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What a loaded model was asked for: passes of a checkpoint, requests to a server."""

    batches: int = 0
    tokens: int = 0
    """Tokens in the batches."""
    room: int = 0
    """Tokens that the batches could have had: their number times the budget of each."""
    halvings: int = 0
    """Times that memory ran out and the budget was halved."""
    token_wait_seconds: float = 0.0
    """The model waited for token ids."""

    def __add__(self, other: ModelWork) -> ModelWork:
        return ModelWork(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def since(self, earlier: ModelWork) -> ModelWork:
        """The work after ``earlier``, a former state of these counts."""
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return ModelWork(*(now - before for now, before in pairs))

    @property
    def fill(self) -> float | None:
        """How full the batches were, 1 at most but for texts longer than a batch; None without
        batches."""
        return self.tokens / self.room if self.room else None
