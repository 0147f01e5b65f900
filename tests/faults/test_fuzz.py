"""Some hundred bad inputs for everything that reads what others write, and those of the corpus."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from experiments.fuzz.campaign import Campaign, go_on
from experiments.fuzz.child import opened, read_input
from experiments.fuzz.mutation import made
from experiments.fuzz.target import CORPUS, TARGETS, target_named
from tests.faults.planted import PLANTED

INPUTS = 20
"""Of each target."""
MOST_CORPUS_BYTES = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_target_few_inputs_break_no_promise(name: str) -> None:
    target = target_named(name)
    material = target.material()
    with opened(target) as check:
        lines = [read_input(check, n, made(material, name, 7, n)) for n in range(INPUTS)]
    assert {line.number: line.wrong for line in lines if line.wrong is not None} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in sorted(CORPUS.iterdir())])
def test_target_inputs_that_once_broke_a_promise_keep_it(tmp_path: Path, name: str) -> None:
    target = target_named(name)
    with target.opened(tmp_path) as check:
        lines = [read_input(check, number, data) for number, data in enumerate(target.corpus())]
    assert [line.wrong for line in lines] == [None] * len(lines)


def test_corpus_is_small_and_of_known_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()
    size_bytes = sum(path.stat().st_size for path in CORPUS.rglob("*"))
    assert size_bytes < MOST_CORPUS_BYTES


def test_inputs_are_the_same_for_the_same_seed_and_differ_by_number() -> None:
    material = target_named("jsonl").material()
    inputs = [made(material, "jsonl", 1, number) for number in range(50)]
    assert inputs == [made(material, "jsonl", 1, number) for number in range(50)]
    assert len(set(inputs)) > 45
    assert inputs != [made(material, "jsonl", 2, number) for number in range(50)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Path]:
    """A campaign over inputs that break every promise; children are killed by two of them."""
    folder = tmp_path_factory.mktemp("planted")
    campaign = Campaign.of(PLANTED, 2, folder / "none.json")
    go_on(campaign, PLANTED, 8, time.monotonic() + 120, hang_seconds=1.0, kept=folder)
    return campaign, folder / PLANTED.name


def test_campaign_counts_wrong_answers_errors_deaths_and_hangs(
    planted: tuple[Campaign, Path],
) -> None:
    campaign, kept = planted
    wrong = {violation.number: violation.wrong for violation in campaign.violations}
    material = PLANTED.material()
    says = {b"w": "a wrong answer", b"e": "LookupError", b"d": "-11", b"h": "hung"}
    inputs = {number: made(material, "planted", 2, number)[:1] for number in range(8)}
    assert campaign.inputs == 8 and set(inputs.values()) >= says.keys()
    assert wrong.keys() == {number for number, first in inputs.items() if first in says}
    assert all(says[inputs[number]] in text for number, text in wrong.items())
    assert {path.read_bytes()[:1] for path in kept.iterdir()} == says.keys()


def test_campaign_that_was_cut_off_goes_on_where_it_ended(
    planted: tuple[Campaign, Path], tmp_path: Path
) -> None:
    campaign, _ = planted
    path = tmp_path / "result.json"
    path.write_text(json.dumps(campaign.figures()))
    assert Campaign.of(PLANTED, 2, path) == campaign
    assert Campaign.of(PLANTED, 6, path).inputs == 0
