"""The command line: exit codes, data on stdout and talk on stderr, messages that say what to do."""

from __future__ import annotations

import io
import json
import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import jsonschema
import lance
import pydantic
import pytest
import yaml
from prefect.states import Failed
from prefect.utilities.engine import capture_sigterm

from embedding_core import Encoder, __version__
from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.errors import SetupError, Transient
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.reports.run import RunView
from embedding_core.runs import job, serving, table_status
from embedding_core.runs.embed.estimate import STARTING_SECONDS
from embedding_core.runs.outcome import Outcome
from embedding_core.store.retry import is_waited_for
from embedlake import interrupts
from embedlake.cli import options
from embedlake.cli.main import cli
from embedlake.execution.runner import EndedTask, Runner
from embedlake.local.small_work import LOADING_SECONDS
from embedlake.orchestration.outcome import ended
from embedlake.silence import saying_a_slow_load
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake, handled_signals
from tests.encoder.remote.stub_engine import stub_engine

DONE, FAILED, BAD_USAGE = 0, 1, 2
COMMANDS = sorted(cli.commands)
ROOT = Path(__file__).resolve().parents[2]
SHIPPED_RECIPES = sorted((ROOT / "deployments" / "recipes").glob("*.yaml"))
NOBODY_LISTENS = "http://127.0.0.1:9/api"  # port 9 is "discard", a port servers leave alone


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over two documents that were not embedded yet."""
    texts = [
        {"id": "cat", "text": "the cat sleeps on the sofa", "year": 2020},
        {"id": "7", "text": "taxes rose again", "year": 2024},
    ]
    write_jsonl(tmp_path, "a.jsonl", texts)
    return write_recipe(tmp_path, source={"metadata": {"year": "int"}})


@pytest.fixture
def embedded(recipe: Path) -> Path:
    """The same, embedded."""
    assert run(Recipe.load(recipe)).outcome == "done"
    return recipe


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port of the loopback interface that something listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


# The commands themselves


def test_json_of_every_command_has_null_for_nan_however_deep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options.respond({"a": [math.nan, {"b": (math.inf, 1.5)}], "path": Path("x")}, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": [None, {"b": [None, 1.5]}], "path": "x"}


def test_version_is_the_library_s(embedlake: Embedlake) -> None:
    assert __version__ in embedlake("--version").out


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_each_option_have_help(name: str, embedlake: Embedlake) -> None:
    command = cli.commands[name]
    assert command.help
    choices = [option for option in command.params if isinstance(option, click.Option)]
    assert all(option.help for option in choices)
    assert "--json" in {name for option in choices for name in option.opts}
    shown = embedlake(name, "--help")
    assert shown.code == DONE and shown.out.startswith("Usage:")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_unknown_option_is_bad_usage(name: str, embedlake: Embedlake) -> None:
    answer = embedlake(name, "--no-such-option")
    assert (answer.code, answer.out) == (BAD_USAGE, "")
    assert "--no-such-option" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("plan",),
        ("search", "recipe.yaml"),
        ("search", "recipe.yaml", "words", "--queries", "q.jsonl"),
        ("search", "recipe.yaml", "words", "--exact", "--nprobes", "1"),
        ("search", "recipe.yaml", "words", "--nprobes", "0"),
        ("search", "recipe.yaml", "words", "-k", "0"),
        ("search", "recipe.yaml", "words", "-k", "many"),
        ("up", "--port", "70000"),
        ("embed", "recipe.yaml", "--set", "unit_bytes"),
        ("embed", "recipe.yaml", "--set", "unit_bytes=few"),
        ("embed", "recipe.yaml", "--set", "unit_byte=1"),
        ("search", "recipe.yaml", "words", "--param", "x=1"),
    ],
)
def test_bad_usage_ends_with_two(arguments: tuple[str, ...], embedlake: Embedlake) -> None:
    answer = embedlake(*arguments)
    assert (answer.code, answer.out) == (BAD_USAGE, "")
    assert answer.err


def test_embed_misspelt_resource_names_the_nearest(embedlake: Embedlake) -> None:
    assert "'unit_bytes'" in embedlake("embed", "recipe.yaml", "--set", "unit_byte=1").err


@pytest.mark.parametrize("name", ["plan", "embed", "evaluate", "status", "doctor"])
def test_recipe_with_misspelt_key_names_the_nearest(
    name: str, embedlake: Embedlake, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, chunks={"max_tokens": 32})
    answer = embedlake(name, str(path))
    assert (answer.code, answer.out) == (BAD_USAGE, "")
    assert "chunks: unknown key; did you mean 'chunk'?" in answer.err


def test_recipe_that_does_not_exist_is_bad_usage(embedlake: Embedlake, tmp_path: Path) -> None:
    answer = embedlake("plan", str(tmp_path / "none.yaml"))
    assert answer.code == BAD_USAGE and "none.yaml" in answer.err


def test_error_with_json_is_one_object_on_stdout(embedlake: Embedlake, tmp_path: Path) -> None:
    missing_source = embedlake("plan", str(write_recipe(tmp_path)), "--json")
    assert missing_source.json["kind"] == "SetupError"
    assert missing_source.json["error"] in missing_source.err
    assert embedlake("plan", "none.yaml", "--json").json["kind"] == "UsageError"
    assert embedlake("plan", "--json").json["kind"] == "UsageError"


def test_drop_without_an_answer_removes_nothing_and_names_the_option(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("", "n\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        refused = embedlake("drop", str(embedded), "--json")
        assert refused.code == BAD_USAGE
        assert "--yes" in refused.json["error"]
    assert embedlake("status", str(embedded)).code == DONE


def test_command_that_is_stopped_says_how_to_go_on(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(io.StringIO):
        def readline(self, *_: object) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Stopped())
    stopped = embedlake("drop", str(embedded), "--json")
    assert stopped.code == 130 and stopped.json["kind"] == "KeyboardInterrupt"
    assert "stopped. What was committed is kept" in stopped.err.splitlines()[-1]


def taken_for_an_error(number: signal.Signals) -> None:
    """A signal comes while compiled code calls Python; its error is the library's.

    Raises ``PydanticSerializationError``, a ``ValueError``, whatever the signal's handler raises.
    """

    class Model(pydantic.BaseModel):
        @pydantic.model_serializer
        def serialized(self) -> dict[str, int]:
            signal.raise_signal(number)
            return {}

    Model().model_dump()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_that_a_library_takes_for_an_error_of_its_own_stops_the_command(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, code: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(table_status, "status", lambda *_: taken_for_an_error(number))
    stopped = embedlake("status", str(embedded), "--json")
    assert stopped.code == code and stopped.json["kind"] == "KeyboardInterrupt"
    assert "stopped. What was committed is kept" in stopped.err.splitlines()[-1]


@pytest.mark.parametrize("is_raised", [True, False], ids=["as an error", "not at all"])
def test_sigterm_amid_a_flow_that_a_library_takes_for_an_error_stops_the_flow(
    is_raised: bool,
) -> None:
    with handled_signals():
        with pytest.raises(KeyboardInterrupt), capture_sigterm(), interrupts.not_mistaken():
            with nullcontext() if is_raised else suppress(ValueError):
                taken_for_an_error(signal.SIGTERM)
            interrupts.check()
        assert interrupts.exit_code() == 143


def test_signal_of_a_flow_stops_no_later_flow_of_its_process() -> None:
    before, handler = signal.getsignal(signal.SIGINT), signal.default_int_handler
    signal.signal(signal.SIGINT, handler)  # who runs the tests in the background ignores it
    with pytest.raises(KeyboardInterrupt), interrupts.not_mistaken():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
    with interrupts.not_mistaken():
        interrupts.check()
    signal.signal(signal.SIGINT, before)


def test_task_whose_error_was_a_signal_stops_the_run_and_is_no_error_of_its_file() -> None:
    runner = Runner()
    runner.in_process = True
    error = ValueError("taken for an error")
    with handled_signals():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            runner.result(EndedTask(uuid4(), Failed(data=error)))


def test_runner_stops_for_a_signal_that_a_library_kept_to_itself() -> None:
    with handled_signals():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            Runner().first_ended([], 1.0)
        with pytest.raises(KeyboardInterrupt), interrupts.not_mistaken():
            raise Transient("the library says something else")


def test_signal_of_an_earlier_command_stops_no_later_one() -> None:
    with handled_signals():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        interrupts.handle_signals()
        interrupts.check()


def test_wrong_setting_is_bad_usage_and_named(
    embedlake: Embedlake, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDLAKE_RAY_CPUS", "none")
    answer = embedlake("embed", str(recipe))
    assert answer.code == BAD_USAGE and "EMBEDLAKE_RAY_CPUS" in answer.err


# maintain


def test_maintain_without_a_named_api_needs_no_server(
    embedlake: Embedlake, embedded: Path, tmp_path: Path
) -> None:
    answer = embedlake("maintain", str(embedded), "--json")
    assert answer.code == DONE and "maintained docs: 1 to 1 fragment," in answer.err
    assert answer.json["exit_code"] == DONE and answer.json["problems"] == []
    tables = [table["table"] for table in answer.json["tables"]]
    assert tables == ["docs", "docs__files", "docs__rejects"]
    assert answer.json["tables"][0]["after"]["rows"] == 2
    assert embedlake("maintain", str(embedded)).out.startswith("done: 0 fragments merged")
    assert not (tmp_path / "home" / "prefect").exists()


def test_maintain_that_cannot_end_fails_with_its_report(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the store does not answer")

    monkeypatch.setattr(lance.LanceDataset, "cleanup_old_versions", unreachable)
    monkeypatch.setattr("embedding_core.store.retry.FIRST_PAUSE_SECONDS", 0)
    answer = embedlake("maintain", str(embedded), "--json")
    assert answer.code == FAILED and len(answer.json["problems"]) == 3
    assert "NOT DONE" in answer.err and "does not answer" in answer.err


def test_maintain_without_a_table_fails_and_says_what_to_do(
    embedlake: Embedlake, recipe: Path
) -> None:
    answer = embedlake("maintain", str(recipe))
    assert answer.code == FAILED and "embedlake embed" in answer.err


# schema


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED_RECIPES, ids=lambda path: path.name)
def test_schema_accepts_shipped_recipes(path: Path, embedlake: Embedlake) -> None:
    schema = embedlake("schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    Recipe.load(path)


def test_schema_refuses_unknown_key_and_missing_section(embedlake: Embedlake) -> None:
    schema = embedlake("schema", "--json").json
    good = yaml.safe_load(SHIPPED_RECIPES[0].read_text())
    for bad in (good | {"nmae": "x"}, {k: v for k, v in good.items() if k != "model"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


# plan


def test_plan_missing_source_fails_and_names_it(embedlake: Embedlake, tmp_path: Path) -> None:
    answer = embedlake("plan", str(write_recipe(tmp_path)))
    assert (answer.code, answer.out) == (FAILED, "")
    assert str(tmp_path / "src") in answer.err and "source.uri" in answer.err


def test_plan_source_without_files_fails(embedlake: Embedlake, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    answer = embedlake("plan", str(write_recipe(tmp_path)))
    assert answer.code == FAILED and "source.include" in answer.err


def test_plan_unknown_model_fails_and_says_what_is_supported(
    embedlake: Embedlake, recipe: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, model={"name": "./no-such-folder", "dim": None})
    answer = embedlake("plan", str(path))
    assert answer.code == FAILED and "no-such-folder" in answer.err


def test_plan_file_name_with_a_line_end_stays_on_its_line(
    embedlake: Embedlake, tmp_path: Path
) -> None:
    name = "a\n\x1b[31mé\tb.jsonl"
    write_jsonl(tmp_path, name, {"x": "one"})
    path = write_recipe(tmp_path)
    shown = embedlake("plan", str(path)).out
    assert "  + " + str(tmp_path / "src") + "/a\\n\\x1b[31mé\tb.jsonl  (new file)\n" in shown
    (file,) = embedlake("plan", str(path), "--json").json["files"]
    assert file["file"]["uri"].endswith(name)


def test_plan_json_is_complete_and_changes_nothing(
    embedlake: Embedlake, recipe: Path, tmp_path: Path
) -> None:
    answer = embedlake("plan", str(recipe), "--json")
    assert (answer.code, answer.err) == (DONE, "")
    plan = answer.json
    assert not plan["nothing_to_do"]
    (file,) = plan["files"]
    assert file["file"]["uri"] == str(tmp_path / "src" / "a.jsonl")
    assert (file["change"], file["why"]) == ("added", "new file")
    assert plan["size_bytes"] == file["file"]["size_bytes"] > 0
    assert plan["estimated_tokens"] > 0 and plan["estimated_seconds"] is None
    assert len(plan["space_id"]) == len(plan["rows_id"]) == 64
    assert not (tmp_path / "lake").exists()


def test_plan_of_an_embedded_source_has_nothing_to_do(embedlake: Embedlake, embedded: Path) -> None:
    plan = embedlake("plan", str(embedded), "--json").json
    assert plan["nothing_to_do"] and plan["files"] == [] and plan["unchanged"] == 1
    assert "Nothing to do" in embedlake("plan", str(embedded)).out


# bench


@pytest.mark.slow
def test_bench_compares_engines_with_their_costs(
    embedlake: Embedlake, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDLAKE_PRICE_PER_HOUR", "3600")
    with stub_engine(max_tokens=2_000) as engine, stub_engine(api="tei") as other:
        section = json.dumps({"name": other.url, "tokenizer": "cautious"})
        path = write_recipe(tmp_path, model={"name": engine.url, "tokenizer": "cautious"})
        options = ("--engine", "hashing", "--engine", section, "--seconds", "0.1")
        engines = embedlake("bench", str(path), *options, "--json").json["engines"]
        lines = embedlake("bench", str(path), "--seconds", "0.1").out
        plan = embedlake("plan", str(path), "--json").json
        assert plan["work_seconds"] is not None
    names = [f"stub at {engine.url}", "hashing", f"stub at {other.url}"]
    assert [measured["engine"] for measured in engines] == names
    for measured in engines:
        assert [rate["workload"] for rate in measured["rates"]] == ["50", "512", "mix"]
        rate = measured["tokens_per_second"]
        assert measured["cost_per_million_tokens"] == pytest.approx(1e6 / rate)
    assert "fastest on the mix: stub at" in lines and "cost of a million tokens" in lines


@pytest.mark.slow
def test_bench_measures_the_model_and_later_plans_estimate_with_it(
    embedlake: Embedlake, recipe: Path, tmp_path: Path, tiny_qwen3: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write_recipe(tmp_path, model={"name": str(tiny_qwen3), "dim": None})
    monkeypatch.setenv("EMBEDLAKE_PRICE_PER_HOUR", "3600")
    assert embedlake("plan", str(path), "--json").json["estimated_cost"] is None
    speed = embedlake("bench", str(path), "--seconds", "0.1", "--json").json
    assert speed["tokens_per_second"] > 0 and len(speed["workloads"]) == 5
    assert speed["cost_per_million_tokens"] == pytest.approx(1e6 / speed["tokens_per_second"])
    plan = embedlake("plan", str(path), "--json").json
    work = plan["estimated_tokens"] / speed["tokens_per_second"]
    assert plan["work_seconds"] == pytest.approx(work)
    assert plan["estimated_seconds"] == pytest.approx(LOADING_SECONDS + work)
    assert plan["estimated_cost"] == pytest.approx(LOADING_SECONDS + work)
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "local")
    on_ray = embedlake("plan", str(path), "--json").json
    assert on_ray["estimated_seconds"] == pytest.approx(STARTING_SECONDS + work)
    assert "EMBEDLAKE_PRICE_PER_HOUR" in embedlake("plan", str(path)).out


def test_bench_of_hashing_fails_because_there_is_no_model(
    embedlake: Embedlake, recipe: Path
) -> None:
    answer = embedlake("bench", str(recipe), "--seconds", "0.1")
    assert answer.code == FAILED and "runs no model" in answer.err


# What takes long says so


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("search", "words"),
        ("evaluate", "--queries", "{q}", "--qrels", "{r}"),
        ("verify", "--deep"),
    ],
)
def test_command_that_loads_a_model_for_long_says_so_on_stderr(
    embedlake: Embedlake, embedded: Path, tmp_path: Path, command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "cat"}\n')
    (tmp_path / "r.tsv").write_text("query-id\tcorpus-id\tscore\n1\tcat\t1\n")
    files = {"q": tmp_path / "q.jsonl", "r": tmp_path / "r.tsv"}
    name, *arguments = (argument.format(**files) for argument in command)
    spoke, load = threading.Event(), job.load_model

    def slow(*arguments: Any) -> Encoder:
        assert spoke.wait(60)
        return load(*arguments)

    def say(lines: list[str]) -> None:
        click.echo("\n".join(lines), err=True)
        spoke.set()

    job.unload()
    monkeypatch.setattr(job, "load_model", slow)
    monkeypatch.setattr(options, "say", say)
    answer = embedlake(name, str(embedded), *arguments, "--json")
    assert answer.code == DONE and answer.json
    first, *_, last = answer.err.splitlines()
    assert first == "loading the model hashing" and "hashing is ready after" in last


def test_command_that_loads_a_model_at_once_says_nothing(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.unload()
    patient = partial(saying_a_slow_load, moment_seconds=600)  # however busy the machine is
    monkeypatch.setattr(options, "saying_a_slow_load", patient)
    assert embedlake("search", str(embedded), "cat").err == ""


# embed


def test_embed_prefect_api_that_does_not_answer_fails_and_says_what_to_do(
    embedlake: Embedlake, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (NOBODY_LISTENS, "127.0.0.1:4200", "http://127.0.0.1:port/api"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        answer = embedlake("embed", str(recipe))
        assert (answer.code, answer.out) == (FAILED, "")
        assert url in answer.err
        assert "embedlake up" in answer.err and "PREFECT_API_URL" in answer.err


def test_embed_wrong_recipe_is_told_before_a_server_is_asked(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY_LISTENS)
    assert embedlake("embed", str(write_recipe(tmp_path, nmae="x"))).code == BAD_USAGE


def test_embed_nothing_to_do_reports_without_a_server(
    embedlake: Embedlake, embedded: Path, tmp_path: Path
) -> None:
    answer = embedlake("embed", str(embedded), "--json")
    assert answer.code == DONE
    assert (answer.json["embedded"], answer.json["rows"], answer.json["unchanged"]) == (0, 2, 1)
    assert answer.json["exit_code"] == DONE and answer.json["verification"]["problems"] == []
    assert "Nothing to do" in answer.err
    assert not (tmp_path / "home" / "prefect").exists()


# search


def test_search_is_for_a_person_who_waits(
    embedlake: Embedlake, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears soon of a server that is down; a flow bears with it for longer."""
    waits: list[bool] = []

    def describe(model: ModelSpec) -> ModelInfo:
        waits.append(is_waited_for())
        return describe_model(model)

    monkeypatch.setattr(serving, "describe_model", describe)
    assert embedlake("search", str(embedded), "cat").code == DONE
    assert waits == [True] and not is_waited_for()


