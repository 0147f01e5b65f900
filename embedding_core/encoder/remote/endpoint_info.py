"""What is known of a model behind servers once they were asked. Asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedding_core.encoder.remote.counting import Counter
from embedding_core.encoder.remote.traffic import Target
from embedding_core.protocols import Tokenizer, Vectors
from embedding_core.records import Space


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """A model behind servers; see ``ModelInfo``."""

    space: Space
    target: Target
    most_texts: int
    """Texts of a request."""
    urls: tuple[str, ...]
    """The servers that answered, each with this model."""
    counter: Counter
    probe_text: str
    """The first parity text, as far as the model takes it."""
    probe: Vectors = field(compare=False)
    """(n_values,) its unit vector."""

    @property
    def tokenizer(self) -> Tokenizer:
        """See ``ModelInfo.tokenizer``."""
        return self.tokenizer_for(self.space.document_prompt)

    def tokenizer_for(self, document_prompt: str) -> Tokenizer:
        """See ``ModelInfo.tokenizer_for``."""
        return self.counter.tokenizer_for(document_prompt)
