"""The servers of a run: Prefect, and a Ray cluster with all of its nodes."""

from __future__ import annotations

import os
import platform
import sys
from base64 import b64encode
from collections.abc import Mapping

from embedding_core.errors import SetupError
from embedding_core.plurals import counted
from embedlake.diagnosis.installation import PACKAGES, versions_of
from embedlake.extras import installing
from embedlake.settings import API_URL, Settings, prefect_api_url

ANSWER_SECONDS = 15.0
PROBE_SECONDS = 120.0
"""A node starts a process of Python for its probe."""
DENIED = frozenset({401, 403})
"""Status of an answer to wrong credentials."""
COMPARED = {**PACKAGES, "embedlake": None}
"""Packages that must be the same on every node, since nodes send each other pickles."""


def api_url(settings: Settings) -> str | None:
    """The Prefect API that a run would report to; None where it would start one."""
    from embedlake.local.stack import running_stack

    stack = running_stack(settings)
    return prefect_api_url() or (stack.api_url if stack else None)


def api_date(settings: Settings) -> str | None:
    """The ``Date`` of the Prefect API."""
    import httpx

    url = api_url(settings)
    if url is None:
        return None
    try:
        answer = httpx.get(f"{url}/health", timeout=ANSWER_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    date: str | None = answer.headers.get("Date")
    return date


def check_prefect(settings: Settings) -> str:
    """Whether the Prefect API answers, takes the credentials and is not older than its client."""
    from embedlake.local import processes

    url = api_url(settings)
    if url is None:
        return "no API named; `embedlake embed` starts one for itself, `embedlake up` keeps one"
    if not processes.answers(f"{url}/health"):
        raise SetupError(
            f"no answer from {url}; start it, run `embedlake up`, or unset PREFECT_API_URL"
        )
    import httpx

    with installing():
        import prefect
    try:
        answer = httpx.get(f"{url}/admin/version", headers=_login(), timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        raise SetupError(
            f"{url} answers its health check and nothing else ({error}); look at its log"
        ) from error
    if answer.status_code in DENIED:
        raise _login_refused(url, answer.status_code)
    if answer.status_code >= 500:
        raise SetupError(
            f"{url} answers HTTP {answer.status_code}; look at its log, and whether its database "
            "runs"
        )
    if not answer.is_success:  # Prefect Cloud tells no version, and takes every client
        return url
    theirs, ours = str(answer.json()), prefect.__version__
    if _numbers(theirs) < _numbers(ours):
        raise SetupError(
            f"{url} runs Prefect {theirs}, which is older than {ours} here; install "
            f"prefect=={ours} where the server runs (infra/locks/server.txt)"
        )
    return f"{url}, Prefect {theirs}"


def refused_login(error: Exception) -> SetupError | None:
    """What an error of Prefect's client says of credentials that its API does not accept; None for
    any other error."""
    httpx = sys.modules.get("httpx")  # who did not load it did not ask
    if httpx is None or not isinstance(error, httpx.HTTPStatusError):
        return None
    url, status = os.environ.get(API_URL), error.response.status_code
    if not url or status not in DENIED or not str(error.request.url).startswith(url):
        return None
    return _login_refused(url, status)


def _login_refused(url: str, status: int) -> SetupError:
    return SetupError(
        f"{url} does not accept the credentials (HTTP {status}); set PREFECT_API_AUTH_STRING to "
        "what its server has as PREFECT_SERVER_API_AUTH_STRING"
    )


def _login() -> dict[str, str]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    if (login := PREFECT_API_AUTH_STRING.value()) is not None:
        return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    if (key := PREFECT_API_KEY.value()) is not None:
        return {"Authorization": f"Bearer {key}"}
    return {}


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor: a server takes clients of its minor version, whatever their patch."""
    return tuple(int(number) for number in version.split(".")[:2])


def check_ray(settings: Settings) -> str:
    """Whether an embed task gets what it asks for, and each node has this process's versions."""
    from embedlake.local.hardware import Needs, lacking, local_capacity

    if (problem := lacking(settings.resources, settings)) is not None:
        raise SetupError(problem)
    if settings.is_local_ray:
        capacity = local_capacity(settings)
        cpus, gpus = capacity["CPU"], capacity["GPU"]
        return f"started for a run with {counted(cpus, 'CPU')} and {counted(gpus, 'NVIDIA GPU')}"
    with installing():
        from embedlake.execution.ray_runner import RayRunner, from_each_node, nodes
    with RayRunner.of(settings):
        resources = nodes()
        by_node = from_each_node(versions_here, PROBE_SECONDS)
    problem = Needs.of(settings.resources, settings).lacking_among(resources)
    if problem is not None:
        raise SetupError(f"the Ray cluster at {settings.ray_address}: {problem}")
    check_versions(versions_here(), by_node)
    return (
        f"{counted(len(by_node), 'node')} at {settings.ray_address}, all with the versions of "
        "this process"
    )


def versions_here() -> dict[str, str]:
    """What must be the same on every node."""
    return {"Python": platform.python_version()} | versions_of(COMPARED)


def check_versions(ours: Mapping[str, str], by_node: Mapping[str, Mapping[str, str]]) -> None:
    """Raise ``SetupError`` with every version of a node that is another than here."""
    problems = [
        f"node {node} has {name} {theirs.get(name, 'not installed')} and this process "
        f"{ours.get(name, 'not installed')}"
        for node, theirs in by_node.items()
        for name in sorted({*ours, *theirs})
        if theirs.get(name) != ours.get(name)
    ]
    if problems:
        raise SetupError(
            f"{'; '.join(problems)}: install the same on every node and where flows run, as by one "
            "image or one lock, and start these nodes again"
        )
