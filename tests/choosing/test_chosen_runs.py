"""Runs that choose: what is in the table, what is on record, and what is read."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import embedlake
from embedding_core.errors import SetupError, Transient, UsageError
from embedding_core.recipe import Recipe, Resources
from embedding_core.reports.plan import PlanView
from embedding_core.reports.run import RunView
from embedding_core.runs.choosing import candidates, settling, survey
from embedding_core.runs.embed import scheduler
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.repair import audit
from embedding_core.runs.table_status import file_lines
from embedding_core.sources import documents
from embedding_core.store.layout import choice_path
from tests.driver import recipe_for, rejects, rows, write_jsonl
from tests.s3 import S3Server

pytestmark = pytest.mark.slow

Records = Sequence[dict[str, Any]]
SEEDED = {"rows": 5, "per": "lang", "seed": 3}
TOP = {"rows": 2, "per": "lang", "top": True}


def records(name: str, n_records: int, first: int = 0) -> Records:
    """Records in three languages and without one; every fifth text stands in other files too."""
    return [
        {
            "id": f"{name}{n}",
            "text": f"shared text {n}" if n % 5 == 0 else f"text {name} {n}",
            **({} if n % 7 == 0 else {"lang": ["en", "de", "fr"][n % 3]}),
        }
        for n in range(first, first + n_records)
    ]


def write(folder: Path, files: Mapping[str, Records]) -> None:
    for name, content in files.items():
        write_jsonl(folder, name, content)


CORPUS = {f"{name}.jsonl": records(name, 20) for name in "bdfh"}


def recipe_of(
    folder: Path, lake: str = "lake", max_rejected_share: float = 0.01, **source: Any
) -> Recipe:
    return recipe_for(
        folder,
        source=source,
        lake={"uri": str(folder / lake)},
        max_rejected_share=max_rejected_share,
    )


def members(recipe: Recipe) -> set[tuple[str, str]]:
    """File names and ids of the documents in the table."""
    return {(Path(row["source_uri"]).name, row["doc_id"]) for row in rows(recipe)}


def run(recipe: Recipe, **options: Any) -> RunReport:
    report = embedlake.embed(recipe, **options)
    assert report.verification.passed and not report.failures
    assert not audit(recipe, Resources(), deep=True).damages
    assert plan(recipe).is_empty, "a run leaves nothing to do"
    return report


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Names of the files that are read, each time."""
    counted: Counter[str] = Counter()
    real = documents.recognised

    def recognised(stream: Any, file: Any, spec: Any) -> Any:
        counted[Path(file.uri).name] += 1
        return real(stream, file, spec)

    monkeypatch.setattr(documents, "recognised", recognised)
    return counted


# What is chosen


def oracle(
    files: Mapping[str, Records], deduplicate: bool, top: int | None, limit: int | None
) -> set[tuple[str, str]]:
    """The choice in plain Python, for samples of the first documents per language."""
    left = [(name, record) for name in sorted(files) for record in files[name]]
    if deduplicate:
        first: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, record in left:
            first.setdefault(record["text"], (name, record))
        left = list(first.values())
    if top is not None:
        counts: Counter[str | None] = Counter()
        chosen = []
        for name, record in left:
            counts[record.get("lang")] += 1
            if counts[record.get("lang")] <= top:
                chosen.append((name, record))
        left = chosen
    return {(name, record["id"]) for name, record in left[:limit]}


@pytest.mark.parametrize("limit", [None, 7, 1_000])
@pytest.mark.parametrize("top", [None, 2])
@pytest.mark.parametrize("deduplicate", [False, True])
def test_run_chooses_what_plain_python_chooses(
    tmp_path: Path, deduplicate: bool, top: int | None, limit: int | None
) -> None:
    write(tmp_path, CORPUS)
    sample = TOP if top is not None else None
    recipe = recipe_of(tmp_path, deduplicate=deduplicate, sample=sample, limit=limit)
    report = run(recipe)
    assert members(recipe) == oracle(CORPUS, deduplicate, top, limit)
    assert report.outcome == "done" and report.documents == len(members(recipe))
    duplicates = [reject for reject in rejects(recipe) if reject["reason"] == "duplicate_text"]
    assert len(duplicates) == report.duplicates == report.rejects.get("duplicate_text", 0)
    assert bool(duplicates) == (deduplicate and (limit != 7 or top is not None))
    if limit != 7 or top is not None:
        assert report.documents + report.duplicates + report.left_out == 80