def test_search_prints_hits_and_json_has_every_field(embedlake: Embedlake, embedded: Path) -> None:
    answer = embedlake("search", str(embedded), "the cat sleeps", "-k", "1", "--json")
    assert (answer.code, answer.err) == (DONE, "")
    (hit,) = answer.json["hits"]
    assert (hit["doc_id"], hit["metadata"]) == ("cat", {"year": 2020})
    assert hit["text"] == "the cat sleeps on the sofa" and 0 < hit["score"] <= 1
    plain = embedlake("search", str(embedded), "the cat sleeps", "-k", "1")
    assert "cat" in plain.out and "the cat sleeps on the sofa" in plain.out


@pytest.mark.parametrize(
    ("where", "param", "found"),
    [
        ("year > :y", "y=2022", ["7"]),
        ("doc_id = :id", "id=cat", ["cat"]),
        ("doc_id = :id", 'id="7"', ["7"]),
        ("doc_id = :id", "id=' OR 1=1 --", []),
        ("(doc_id = :id) IS NOT TRUE", "id=null", ["7", "cat"]),
        ("doc_id = :id", "id:string=7", ["7"]),
        ("year = :y", "y:int=2020", ["cat"]),
        ("year < :y", "y:float=2021", ["cat"]),
        ("year = 2020 AND :t > TIMESTAMP '2020-06-01'", "t:timestamp=2021-01-01", ["cat"]),
        ('"year" = :y', 'y="2020"', ["cat"]),
    ],
)
def test_search_where_with_a_parameter_filters(
    embedlake: Embedlake, embedded: Path, where: str, param: str, found: list[str]
) -> None:
    answer = embedlake(
        "search", str(embedded), "words", "--where", where, "--param", param, "--json"
    )
    assert answer.code == DONE, answer.err
    assert sorted(hit["doc_id"] for hit in answer.json["hits"]) == found


