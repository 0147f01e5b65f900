"""The file beside a recipe: every fault is said before a server is asked to change anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from embedding_core.errors import UsageError
from embedding_core.recipe import Recipe
from embedlake.deploying.deploy_file import FLOWS, read_deploy_file
from embedlake.deploying.desired import desired_items, flow_called, parameter_schema
from embedlake.deploying.guards import HEARTBEAT, automation_of, shipped_automations
from embedlake.deploying.items import Change, Item, changes
from embedlake.deploying.pools import default_template, template_of
from embedlake.environment import PREFECT_PATIENCE
from embedlake.orchestration.outcome import NAMES
from tests.embedlake.conftest import Embedlake

BLOCK = UUID(int=7)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe; the file beside it is each test's."""
    path = tmp_path / "articles.yaml"
    path.write_text(
        "name: articles\nsource: {uri: ./data, id: id}\nmodel: {name: hashing, dim: 32}\n"
        "lake: {uri: ./lake, table: articles}\n"
    )
    return path


def items(recipe: Path, content: dict[str, Any], block: UUID | None = BLOCK) -> list[Item]:
    """What a file asks for."""
    recipe.with_suffix(".deploy.yaml").write_text(yaml.safe_dump(content))
    file = read_deploy_file(str(recipe), None)
    template = template_of(file.pool, None)
    return desired_items(str(recipe), Recipe.load(recipe), file, template, block)


