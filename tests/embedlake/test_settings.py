"""Settings: each environment variable has its effect, a wrong one is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect_ray.context import RemoteOptionsContext

from embedding_core.errors import SetupError, UsageError
from embedding_core.recipe import Resources
from embedlake.execution.ray_runner import RayRunner, options
from embedlake.local import stack
from embedlake.local.hardware import Needs
from embedlake.settings import Settings, prefect_api_url, read_settings, use_prefect_api

URL = "http://127.0.0.1:4299/api"

RESOURCES = {
    "device": ("cpu", "cpu"),
    "batch_tokens": ("4096", 4096),
    "cpu_dtype": ("fp32", "fp32"),
    "unit": ("file", "file"),
    "unit_bytes": ("1024", 1024),
    "part_rows": ("512", 512),
    "units_per_commit": ("2", 2),
    "staged_bytes": ("1024", 1024),
    "seconds_per_commit": ("5.5", 5.5),
    "at_once": ("5", 5),
    "gpus_per_task": ("0.5", 0.5),
    "cpus_per_task": ("3", 3.0),
}
"""By resource: a value in the environment, and what it means. What each does is tested where it
is used."""


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.startswith(("EMBEDLAKE_", "PREFECT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect-home")))


def test_settings_defaults() -> None:
    settings = read_settings()
    assert settings == Settings(
        home=Path.home() / ".embedlake",
        ray_address=None,
        ray_cpus=os.cpu_count() or 1,
        resources=Resources(),
    )


def test_home_is_where_the_stack_is_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDLAKE_HOME", str(tmp_path))
    (tmp_path / "stack.json").write_text("damaged")
    with pytest.raises(SetupError, match=str(tmp_path)):
        stack.running_stack(read_settings())


def test_ray_address_is_where_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().is_local_ray and read_settings().ray_address is None
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "local")
    assert read_settings().is_local_ray
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "head:6379")
    settings = read_settings()
    assert not settings.is_local_ray
    assert RayRunner.of(settings).address == "head:6379"


def test_ray_client_s_address_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "ray://head.example:10001")
    with pytest.raises(UsageError, match=r"EMBEDLAKE_RAY_ADDRESS.*write .*head\.example:6379"):
        read_settings()


def test_ray_cpus_bound_a_local_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDLAKE_RAY_CPUS", "5")
    settings = read_settings()
    assert RayRunner.of(settings).init_kwargs["num_cpus"] == 5
    with options(Needs.of(settings.resources, settings)):
        assert RemoteOptionsContext.get().current_remote_options["num_cpus"] == 5


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_each_resource_can_be_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written, meant = RESOURCES[name]
    monkeypatch.setenv(f"EMBEDLAKE_RESOURCES__{name.upper()}", written)
    assert getattr(read_settings().resources, name) == meant


def test_every_resource_is_in_the_test_above() -> None:
    assert set(RESOURCES) == set(Resources.model_fields)


def test_resources_as_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDLAKE_RESOURCES", '{"unit_bytes": 7}')
    assert read_settings().resources.unit_bytes == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDLAKE_RAY_CPUS", "0"),
        ("EMBEDLAKE_RAY_CPUS", "many"),
        ("EMBEDLAKE_RESOURCES", "abc"),
        ("EMBEDLAKE_RESOURCES__UNIT_BYTES", "-1"),
        ("EMBEDLAKE_RESOURCES__GPUS_PER_TASK", "all"),
        ("EMBEDLAKE_RESOURCES__GPU", "1"),
    ],
)
def test_wrong_value_is_a_usage_error_naming_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"\b{name}\b"):
        read_settings()


def test_prefect_api_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prefect_api_url() is None
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert prefect_api_url() is None
    use_prefect_api("http://127.0.0.1:4200/api")
    assert prefect_api_url() == "http://127.0.0.1:4200/api"


@pytest.mark.slow
def test_prefect_api_url_of_the_active_profile_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert prefect_api_url() is None
    subprocess.run(
        [str(Path(sys.executable).parent / "prefect"), "config", "set", f"PREFECT_API_URL={URL}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert prefect_api_url() == URL
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert prefect_api_url() is None


def test_prefect_api_url_profile_that_is_not_toml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "profiles.toml").write_text("active = ")
    with pytest.raises(UsageError, match=r"profiles\.toml"):
        prefect_api_url()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EMBEDLAKE_RAY_ADRESS", "EMBEDLAKE_RAY_ADDRESS"),
        ("EMBEDLAKE_RESOURCE__DEVICE", "EMBEDLAKE_RESOURCES"),
    ],
)
def test_settings_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(UsageError, match=rf"{variable}.*did you mean {meant}\?"):
        read_settings()


def test_settings_the_demo_s_variable_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    without = read_settings()
    monkeypatch.setenv("EMBEDLAKE_DEMO_MODEL", "hashing")
    assert read_settings() == without


def test_a_resource_without_its_section_is_told_its_whole_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDLAKE_GPUS_PER_TASK", "1")
    with pytest.raises(UsageError, match="write EMBEDLAKE_RESOURCES__GPUS_PER_TASK"):
        read_settings()
