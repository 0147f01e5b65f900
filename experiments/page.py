"""Write the results of experiments into the page that publishes them.

    python -m experiments.page

Each table of ``docs/reliability.md`` between two marks is made of files in ``experiments/results``:
what was injected into embedlake, what was done to it and its peers, and what was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from experiments.fuzz.target import PROMISES
from experiments.peers.kinds import KINDS_OF_WRONG, TORN, UNTRUE

RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "reliability.md"
INJECTIONS = (
    "experiment", "what is injected", "must hold", "possible", "injected", "violations",
    "share, at most",
)  # fmt: skip
CAMPAIGNS = (
    "what is read", "must end as", "inputs", "violations", "share, at most",
    "slowest, s of CPU", "most memory, MiB",
)  # fmt: skip
TRIALS = (
    "what is done", "to", "times", "wrong after the same command again", "share, at most",
    "said done, and it was not", "a reader could see half a file",
)  # fmt: skip

Results = Mapping[str, Mapping[str, Any]]
"""Contents of result files, by their names without the suffix."""


def main() -> None:
    """Write the page again."""
    PAGE.write_text(with_results(PAGE.read_text(), stored_results(RESULTS)))


def stored_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def with_results(page: str, results: Results) -> str:
    """The page with the tables of these results; a table whose marks it lacks is left out."""
    for name, section in SECTIONS.items():
        begin, end = marks(name)
        before, mark, rest = page.partition(begin)
        if mark:
            page = f"{before}{begin}{section(results)}{end}{rest.partition(end)[2]}"
    return page


def marks(section: str) -> tuple[str, str]:
    """The lines before and after a section."""
    return f"<!-- {section}: python -m experiments.page -->\n", f"<!-- end of {section} -->\n"


def _injections(results: Results) -> str:
    made = {name: result for name, result in results.items() if "must_hold" in result}
    counts = "".join(_counts(name, result) for name, result in made.items())
    rows = (_injection_row(name, result) for name, result in made.items())
    return f"{_table(INJECTIONS, rows)}\n{_origins(made.values())}\n\n{counts}"


def _injection_row(name: str, result: Mapping[str, Any]) -> list[str]:
    return [
        f"`{name}`",
        result["injects"],
        result["must_hold"],
        f"{result['possible']:,}" if result["possible"] else "-",
        f"{result['injections']:,}",
        str(len(result["violations"])),
        _share(result),
    ]


def _counts(name: str, result: Mapping[str, Any]) -> str:
    """How the runs that were hit ended, and what else was counted, as an item of a list."""
    counts = {**result["endings"], **result["counts"]}
    return f"- `{name}`: {', '.join(f'{what} {n:,}' for what, n in counts.items())}\n"


def _campaigns(results: Results) -> str:
    read = {target: results[f"fuzz-{target}"] for target in PROMISES if f"fuzz-{target}" in results}
    rows = (_campaign_row(target, result) for target, result in read.items())
    seeds = ", ".join(str(seed) for seed in sorted({result["seed"] for result in read.values()}))
    return f"{_table(CAMPAIGNS, rows)}\n{_origins(read.values())} Seed {seeds}.\n"


def _campaign_row(target: str, result: Mapping[str, Any]) -> list[str]:
    what, ending = PROMISES[target]
    is_measured = "slowest_cpu_seconds" in result
    return [
        what,
        ending,
        f"{result['inputs']:,}",
        str(len(result["violations"])),
        _share(result),
        f"{result['slowest_cpu_seconds']:.1f}" if is_measured else "-",
        f"{result['largest_mib']:.0f}" if is_measured else "-",
    ]


def _trials(results: Results) -> str:
    tried = [result for result in results.values() if "peers" in result and "injects" in result]
    rows = (
        [result["injects"] if number == 0 else "", *_peer_cells(peer, outcome)]
        for result in tried
        for number, (peer, outcome) in enumerate(result["peers"].items())
    )
    versions = {
        peer: ", ".join(f"{name} {version}" for name, version in outcome["versions"].items())
        for result in tried
        for peer, outcome in result["peers"].items()
    }
    listed = "; ".join(f"{peer}: {packages}" for peer, packages in versions.items())
    dates = ", ".join(sorted({result["date"] for result in tried}))
    return f"{_table(TRIALS, rows)}\nOn {dates}. {listed}.\n"


def _peer_cells(peer: str, outcome: Mapping[str, Any]) -> list[str]:
    counts, n_wrong = outcome["counts"], len(outcome["violations"])
    kinds = ", ".join(f"{kind} {counts[kind]}" for kind in KINDS_OF_WRONG if counts.get(kind))
    return [
        peer,
        f"{outcome['injections']:,}",
        f"**{n_wrong}**: {kinds}" if n_wrong else "0",
        _share(outcome),
        str(counts.get(UNTRUE, 0)),
        str(counts.get(TORN, 0)),
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |\n" for row in (columns, *rows)]
    return "".join([head, "|---" * len(columns), "|\n", *body])


def _share(result: Mapping[str, Any]) -> str:
    share = result["share_at_most"]
    return "-" if share is None else f"{share:.2%}"


def _origins(results: Iterable[Mapping[str, Any]]) -> str:
    """When and with which versions results were made."""
    listed = list(results)
    dates = sorted({result["date"] for result in listed})
    pairs = {pair for result in listed for pair in result["versions"].items()}
    versions = [f"{name} {number}" for name, number in sorted(pairs)]
    return f"On {', '.join(dates)}, with {', '.join(versions)}."


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "results": _injections,
    "peers": _trials,
    "campaigns": _campaigns,
}
"""What stands between the marks of each section."""


if __name__ == "__main__":
    main()