def embed(**values: Any) -> dict[str, Any]:
    """A file with a deployment of the flow embed."""
    return {"deployments": {"embed": values}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"pol": {}}, ["pol: unknown key; did you mean 'pool'?"]),
        ({"pool": {"type": "ecs"}}, ["pool.type", "'process', 'docker' or 'kubernetes'"]),
        ({"recipe": "articles.yaml"}, ["'articles.yaml' is relative", "absolute path"]),
        ({"deployments": {"embd": {}}}, ["no flow is called embd", *FLOWS]),
        (embed(schedules=[{}]), ["exactly one of cron, interval and rrule"]),
        (embed(schedules=[{"cron": "0 * * * *", "interval": 5}]), ["exactly one of cron"]),
        (embed(schedules=[{"cron": "every day"}]), ["deployments.embed.schedules", "'every day'"]),
        (embed(schedules=[{"cron": "0 * * * *", "timezone": "Mars"}]), ["Mars"]),
        (embed(parameters={"recpie": 1}), ["'recpie'; did you mean 'recipe'?"]),
        (embed(parameters={"allow_removals": "perhaps"}), ["allow_removals", "boolean"]),
        (embed(parameters={"resources": {"gpus": 1}}), ["gpus: unknown key"]),
        (embed(schedules=[{"interval": 9, "parameters": {"x": 1}}]), ["unknown parameter 'x'"]),
        ({"deployments": {"evaluate": {"parameters": {"column": 1}}}}, ["column: 1 is not"]),
        ({"deployments": {"evaluate": {"parameters": {"qrel": "q"}}}}, ["did you mean 'qrels'?"]),
        (embed(triggers=[{"type": "event", "threshold": "many"}]), ["deployments.embed.triggers"]),
        (embed(concurrency={"limit": 0}), ["concurrency.limit", "greater than or equal to 1"]),
        ({"deployments": {"export": {"schedules": [{"interval": 60}]}}}, ["no destination"]),
        ({"deployments": {"export": {"parameters": {"spec": {"to": "doc"}}}}}, ["no such format"]),
        ({"job_variables": {"imgae": "x"}}, ["unknown variable 'imgae'; it takes", "working_dir"]),
        ({"job_variables": {"working_dri": "x"}}, ["did you mean 'working_dir'?"]),
        ({"job_variables": {"stream_output": "perhaps"}}, ["stream_output", "boolean"]),
        ({"job_variables": {"env": {"HF_TOKEN": "hf_abc"}}}, ["env.HF_TOKEN", "Secret block"]),
        (
            {"job_variables": {"env": {"AZURE_STORAGE_CONNECTION_STRING": "a=b"}}},
            ["env.AZURE_STORAGE_CONNECTION_STRING", "Secret block"],
        ),
        ({"job_variables": {"env": {"PROXY": "http://me:k@host"}}}, ["env.PROXY", "Secret block"]),
        ({"pool": {"type": "docker"}}, ["image is missing", "infra/Dockerfile"]),
        ({"automations": {"apply": ["faild"]}}, ["no automation 'faild'", "failed, late, locked"]),
    ],
)
def test_wrong_file_is_refused_with_what_is_wrong(
    recipe: Path, content: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        items(recipe, content)
    for words in said:
        assert words in str(refused.value)


def test_key_that_is_written_twice_is_refused(recipe: Path) -> None:
    recipe.with_suffix(".deploy.yaml").write_text("tags: [a]\ntags: [b]\n")
    with pytest.raises(UsageError, match="'tags' twice"):
        read_deploy_file(str(recipe), None)


def test_secret_that_is_a_block_is_taken(recipe: Path) -> None:
    env = {"HF_TOKEN": "{{ prefect.blocks.secret.hub }}"}
    (deployment,) = [
        item
        for item in items(recipe, {"job_variables": {"env": env}} | embed())
        if item.kind == "deployment"
    ]
    assert deployment.values["job_variables"] == {"env": PREFECT_PATIENCE | env}


def test_run_asks_again_while_the_database_of_prefect_is_away_unless_the_file_says_otherwise(
    recipe: Path,
) -> None:
    (variable,) = PREFECT_PATIENCE
    for content, codes in (({}, "500"), ({"job_variables": {"env": {variable: "418"}}}, "418")):
        (deployment,) = [
            item for item in items(recipe, content | embed()) if item.kind == "deployment"
        ]
        assert deployment.values["job_variables"] == {"env": {variable: codes}}


def test_messages_without_a_block_are_refused_and_dead_runs_need_none(recipe: Path) -> None:
    with pytest.raises(UsageError, match="names no block"):
        items(recipe, {"automations": {"apply": ["failed"]}}, block=None)
    there = items(recipe, {"automations": {"apply": ["dead"]}} | embed(), block=None)
    assert [item.name for item in there if item.kind == "automation"] == ["articles: dead"]


def test_file_of_another_place_is_read_and_a_missing_one_is_refused(
    recipe: Path, tmp_path: Path
) -> None:
    other = tmp_path / "night.yaml"
    other.write_text("deployments: {maintain: {}}")
    assert set(read_deploy_file(str(recipe), str(other)).deployments) == {"maintain"}
    assert set(read_deploy_file(str(recipe), None).deployments) == set(FLOWS)
    assert set(read_deploy_file('{"name": "inline"}', None).deployments) == set(FLOWS)
    with pytest.raises(UsageError, match=r"no file at .*gone\.yaml"):
        read_deploy_file(str(recipe), str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    ("content", "inline"),
    [
        ({}, False),
        ({"recipe": "inline"}, True),
        ({"pool": {"name": "p", "type": "docker"}, "job_variables": {"image": "i"}}, True),
        ({"pool": {"name": "p", "type": "docker"}, "job_variables": {"image": "i"},
          "recipe": "/data/articles.yaml"}, False),
    ],
)  # fmt: skip
def test_runs_get_a_recipe_that_their_worker_finds(
    recipe: Path, content: dict[str, Any], inline: bool
) -> None:
    (deployment,) = [item for item in items(recipe, content | embed()) if item.kind == "deployment"]
    parameter = deployment.values["parameters"]["recipe"]
    if inline:
        assert Recipe.load(parameter) == Recipe.load(recipe)
    else:
        assert parameter == content.get("recipe", str(recipe))


@pytest.mark.parametrize("name", FLOWS)
def test_flow_of_each_deployment_is_there_and_its_schema_names_resources(name: str) -> None:
    properties = parameter_schema(flow_called(name))["properties"]
    assert "recipe" in properties
    if "resources" in properties:
        assert "gpus_per_task" in properties["resources"]["anyOf"][0]["properties"]


@pytest.mark.parametrize("pool_type", ["process", "docker", "kubernetes"])
def test_templates_of_pools_are_in_the_package(pool_type: str) -> None:
    assert "env" in default_template(pool_type)["variables"]["properties"]


def test_shipped_automations_watch_the_runs_of_their_recipe_alone() -> None:
    assert shipped_automations() == ["dead", "failed", "late", "locked", "refused"]
    for name in shipped_automations():
        item = automation_of(name, "articles", "embedlake-deploy:articles", BLOCK)
        assert item.values["trigger"]["match_related"] == {
            "prefect.resource.id": "prefect.tag.embedlake-deploy:articles",
            "prefect.resource.role": "tag",
        }
        assert item.values["tags"] == ["embedlake-deploy:articles"]


def test_no_name_that_a_flow_gives_its_last_state_is_taken_for_death() -> None:
    trigger = automation_of("dead", "articles", "t", None).values["trigger"]
    flows = "".join(path.read_text() for path in (ROOT / "flows").glob("*.py"))
    named = {part.partition('"')[0] for part in flows.split('Completed(name="')[1:]}
    assert {"Superseded", "Left"} <= named
    for name in {*NAMES.values(), *named, "Locked", "Completed", "Failed", "Crashed", "Cancelled"}:
        assert f"prefect.flow-run.{name}" in trigger["expect"]
    assert trigger["after"] == [HEARTBEAT]


def test_changes_come_in_an_order_that_a_server_takes() -> None:
    deployment, automation = Item("deployment", "embed/a", {}), Item("automation", "a: dead", {})
    pool = Item("work pool", "p", {})
    made = changes([], [automation, deployment, pool])
    assert [change.item.kind for change in made] == ["work pool", "deployment", "automation"]
    gone = changes([deployment, automation], [])
    assert [change.item.kind for change in gone] == ["automation", "deployment"]
    assert changes([deployment, pool], [pool, deployment]) == []


def test_change_says_what_was_and_what_will_be() -> None:
    change = Change("update", Item("deployment", "embed/a", {"tags": ["b"]}), {"tags": ["a"]})
    assert list(change.lines()) == ["~ deployment embed/a", "    tags: ['a'] -> ['b']"]
    assert change.data()["fields"] == {"tags": {"from": ["a"], "to": ["b"]}}


def test_deploy_without_a_server_says_how_to_get_one(embedlake: Embedlake, recipe: Path) -> None:
    answer = embedlake("deploy", str(recipe))
    assert answer.code == 1 and "embedlake up" in answer.err
