"""Each thing that can be wrong with an environment is found by ``doctor``, with what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import prefect
import pytest
import s3fs

from embedding_core.errors import LakeError, SetupError
from embedding_core.recipe import Recipe, Resources
from embedlake.cli.doctor import Check, diagnose
from embedlake.diagnosis import installation, machine, recipe_needs, servers
from embedlake.settings import Settings
from tests.driver import recipe_for, write_jsonl
from tests.lake.forgetful_s3 import forgetful_store
from tests.s3 import S3Server
from tests.sources.loopback import loopback_server

LOGIN = "admin:secret"


@dataclass
class StubApi:
    """What a Prefect server says of its health and its version."""

    url: str
    version: str = prefect.__version__
    login: str | None = None
    clock: timedelta = timedelta()
    """How far its clock is ahead."""
    status: int = 200
    """Of what is not its health."""
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        api: StubApi = self.server.api  # type: ignore[attr-defined]
        api.asked.append(self.path)
        right = api.login and f"Basic {b64encode(api.login.encode()).decode()}"
        is_health = self.path.endswith("/health")
        is_denied = right and not is_health and self.headers.get("Authorization") != right
        self.send_response_only(401 if is_denied else 200 if is_health else api.status)
        self.send_header("Date", format_datetime(datetime.now(UTC) + api.clock, usegmt=True))
        body = json.dumps(api.version).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """A Prefect API that PREFECT_API_URL names."""
    with loopback_server(_Handler) as server:
        stub = StubApi(f"http://127.0.0.1:{server.server_port}/api")
        server.api = stub  # type: ignore[attr-defined]
        monkeypatch.setenv("PREFECT_API_URL", stub.url)
        yield stub


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Settings with a home in which no stack runs."""
    return Settings(home=tmp_path / "home")


def check(name: str, settings: Settings, recipe: Recipe | None = None) -> Check:
    """One check of ``doctor``."""
    return next(check for check in diagnose(settings, recipe) if check.name == name)


def test_python_that_nobody_tested_is_named_with_those_that_are() -> None:
    assert installation.check_python() == sys.version.split()[0]
    for running in ((3, 10), (3, 99), (4, 0)):
        with pytest.raises(SetupError, match=r"3\.11, 3\.12, 3\.13.*python3\.13 -m venv"):
            installation.check_python(running)


def test_extra_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "PACKAGES", {"torch": None, "no-such-package": "run"})
    with pytest.raises(SetupError, match=r"^no-such-package: .*pip install 'embedlake\[run\]'"):
        installation.check_packages()