@pytest.mark.parametrize(
    ("filter_", "named"),
    [
        (("--where", "nope = 1"), "nope"),
        (("--where", "year = ="), "year = ="),
        (("--where", "year = :y"), ":y"),
        (("--where", "year = 1", "--param", "y=1"), "'y'"),
        (("--where", "year = :y", "--param", "y"), "NAME=VALUE"),
        (("--where", "year = :y", "--param", "y:number=1"), "no type 'number'"),
        (("--where", "year = :y", "--param", "y:timestamp=soon"), "ISO 8601"),
        (("--where", "year = :y", "--param", 'y="soon"'), "int of 64 bits"),
        (("--param", "y=1"), "--where"),
    ],
)
def test_search_bad_filter_is_bad_usage(
    embedlake: Embedlake, embedded: Path, filter_: tuple[str, ...], named: str
) -> None:
    answer = embedlake("search", str(embedded), "words", *filter_)
    assert (answer.code, answer.out) == (BAD_USAGE, "")
    assert named in answer.err


def test_search_queries_from_a_file_are_answered_in_order(
    embedlake: Embedlake, embedded: Path, tmp_path: Path
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text(
        '{"_id": "q2", "text": "taxes rose"}\n{"_id": "q1", "text": "a cat on the sofa"}\n'
    )
    answer = embedlake("search", str(embedded), "--queries", str(queries), "-k", "1", "--json")
    results = answer.json["results"]
    assert [(result["query_id"], result["hits"][0]["doc_id"]) for result in results] == [
        ("q2", "7"), ("q1", "cat"),
    ]  # fmt: skip
    plain = embedlake("search", str(embedded), "--queries", str(queries), "-k", "1").out
    assert plain.index("q2: taxes rose") < plain.index("q1: a cat on the sofa")


@pytest.mark.parametrize(
    ("content", "named"), [('{"_id": "1"}\n', "line 1"), ("", "no queries"), (None, "none.jsonl")]
)
def test_search_queries_file_that_cannot_be_used_is_bad_usage(
    embedlake: Embedlake, embedded: Path, tmp_path: Path, content: str | None, named: str
) -> None:
    queries = tmp_path / "none.jsonl"
    if content is not None:
        queries.write_text(content)
    answer = embedlake("search", str(embedded), "--queries", str(queries))
    assert (answer.code, answer.out) == (BAD_USAGE, "") and named in answer.err


@pytest.mark.parametrize("words", ["  ", "half a \udcff"])
def test_search_words_that_are_no_text_are_bad_usage(
    embedlake: Embedlake, embedded: Path, words: str
) -> None:
    answer = embedlake("search", str(embedded), words)
    assert (answer.code, answer.out) == (BAD_USAGE, "") and answer.err


def test_search_hybrid_without_a_full_text_index_is_bad_usage(
    embedlake: Embedlake, embedded: Path
) -> None:
    answer = embedlake("search", str(embedded), "cat", "--hybrid")
    assert answer.code == BAD_USAGE and "index.full_text" in answer.err


def test_search_nothing_found_says_so(embedlake: Embedlake, embedded: Path) -> None:
    answer = embedlake("search", str(embedded), "words", "--where", "year = 1")
    assert (answer.code, answer.out) == (DONE, "nothing found\n")


def test_search_without_a_table_fails_and_says_what_to_do(
    embedlake: Embedlake, recipe: Path
) -> None:
    answer = embedlake("search", str(recipe), "words")
    assert answer.code == FAILED and "embedlake embed" in answer.err


def test_search_by_a_recipe_with_another_model_asks_the_one_in_service(
    embedlake: Embedlake, embedded: Path, tmp_path: Path
) -> None:
    mine = embedlake("search", str(embedded), "words", "--json")
    other = write_recipe(tmp_path, model={"dim": 64}, source={"metadata": {"year": "int"}})
    assert embedlake("search", str(other), "words", "--json").json == mine.json


# evaluate


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[str, str, str, str]:
    """Options that name a queries and a qrels file."""
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    lines = [{"_id": "q1", "text": "a sleeping cat"}, {"_id": "q2", "text": "taxes"}]
    queries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\tcat\t1\nq2\t7\t1\n")
    return "--queries", str(queries), "--qrels", str(qrels)


def test_evaluate_json_has_each_metric_with_its_interval(
    embedlake: Embedlake, embedded: Path, labelled: tuple[str, ...]
) -> None:
    answer = embedlake("evaluate", str(embedded), *labelled, "--json")
    assert (answer.code, answer.err) == (DONE, "")
    metrics = answer.json["columns"]["vector"]
    assert set(metrics) == {"ndcg@10", "recall@10", "recall@100", "mrr@10"}
    for interval in metrics.values():
        assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
    assert metrics["recall@10"]["mean"] == 1.0
    assert (answer.json["queries"], answer.json["queries_without_relevant"]) == (2, 0)


def test_evaluate_takes_the_recipe_s_release_files(
    embedlake: Embedlake, embedded: Path, labelled: tuple[str, ...], tmp_path: Path
) -> None:
    release = {"queries": "queries.jsonl", "qrels": "qrels.tsv"}
    path = write_recipe(tmp_path, release=release, source={"metadata": {"year": "int"}})
    answer = embedlake("evaluate", str(path))
    assert answer.code == DONE, answer.err
    assert "ndcg@10" in answer.out and "2 queries" in answer.out


def test_evaluate_without_files_or_with_missing_ones_is_bad_usage(
    embedlake: Embedlake, embedded: Path, labelled: tuple[str, ...]
) -> None:
    nothing_named = embedlake("evaluate", str(embedded))
    assert nothing_named.code == BAD_USAGE and "release.queries" in nothing_named.err
    missing = embedlake("evaluate", str(embedded), *labelled[:3], "none.tsv")
    assert missing.code == BAD_USAGE and "none.tsv" in missing.err


def test_evaluate_unknown_column_fails_and_lists_them(
    embedlake: Embedlake, embedded: Path, labelled: tuple[str, ...]
) -> None:
    answer = embedlake("evaluate", str(embedded), *labelled, "--column", "vector__none")
    assert answer.code == FAILED and "vector__none" in answer.err


# status and doctor


def test_status_json_tells_table_space_ledger_and_runs(
    embedlake: Embedlake, embedded: Path
) -> None:
    status = embedlake("status", str(embedded), "--json").json
    assert (status["rows"], status["files"], status["recipe"]) == (2, 1, "e2e")
    assert status["space"]["model"] == "hashing" and len(status["space_id"]) == 64
    assert (status["ledger"]["chunks"], status["ledger"]["embedded"]) == (2, 2)
    assert len(status["runs"]) == 1 and status["rejects"] == {}
    assert "rejects: none" in embedlake("status", str(embedded)).out


def test_status_lists_files_and_rejects_when_asked(embedlake: Embedlake, embedded: Path) -> None:
    lists = embedlake("status", str(embedded), "--files", "--rejects", "--json").json
    assert [file["rows"] for file in lists["file_list"]] == [2] and lists["reject_list"] == []
    assert "2 rows, 2 documents" in embedlake("status", str(embedded), "--files").out


def test_retry_rejected_without_such_rejects_does_nothing(
    embedlake: Embedlake, embedded: Path
) -> None:
    report = embedlake("retry-rejected", str(embedded), "--json").json
    assert (report["exit_code"], report["embedded"], report["unchanged"]) == (0, 0, 1)


def test_status_without_a_table_fails(embedlake: Embedlake, recipe: Path) -> None:
    answer = embedlake("status", str(recipe))
    assert (answer.code, answer.out) == (FAILED, "")


def test_doctor_checks_the_environment(embedlake: Embedlake) -> None:
    answer = embedlake("doctor", "--json")
    assert answer.code == DONE, answer.out
    names = [check["name"] for check in answer.json["checks"]]
    assert names == [
        "python", "packages", "plugins", "processor", "folders", "prefect", "ray", "clock",
    ]  # fmt: skip


def test_doctor_with_a_recipe_checks_source_model_and_lake(
    embedlake: Embedlake, embedded: Path
) -> None:
    answer = embedlake("doctor", str(embedded))
    assert answer.code == DONE, answer.out
    assert "ok    source: 1 file," in answer.out and "ok    lake:" in answer.out
    assert "2 rows" in answer.out


def test_doctor_reports_every_trouble_and_fails(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY_LISTENS)
    path = write_recipe(tmp_path, model={"name": "./no-such-folder", "dim": None})
    answer = embedlake("doctor", str(path), "--json")
    assert answer.code == FAILED
    bad = {check["name"] for check in answer.json["checks"] if not check["ok"]}
    assert bad == {"prefect", "source", "model"}


# up and down


def test_up_on_a_busy_port_fails_and_leaves_nothing(
    embedlake: Embedlake, busy_port: int, tmp_path: Path
) -> None:
    answer = embedlake("up", "--port", str(busy_port))
    assert (answer.code, answer.out) == (FAILED, "")
    assert str(busy_port) in answer.err and "--port" in answer.err
    assert embedlake("down", "--json").json == {"stopped": []}
    assert embedlake("doctor").code == DONE


def test_down_when_nothing_runs_is_done(embedlake: Embedlake) -> None:
    answer = embedlake("down")
    assert (answer.code, answer.out) == (DONE, "nothing was running\n")


@pytest.mark.parametrize(("outcome", "code"), [("failed", 1), ("rejected", 3)])
def test_flow_that_ended_badly_gives_its_report_and_exit_code(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome, code: int,
) -> None:  # fmt: skip
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    report = replace(run(Recipe.load(write_recipe(tmp_path))), outcome=outcome)
    waits: list[bool] = []

    def flow(*_: Any, **__: Any) -> Any:
        waits.append(is_waited_for())
        return ended(RunView(report))

    monkeypatch.setattr("embedlake.flows.embed.embed", flow)
    monkeypatch.setattr("embedlake.cli.embed.reachable_api", lambda _settings: NOBODY_LISTENS)
    monkeypatch.setattr("embedlake.cli.embed.use_or_start_api", lambda _settings: None)
    answer = embedlake("embed", str(write_recipe(tmp_path)), "--json")
    assert (answer.code, answer.json["exit_code"], answer.json["rows"]) == (code, code, 1)
    assert waits == [False]


def test_flow_that_failed_without_a_report_is_an_error(
    embedlake: Embedlake, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Failed

    failed = Failed(message="failed", data=SetupError("the source is gone; bring it back"))
    monkeypatch.setattr("embedlake.flows.embed.embed", lambda *_, **__: failed)
    monkeypatch.setattr("embedlake.cli.embed.use_or_start_api", lambda _settings: None)
    answer = embedlake("embed", str(recipe), "--json")
    assert (answer.code, answer.json["kind"]) == (FAILED, "SetupError")
    assert "bring it back" in answer.err


def test_embed_what_ray_prints_does_not_mix_with_the_result(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Completed

    def embed(*_: object, **__: object) -> object:
        print("(raylet) A worker died")
        return Completed(data={"summary": "done", "exit_code": 0})

    monkeypatch.setattr("embedlake.flows.embed.embed", embed)
    monkeypatch.setattr("embedlake.cli.embed.use_or_start_api", lambda _settings: None)
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    answer = embedlake("embed", str(write_recipe(tmp_path)), "--json")
    assert json.loads(answer.out) == {"summary": "done", "exit_code": 0}
    assert "A worker died" in answer.err