def test_run_seeded_sample_takes_as_many_of_each_group_by_chance(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    report = run(recipe)
    langs = {record["id"]: record.get("lang") for file in CORPUS.values() for record in file}
    assert Counter(langs[doc_id] for _, doc_id in members(recipe)) == dict.fromkeys(
        ["en", "de", "fr", None], 5
    )
    assert (report.documents, report.left_out) == (20, 60)
    other = recipe_of(tmp_path, "other", sample=SEEDED | {"seed": 4})
    run(other)
    assert members(other) != members(recipe)


@pytest.mark.parametrize(
    "choice", [{"sample": SEEDED}, {"deduplicate": True, "sample": SEEDED, "limit": 9}]
)
def test_run_members_are_the_same_on_a_machine_with_another_mount_and_other_listing(
    tmp_path: Path, choice: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedding_core.runs.embed.planning as planning

    chosen = []
    for folder in (tmp_path / "a", tmp_path / "elsewhere" / "b"):
        write(folder, CORPUS)
        recipe = recipe_of(folder, **choice)
        run(recipe, resources=Resources(unit_bytes=1 if "b" in folder.name else 1 << 20))
        chosen.append(members(recipe))
        real = planning.discover

        def shuffled(*arguments: Any, **options: Any) -> Any:
            from dataclasses import replace

            listed = real(*arguments, **options)  # noqa: B023
            files = list(listed.files)
            random.Random(5).shuffle(files)
            return replace(listed, files=tuple(files))

        monkeypatch.setattr(planning, "discover", shuffled)
    assert chosen[0] == chosen[1]


def test_run_sample_per_metadata_column_and_per_folder(tmp_path: Path) -> None:
    for lang in ("en", "de"):
        for name in "ab":
            content = [{"id": f"{lang}{name}{n}", "text": f"{lang} {name} {n}"} for n in range(5)]
            write_jsonl(tmp_path, f"lang={lang}/{name}.jsonl", content)
    sample = {"rows": 3, "per": "lang", "top": True}
    expected = {("a.jsonl", f"{lang}a{n}") for lang in ("en", "de") for n in range(3)}
    for lake, metadata in (("one", {}), ("two", {"lang": "string"})):
        recipe = recipe_of(tmp_path, lake, sample=sample, metadata=metadata)
        run(recipe)
        assert members(recipe) == expected


def test_run_sample_per_path_lists_and_numbers_are_groups(tmp_path: Path) -> None:
    values = [1, 1.0, "1", [1, 2], [1, 2], {"a": 1}, None, True, "x", "x"]
    content: Records = [
        {"id": str(n), "text": f"text {n}", "meta": {"key": value}}
        for n, value in enumerate(values)
    ]
    write_jsonl(tmp_path, "a.jsonl", [*content, {"id": "10", "text": "t", "meta": 3}])
    recipe = recipe_of(tmp_path, sample={"rows": 1, "per": "meta.key", "top": True})
    report = run(recipe)
    assert {doc for _, doc in members(recipe)} == {"0", "3", "5", "6", "7", "8"}
    assert report.rejects == {}, "a value of the field makes no reject"


@pytest.mark.parametrize(
    "choice",
    [
        {"sample": SEEDED | {"rows": 20}, "deduplicate": True},
        {"sample": SEEDED | {"rows": 20}},
        {"deduplicate": True},
        {"limit": 100},
    ],
    ids=str,
)
def test_run_slices_of_a_big_file_have_the_members_of_the_whole(
    tmp_path: Path, choice: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    content = [dict(record) for record in records("a", 300)]
    for n in range(0, 300, 9):
        content[n]["text"] = content[n // 2]["text"]
    for n in range(4, 300, 10):
        content[n]["id"] = content[(n * 7) % 300]["id"]  # used before or behind, in other slices
    write(tmp_path, {"a.jsonl": content, "b.jsonl": records("b", 10)})
    for id_field in ("id", None):
        chosen = []
        for lake, unit_bytes in ((f"{id_field}whole", 1 << 20), (f"{id_field}cut", 1_000)):
            recipe = recipe_of(tmp_path, lake, id=id_field, max_rejected_share=1, **choice)
            report = run(recipe, resources=Resources(unit_bytes=unit_bytes))
            left = [(reject["reason"], reject["position"]) for reject in rejects(recipe)]
            chosen.append((members(recipe), left, report.duplicates, report.left_out))
        assert chosen[0] == chosen[1]
        assert ("duplicate_id" in dict(chosen[0][1])) == (id_field is not None)


def test_run_slices_without_deduplication_survey_in_slices_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    write(tmp_path, {"a.jsonl": records("a", 300)})
    chosen = []
    for lake, unit_bytes in (("whole", 1 << 20), ("cut", 1_000)):
        recipe = recipe_of(tmp_path, lake, id=None, sample=SEEDED)
        run(recipe, resources=Resources(unit_bytes=unit_bytes))
        chosen.append(members(recipe))
    assert chosen[0] == chosen[1]


# While the source changes


@pytest.mark.parametrize(
    "choice",
    [
        {"sample": SEEDED},
        {"sample": TOP},
        {"deduplicate": True},
        {"limit": 15},
        {"deduplicate": True, "limit": 15},
        {"deduplicate": True, "sample": SEEDED, "limit": 9},
    ],
    ids=str,
)
def test_run_members_stay_while_the_source_grows(tmp_path: Path, choice: dict[str, Any]) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, **choice)
    run(recipe)
    before = members(recipe)
    write(tmp_path, {"a.jsonl": records("a", 20), "c.jsonl": records("c", 20)})
    write(tmp_path, {"d.jsonl": [*CORPUS["d.jsonl"], *records("d", 15, first=20)]})
    report = run(recipe)
    assert before <= members(recipe)
    if "limit" in choice or "sample" in choice:
        assert before == members(recipe) and report.embedded == 0


def test_run_vacancies_are_filled_and_no_more_than_these(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    run(recipe)
    before = members(recipe)
    (tmp_path / "src" / "d.jsonl").unlink()
    gone = {member for member in before if member[0] == "d.jsonl"}
    report = run(recipe)
    after = members(recipe)
    assert gone and before - gone < after and len(after) == len(before)
    assert 0 < report.embedded <= len(gone)
    # What filled a vacancy is a member like the others: it does not leave for a newer document.
    write(tmp_path, {"a.jsonl": records("a", 200)})
    run(recipe)
    assert members(recipe) == after


def test_run_of_a_changed_file_its_member_stays_and_a_member_that_left_it_is_replaced(
    tmp_path: Path,
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    run(recipe)
    before = members(recipe)
    gone = sorted(member for member in before if member[0] == "d.jsonl")[0]
    content = [record for record in CORPUS["d.jsonl"] if record["id"] != gone[1]]
    write(tmp_path, {"d.jsonl": [*records("z", 50), *content]})
    run(recipe)
    assert before - {gone} < members(recipe) and len(members(recipe)) == len(before)


def test_run_the_twin_comes_alive_when_the_kept_copy_leaves(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": records("a", 3), "b.jsonl": records("b", 3)})
    recipe = recipe_of(tmp_path, deduplicate=True)
    report = run(recipe)
    assert report.duplicates == 1 and report.outcome == "done", "it is no fault"
    (twin,) = rejects(recipe)
    assert (twin["doc_id"], twin["position"], twin["reason"]) == ("b0", 0, "duplicate_text")
    # A copy in a file that comes first does not take the place of the copy that is kept.
    write(tmp_path, {"0.jsonl": records("0", 1)})
    assert run(recipe).embedded == 0
    assert {reject["doc_id"] for reject in rejects(recipe)} == {"b0", "00"}
    (tmp_path / "src" / "a.jsonl").unlink()
    run(recipe, allow_removals=True)
    assert {doc for _, doc in members(recipe)} == {"00", "b0", "b1", "b2"} - {"b0"}
    assert [reject["doc_id"] for reject in rejects(recipe)] == ["b0"]
    (tmp_path / "src" / "0.jsonl").unlink()
    run(recipe, allow_removals=True)
    assert {doc for _, doc in members(recipe)} == {"b0", "b1", "b2"} and rejects(recipe) == []


@pytest.mark.slow
def test_run_another_choice_is_made_by_the_new_one(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    every = recipe_of(tmp_path)
    run(every)
    assert len(rows(every)) == 80
    for choice in (
        {"sample": SEEDED},
        {"sample": TOP},
        {"limit": 3},
        {"limit": 6},
        {"deduplicate": True},
    ):
        recipe = recipe_of(tmp_path, **choice)
        report = run(recipe)
        fresh = recipe_of(tmp_path, f"fresh{len(str(choice))}{choice}".replace("/", ""), **choice)
        run(fresh)
        assert members(recipe) == members(fresh)
        assert report.embedded == 0 or choice != {"sample": SEEDED}
    run(every)
    assert len(rows(every)) == 80


def test_run_only_files_whose_members_change_are_cut_again(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=TOP)
    run(recipe)
    versions = {line.source_uri: line.run_id for line in file_lines(recipe)}
    write(tmp_path, {"z.jsonl": records("z", 20)})
    report = run(recipe)
    assert (report.added, report.changed) == (1, 0)
    assert {line.source_uri: line.run_id for line in file_lines(recipe)}.items() > versions.items()


@pytest.mark.parametrize("choice", [{"deduplicate": True}, {"sample": SEEDED}, {"limit": 30}])
def test_run_a_renamed_file_leaves_the_table_true(tmp_path: Path, choice: dict[str, Any]) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, **choice)
    run(recipe)
    n_rows = len(rows(recipe))
    (tmp_path / "src" / "d.jsonl").rename(tmp_path / "src" / "e.jsonl")
    run(recipe)
    assert len(rows(recipe)) == n_rows


def test_run_keep_removed_keeps_rows_that_are_no_part_of_the_choice(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED).model_copy(update={"keep_removed": True})
    run(recipe)
    gone = {member for member in members(recipe) if member[0] == "d.jsonl"}
    (tmp_path / "src" / "d.jsonl").unlink()
    run(recipe)
    assert gone < members(recipe) and len(rows(recipe)) == 20 + len(gone)


def test_run_lake_in_a_bucket_keeps_its_choice_there(tmp_path: Path, s3: S3Server) -> None:
    bucket = s3.new_bucket()
    write(tmp_path, CORPUS)
    recipe = recipe_for(
        tmp_path,
        source={"sample": SEEDED, "deduplicate": True},
        lake={"uri": f"s3://{bucket}/lake", "storage": s3.storage.model_dump()},
    )
    run(recipe)
    before = members(recipe)
    write(tmp_path, {"a.jsonl": records("a", 40)})
    run(recipe)
    assert members(recipe) == before


# What is read


def test_run_over_an_unchanged_source_reads_nothing(tmp_path: Path, reads: Counter[str]) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED, deduplicate=True)
    run(recipe)
    reads.clear()
    assert run(recipe).outcome == "done" and not reads


def test_run_over_a_changed_source_surveys_what_is_new(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    run(recipe)
    surveyed: list[str] = []
    real = survey.survey_file

    def survey_file(job: Any, choosing: Any, file: Any, *rest: Any) -> Any:
        surveyed.append(Path(file.uri).name)
        return real(job, choosing, file, *rest)

    monkeypatch.setattr(survey, "survey_file", survey_file)
    write(tmp_path, {"e.jsonl": records("e", 20)})
    run(recipe)
    assert surveyed == ["e.jsonl"]


@pytest.mark.parametrize("deduplicate", [False, True])
def test_run_with_a_limit_reads_no_file_behind_it(
    tmp_path: Path, reads: Counter[str], deduplicate: bool
) -> None:
    write(tmp_path, {f"{n:02}.jsonl": records(f"{n}-", 10) for n in range(30)})
    recipe = recipe_of(tmp_path, limit=25, deduplicate=deduplicate)
    planned = plan(recipe)
    reads.clear()
    report = run(recipe)
    assert report.documents == len(rows(recipe)) == 25
    last = max(name for name, _ in members(recipe))
    sampled_to_plan = {"00.jsonl", "10.jsonl", "20.jsonl"}
    behind = {name for name in reads if name > last} - sampled_to_plan
    assert len(behind) <= 4, "files are surveyed in batches that double"
    assert planned.choice is not None and planned.choice.files_to_survey == 30
    summary = plan(recipe).choice
    assert summary is not None and summary.files_beyond == 29 - int(last[:2])
    assert any("files behind source.limit" in line for line in PlanView(plan(recipe)).lines())
    # A smaller limit empties files, and a larger one fills them again.
    small = recipe_of(tmp_path, limit=3, deduplicate=deduplicate)
    run(small)
    assert len(rows(small)) == 3
    run(recipe)
    assert len(rows(recipe)) == 25


def test_run_with_a_limit_reads_no_record_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", [*records("a", 10), *({"id": "x"} for _ in range(500))])
    recipe = recipe_of(tmp_path, limit=10)
    report = run(recipe)
    assert (report.outcome, report.rejected, len(rows(recipe))) == ("done", 0, 10)


# What is on record


def test_reports_say_what_was_left_out_and_why(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=TOP, deduplicate=True)
    planned = plan(recipe)
    assert planned.choice is not None and planned.choice.files_to_survey == 4
    assert any("a run first reads 4 files" in line for line in PlanView(planned).lines())
    assert planned.estimated_chunks is not None and planned.estimated_chunks <= 8
    report = run(recipe)
    (line,) = [line for line in RunView(report).lines() if line.startswith("left out by choice")]
    assert line == (
        f"left out by choice: {report.duplicates:,} duplicates, {report.left_out:,} documents by "
        "the sample or the limit"
    )
    lines = file_lines(recipe)
    assert sum(file.duplicates for file in lines) == report.duplicates == 12
    assert sum(file.left_out for file in lines) == report.left_out == 80 - 12 - report.documents
    summary = plan(recipe).choice
    assert summary is not None
    assert (summary.chosen, summary.duplicates) == (report.documents, 12)
    assert summary.left_out == report.left_out and summary.files_to_survey == 0
    assert json.dumps(PlanView(planned).data()) and json.dumps(PlanView(plan(recipe)).data())
    (tmp_path / "src" / "b.jsonl").unlink()
    changed = PlanView(plan(recipe)).data()
    assert all(
        set(file["choice"]) == {"chosen", "duplicates", "left_out"} for file in changed["files"]
    )


def test_run_left_out_records_count_as_read_for_the_tolerance(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [*records("a", 200), {"id": "bad"}])
    report = run(recipe_of(tmp_path, sample={"rows": 2, "top": True}))
    assert (report.outcome, report.rejected, report.documents) == ("done", 1, 2)


def test_run_file_of_which_nothing_is_taken_still_lists_its_rejects(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": records("a", 300), "b.jsonl": [*records("b", 300), {"id": "bad"}]})
    recipe = recipe_of(tmp_path, sample={"rows": 2, "top": True})
    report = run(recipe)
    assert report.outcome == "done" and report.left_out == 598
    assert [reject["reason"] for reject in rejects(recipe)] == ["missing_field"]


def test_plan_announces_no_more_than_is_taken(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", records("a", 5_000))
    for choice, most in (({"sample": {"rows": 10, "seed": 1}}, 10), ({"limit": 7}, 7), ({}, 5_500)):
        planned = plan(recipe_of(tmp_path, **choice))
        assert planned.estimated_chunks is not None
        assert 0.6 * most <= planned.estimated_chunks <= most


# Bad input


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"sample": {"rows": 0, "seed": 1}}, "source.sample.rows: Input should be greater than"),
        ({"sample": {"rows": 1, "seed": -1}}, "source.sample.seed: Input should be greater than"),
        ({"sample": {"rows": 1, "seed": 1, "top": True}}, "source.sample: has both seed and top"),
        ({"sample": {"rows": 1}}, "source.sample: says neither seed nor top; write seed: 1"),
        ({"sample": {"rows": 1, "seed": 1, "pre": "x"}}, "source.sample.pre: unknown key"),
        ({"limit": 0}, "source.limit: Input should be greater than"),
        ({"deduplicate": "some"}, "source.deduplicate: Input should be a valid boolean"),
    ],
    ids=str,
)
def test_recipe_wrong_choice_is_refused_in_words(
    tmp_path: Path, source: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        recipe_of(tmp_path, **source)
    assert words in str(refused.value)


def test_run_per_field_with_too_many_values_says_the_number_and_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MOST_GROUPS", 30)
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample={"rows": 1, "per": "id", "top": True})
    with pytest.raises(SetupError, match="'id' has more than 30 different values"):
        embedlake.embed(recipe)


def test_run_bad_files_are_rejected_as_without_a_choice(tmp_path: Path) -> None:
    write(tmp_path, CORPUS)
    (tmp_path / "src" / "e.jsonl").write_bytes(b"not json\n" * 5_000)
    (tmp_path / "src" / "c.jsonl.gz").write_bytes(b"no gzip")
    recipe = recipe_of(tmp_path, sample=SEEDED)
    report = embedlake.embed(recipe)
    assert report.outcome == "rejected" and len(rows(recipe)) == 20
    assert {reject["reason"] for reject in rejects(recipe)} >= {
        "corrupt_compressed",
        "malformed_json",
    }
    assert plan(recipe).is_empty


class Killed(BaseException):
    """The process ends here."""


def test_run_survey_that_fails_for_a_file_is_taken_apart_and_rejects_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    real = documents.RecordMapper.map

    def broken(self: Any, record: Any) -> Any:
        if getattr(record, "fields", {}).get("id") == "d7":
            raise RuntimeError("a fault in the code")
        return real(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(documents.RecordMapper, "map", broken)
        report = embedlake.embed(recipe)
    assert report.rejects == {"failed": 1} and len(rows(recipe)) == 20
    assert "d.jsonl" not in {name for name, _ in members(recipe)}
    run(recipe)
    assert len(rows(recipe)) == 20


def test_run_survey_killed_in_its_middle_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    surveyed: Counter[str] = Counter()
    real = survey.survey_file

    def survey_file(job: Any, choosing: Any, file: Any, *rest: Any) -> Any:
        if sum(surveyed.values()) == 2:
            raise Killed
        surveyed[Path(file.uri).name] += 1
        return real(job, choosing, file, *rest)

    monkeypatch.setattr(survey, "survey_file", survey_file)
    with pytest.raises(Killed):
        embedlake.embed(recipe, Resources(unit_bytes=1))
    surveyed["more"] = 1
    run(recipe, resources=Resources(unit_bytes=1))
    del surveyed["more"]
    assert surveyed == dict.fromkeys(CORPUS, 1), "a surveyed file is not read for it again"
    fresh = recipe_of(tmp_path, "fresh", sample=SEEDED)
    surveyed["more"] = 9
    run(fresh)
    assert members(recipe) == members(fresh)


def test_run_store_that_fails_during_the_survey_ends_the_run_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)

    def no_answer(*_: Any) -> Any:
        raise Transient("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(survey, "survey_file", no_answer)
        with pytest.raises(Transient):
            embedlake.embed(recipe)
    run(recipe)
    assert len(rows(recipe)) == 20


@pytest.mark.parametrize("moment", ["before it is kept", "before a commit", "between commits"])
def test_run_cut_off_loses_and_doubles_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED, deduplicate=True)
    run(recipe)
    before = members(recipe)
    (tmp_path / "src" / "b.jsonl").unlink()
    write(tmp_path, {"a.jsonl": records("a", 4)})
    calls: list[int] = []
    if moment == "before it is kept":
        home, name, killed_at = settling, "keep", 1
    else:
        home, name, killed_at = scheduler, "commit_units", 1 if "before" in moment else 2
    real = getattr(home, name)

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == killed_at:
            raise Killed
        return real(*arguments)

    resources = Resources(unit_bytes=1, units_per_commit=1)
    with monkeypatch.context() as patch:
        patch.setattr(home, name, killed)
        with pytest.raises(Killed):
            embedlake.embed(recipe, resources)
    write(tmp_path, {"0.jsonl": records("0", 10)})
    run(recipe, resources=resources)
    kept = {member for member in before if member[0] != "b.jsonl"}
    after = members(recipe)
    assert kept <= after and len(after) == 20
    counts: dict[str, int] = defaultdict(int)
    for row in rows(recipe):
        counts[row["text"]] += 1
    assert set(counts.values()) == {1}


def test_run_file_that_changes_between_survey_and_chunking_gives_no_wrong_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    real = scheduler.settle
    changes: list[int] = []

    def changed_after(*arguments: Any) -> Any:
        choices = real(*arguments)
        if not changes:
            changes.append(1)
            write(tmp_path, {"d.jsonl": records("x", 3)})
        return choices

    monkeypatch.setattr(scheduler, "settle", changed_after)
    report = run(recipe)
    assert report.outcome == "done"
    assert len(rows(recipe)) == 20
    fresh = recipe_of(tmp_path, "fresh", sample=SEEDED)
    run(fresh)
    sure = {member for member in members(recipe) if member[0] != "d.jsonl"}
    assert all(doc.startswith("x") for name, doc in members(recipe) if name == "d.jsonl")
    assert sure and len(members(fresh)) == 20


@pytest.mark.parametrize("content", [None, b"", b"damaged", b"PAR1 cut off"])
def test_run_what_is_kept_of_the_choice_only_saves_time(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    run(recipe)
    before = members(recipe)
    path = Path(choice_path(recipe.lake.uri, recipe.lake.table))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert run(recipe).embedded == 0
    assert members(recipe) == before
    assert ("is damaged" in caplog.text) == (content is not None)


def test_unreadable_file_keeps_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CORPUS)
    recipe = recipe_of(tmp_path, sample=SEEDED)
    run(recipe)
    before = members(recipe)
    path = tmp_path / "src" / "d.jsonl"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    report = embedlake.embed(recipe)
    assert report.unreadable == 1 and members(recipe) == before


@pytest.mark.parametrize("deduplicate", [False, True])
def test_run_with_a_limit_vacancies_go_to_the_first_documents_of_the_rest(
    tmp_path: Path, deduplicate: bool
) -> None:
    write(tmp_path, {f"{name}.jsonl": records(name, 10) for name in "bdfhj"})
    recipe = recipe_of(tmp_path, limit=25, deduplicate=deduplicate)
    run(recipe)
    before = members(recipe)
    write(tmp_path, {f"{name}.jsonl": records(name, 10) for name in "ce"})
    run(recipe)
    assert members(recipe) == before, "no place is free"
    (tmp_path / "src" / "b.jsonl").unlink()
    run(recipe, allow_removals=True)
    came = members(recipe) - before
    assert len(members(recipe)) == 25
    assert {name for name, _ in came} <= {"c.jsonl", "d.jsonl"} and came, "files come in order"
    fresh = recipe_of(tmp_path, "fresh", limit=25, deduplicate=deduplicate)
    run(fresh)
    assert len(rows(fresh)) == 25


# What documents are made of


def test_run_sample_per_item_of_a_list_and_per_derived_field(tmp_path: Path) -> None:
    def chat(n: int, n_turns: int) -> dict[str, Any]:
        turns = [
            {"role": ["user", "assistant"][turn % 2], "content": f"turn {n} {turn}"}
            for turn in range(n_turns)
        ]
        return {"id": str(n), "tags": [f"tag{n % 2}"], "messages": turns}

    write_jsonl(tmp_path, "a.jsonl", [chat(n, 2 + 2 * (n % 3)) for n in range(12)])
    conversation = {"conversation": "messages", "text": "{response}"}
    for per, expected in (("tags[0]", {"0", "1"}), ("num_turns", {"0", "1", "2"})):
        sample = {"rows": 1, "per": per, "top": True}
        recipe = recipe_of(tmp_path, per.replace("[0]", ""), sample=sample, **conversation)
        run(recipe)
        assert {doc for _, doc in members(recipe)} == expected


def test_recipe_per_that_is_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source\.sample\.per: .*tags\["):
        recipe_of(tmp_path, sample={"rows": 1, "per": "tags[", "seed": 1})


@pytest.mark.parametrize("choice", [{"sample": {"rows": 7, "seed": 1}}, {"limit": 7}])
def test_run_documents_that_a_map_makes_of_one_record_are_chosen_one_by_one(
    tmp_path: Path, choice: dict[str, Any]
) -> None:
    (tmp_path / "halves.py").write_text(
        "def cut(record):\n"
        "    if record['n'] % 5 == 4:\n"
        "        return None\n"
        "    return [{'text': f\"{record['n']} {half}\"} for half in range(3)]\n"
    )
    write_jsonl(tmp_path, "a.jsonl", [{"n": n} for n in range(10)])
    spec = {"function": "halves:cut", "folder": str(tmp_path)}
    recipe = recipe_of(tmp_path, id=None, map=spec, **choice)
    report = run(recipe)
    assert report.outcome == "done" and len(rows(recipe)) == report.documents == 7
    if "limit" in choice:
        assert [row["text"] for row in rows(recipe, "text")] == [
            f"{n} {half}" for n in range(3) for half in range(3)
        ][:7]  # fmt: skip
    else:
        assert report.left_out == 24 - 7
    write_jsonl(tmp_path, "a.jsonl", [{"n": n} for n in range(30)])
    before = members(recipe)
    run(recipe)
    assert members(recipe) == before
