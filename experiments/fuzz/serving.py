"""The API of ``serve``, asked from its own OpenAPI document by schemathesis.

A real server on loopback with a table of every type of column, which takes feedback. Every answer
is held against the document: its status, its type, its body, and whether a bad request is refused.
"""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok

from tests.server.served import made_table, serving

NAMES: Mapping[str, Sequence[str]] = {
    "table": ["docs"],
    "doc_id": ["d0", "d1", "nobody"],
    "column": ["title", "year", "score", "open", "at", "doc_id", "n_tokens"],
    "operator": ["=", "!=", "<", ">=", "in", "not in", "contains", "is missing", "is there"],
}
"""Names that the server's table has, by the fields of requests."""
NAMES_OF_VECTORS = {"column": ["vector"]}
"""The same of a query, whose column is that of a space."""
load_all_checks()
POSITIVE, NEGATIVE = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])
"""Checks that good requests are taken: the document cannot say which columns a table has, and what
can be asked of each; and that bad requests are refused, which a document of fewer names than there
are would have of good ones."""
REFUSED_BY_4XX = SchemathesisConfig.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}
)
"""By default a request that is too long as well (413) does not count as refused, and 5xx does."""
SHOWN_CHARACTERS = 1_500
FEWEST_EXAMPLES = 5
"""Requests of an operation, however few are asked for in all."""


@dataclass(slots=True)
class Asked:
    """What came of the requests so far."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by operation and status."""
    violations: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, object]:
        """What a result file holds."""
        statuses = dict(sorted(self.statuses.items()))
        return {"inputs": self.requests, "statuses": statuses, "violations": self.violations}

    def __str__(self) -> str:
        shown = dict(self.statuses.most_common(6))
        return f"{self.requests:,} requests, {len(self.violations)} violations; {shown}"


@contextmanager
def served() -> Iterator[str]:
    """The URL of a server."""
    with (
        TemporaryDirectory(prefix="embedlake-fuzz-") as folder,
        serving(made_table(Path(folder)), feedback=True) as client,
    ):
        yield str(client.base_url).rstrip("/")


def ask(url: str, n_requests: int, number: int) -> Asked:
    """Ask a server about so many times, good and bad requests by halves; the same for a number."""
    document = requests.get(f"{url}/openapi.json", timeout=60).json()
    kinds = [(document, [POSITIVE]), (narrowed(document), [POSITIVE, NEGATIVE])]
    n_operations = sum(len(path) for path in document["paths"].values())
    each = max(FEWEST_EXAMPLES, n_requests // (4 * n_operations))
    asked = Asked()
    with requests.Session() as session:
        for content, excluded in kinds:
            ask_one = partial(_ask, url, session, each, number, asked, excluded)
            schema = schemathesis.openapi.from_dict(content, config=REFUSED_BY_4XX)
            for result in schema.get_all_operations():
                assert isinstance(result, Ok), result
                for mode in GenerationMode:
                    ask_one(result.ok(), mode)
    return asked


def narrowed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the names that there are: others are refused before anything is asked of
    the table."""
    content = copy.deepcopy(dict(document))
    for path in content["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in NAMES:
                    parameter["schema"] = _names(NAMES[parameter["name"]])
    for section in content["components"]["schemas"].values():
        fields = section.get("properties", {})
        if section.get("additionalProperties") is False:  # a request
            names = {**NAMES, **(NAMES_OF_VECTORS if "query" in fields else {})}
            fields.update({name: _names(names[name]) for name in names if name in fields})
            if "columns" in fields:
                pair = {"minItems": 2, "maxItems": 2, "items": _names(["vector"])}
                fields["columns"] = {"type": "array", **pair}
    return content


def _names(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}


def _ask(
    url: str,
    session: requests.Session,
    n_requests: int,
    number: int,
    asked: Asked,
    excluded: Sequence[Any],
    operation: Any,
    mode: GenerationMode,
) -> None:
    @seed(number)
    @settings(
        max_examples=n_requests,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def check(case: Any) -> None:
        answer = case.call(base_url=url, session=session)
        asked.requests += 1
        asked.statuses[f"{operation.label} {answer.status_code}"] += 1
        case.validate_response(answer, excluded_checks=excluded)

    try:
        check()
    except HypothesisException:  # an operation without parameters has no bad requests
        return
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        told = "".join(traceback.format_exception_only(error))
        problems = [str(inner) for inner in getattr(error, "exceptions", ())]
        shown = " ".join(f"{told} {' '.join(problems)}".split())[:SHOWN_CHARACTERS]
        asked.violations.append(f"{operation.label}, {mode.value} requests: {shown}")