def test_extra_that_the_recipe_needs_is_named(
    tmp_path: Path, tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch, home: Settings
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.pdf").write_bytes(b"%PDF-1.7\n")
    pdf = recipe_for(tmp_path, source={"id": None, "include": ["*.pdf"]})
    adapted = recipe_for(
        tmp_path, model={"name": str(tiny_qwen3), "dim": None, "adapter": str(tmp_path)}
    )
    for module, name, recipe, extra in (
        ("pypdfium2", "source", pdf, "pdf"),
        ("peft", "model", adapted, "lora"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        answer = check(name, home, recipe)
        assert not answer.ok and f"pip install 'embedlake[{extra}]'" in answer.detail


def test_prefect_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, home: Settings) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(SetupError, match=r"no answer from .*:9/api; start it, run `embedlake up`"):
        servers.check_prefect(home)


def test_prefect_that_refuses_the_credentials(api: StubApi, home: Settings) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    api.login = LOGIN
    for login in (None, "admin:other"):
        refused = pytest.raises(SetupError, match=r"HTTP 401.*PREFECT_SERVER_API_AUTH_STRING")
        with temporary_settings({PREFECT_API_AUTH_STRING: login}), refused:
            servers.check_prefect(home)
    with temporary_settings({PREFECT_API_AUTH_STRING: LOGIN}):
        assert api.url in servers.check_prefect(home)


def test_error_of_prefect_s_client_is_explained_where_its_api_refused_the_credentials(
    api: StubApi, home: Settings
) -> None:
    api.login = LOGIN
    for path, status in (("/deployments", 401), ("/health", 200)):
        answer = httpx.get(f"{api.url}{path}")
        assert answer.status_code == status
        error = httpx.HTTPStatusError("refused", request=answer.request, response=answer)
        refused = servers.refused_login(error)
        assert (refused is not None) == (status == 401)
        assert refused is None or f"{api.url} does not accept the credentials" in str(refused)
    elsewhere = httpx.Request("GET", "https://hub.example/api")
    denied = httpx.Response(401, request=elsewhere)
    error = httpx.HTTPStatusError("refused", request=elsewhere, response=denied)
    assert servers.refused_login(error) is None
    assert servers.refused_login(ValueError("401")) is None


def test_prefect_that_is_older_than_its_client(api: StubApi, home: Settings) -> None:
    for version, is_fit in (("3.0.1", False), (prefect.__version__, True), ("3.99.0", True)):
        api.version = version
        if is_fit:
            assert f"Prefect {version}" in servers.check_prefect(home)
        else:
            with pytest.raises(SetupError, match=f"prefect=={prefect.__version__}"):
                servers.check_prefect(home)


def test_prefect_whose_database_is_away(api: StubApi, home: Settings) -> None:
    api.status = 500
    with pytest.raises(SetupError, match=r"HTTP 500.*whether its database runs"):
        servers.check_prefect(home)


def test_clock_that_is_not_that_of_prefect(api: StubApi, home: Settings) -> None:
    assert "within 30 s of the Prefect API" in check("clock", home).detail
    for minutes, direction in ((5, "behind"), (-5, "ahead of")):
        api.clock = timedelta(minutes=minutes)
        answer = check("clock", home)
        assert not answer.ok
        assert f"s {direction} that of the Prefect API" in answer.detail
        assert "timedatectl set-ntp true" in answer.detail


def s3_recipe(s3: S3Server, folder: Path) -> Recipe:
    storage = {"endpoint_url": s3.endpoint_url, "region": s3.storage.region}
    (folder / "src").mkdir(exist_ok=True)
    return recipe_for(folder, lake={"uri": f"s3://{s3.bucket}/lake", "storage": storage})


@pytest.fixture
def wrong_secret(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment has another secret than the store; clients that were made before are gone."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_clock_that_is_not_that_of_the_store(s3: S3Server, tmp_path: Path) -> None:
    dates = dict(recipe_needs.dates(s3_recipe(s3, tmp_path)))
    assert f"s3://{s3.bucket}/lake" in machine.check_clock(dates)
    with pytest.raises(SetupError, match=r"clock is 3,6\d\d s ahead of that of the store of s3://"):
        machine.check_clock(dates, now=lambda: datetime.now(UTC) + timedelta(hours=1))


@pytest.mark.usefixtures("wrong_secret")
def test_store_that_refuses_the_credentials(s3: S3Server, tmp_path: Path) -> None:
    recipe = s3_recipe(s3, tmp_path)
    with pytest.raises(LakeError, match="AWS credentials in the environment"):
        recipe_needs.check_lake(recipe)
    dates = dict(recipe_needs.dates(recipe))
    assert f"s3://{s3.bucket}/lake" in machine.check_clock(dates), "a refusal has a date too"


@pytest.mark.slow
def test_store_without_conditional_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with forgetful_store() as store:
        storage = {"endpoint_url": store.url, "region": "us-east-1"}
        recipe = recipe_for(tmp_path, lake={"uri": "s3://bucket/lake", "storage": storage})
        with pytest.raises(LakeError, match=r"ignores If-None-Match.*MinIO, SeaweedFS"):
            recipe_needs.check_lake(recipe)


def test_gpu_that_torch_cannot_use(home: Settings) -> None:
    assert "no CUDA device" in machine.check_processor(home, n_gpus=0)
    with pytest.raises(SetupError, match=r"2 NVIDIA GPUs.*CUDA build.*EMBEDLAKE_RESOURCES__DEVICE"):
        machine.check_processor(home, n_gpus=2)
    on_cpu = Settings(resources=Resources(device="cpu"))
    assert "CPU" in machine.check_processor(on_cpu, n_gpus=2)


def test_disk_of_the_lake_that_is_too_small(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {str(n): f"text {n}" for n in range(500)})
    recipe = recipe_for(tmp_path)
    assert "MiB to write" in recipe_needs.check_room(recipe)
    with pytest.raises(SetupError, match=r"staged rows.*100 MiB are free; make room"):
        recipe_needs.check_room(recipe, lambda _folder: 100 * 1024 * 1024)
    wide = recipe_for(tmp_path, model={"dim": 4096})
    assert _megabytes(recipe_needs.check_room(wide)) > _megabytes(recipe_needs.check_room(recipe))


def _megabytes(said: str) -> int:
    return int(said.split()[1].replace(",", ""))


def test_versions_that_differ_name_the_node_the_package_and_both() -> None:
    ours = servers.versions_here()
    servers.check_versions(ours, {"a": ours, "b": ours})
    theirs = {**ours, "pylance": "1.0.0"}
    del theirs["ray"]
    with pytest.raises(SetupError) as caught:
        servers.check_versions(ours, {"a": ours, "10.0.0.2": theirs})
    said = str(caught.value)
    assert f"node 10.0.0.2 has pylance 1.0.0 and this process {ours['pylance']}" in said
    assert "has ray not installed" in said and "node a has" not in said and "one image" in said


def test_help_names_what_is_found() -> None:
    command = [Path(sys.executable).parent / "embedlake", "doctor", "--help"]
    said = " ".join(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    for subject in ("Python", "extras", "credentials", "clocks", "conditional writes", "GPUs",
                    "disk", "versions"):  # fmt: skip
        assert subject in said
