"""What a work pool takes as job variables, and what is wrong with those of a file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import jsonschema
from prefect.client.schemas.objects import WorkPool

from embedding_core.errors import SetupError, UsageError
from embedding_core.redaction import secret_in
from embedlake.deploying.deploy_file import PoolSpec

SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY|ACCOUNT_KEY|AUTH_STRING|CONNECTION_STRING)$"
)
"""Variables whose values must not be stored in a deployment."""
IMAGE_TYPES = ("docker", "kubernetes")
"""Types of pools whose runs start in an image, which must have embedlake in it."""

Template = dict[str, Any]
"""The base job template of a pool: its job configuration, and a JSON schema of its variables."""


def template_of(spec: PoolSpec, pool: WorkPool | None) -> Template:
    """The template of the pool that is there, or of the one to be made.

    Raises ``UsageError`` for a pool of another type.
    """
    if pool is None:
        return default_template(spec.type)
    if pool.type != spec.type:
        raise UsageError(
            f"the work pool {spec.name!r} is of type {pool.type!r}, the file says {spec.type!r}; "
            f"write pool.type: {pool.type}, or name another pool"
        )
    return pool.base_job_template


def default_template(pool_type: str) -> Template:
    """The template that Prefect ships for a type of pool; no request leaves the machine."""
    shipped = files("prefect.server.api").joinpath(
        "collections_data/views/aggregate-worker-metadata.json"
    )
    for collection in json.loads(shipped.read_text(encoding="utf-8")).values():
        for worker in collection.values():
            if worker["type"] == pool_type:
                template: Template = worker["default_base_job_configuration"]
                return template
    raise SetupError(
        f"this Prefect ships no template of a {pool_type} pool; make the pool yourself"
    )


def check_job_variables(
    variables: Mapping[str, Any], template: Template, pool: PoolSpec, where: str
) -> None:
    """Raise ``UsageError`` with every job variable that the pool would not take."""
    problems = [
        *_unknown(variables, template),
        *_wrong(variables, template),
        *_secrets(variables),
        *_missing_image(variables, template, pool),
    ]
    if problems:
        raise UsageError(
            f"job_variables of {where} do not fit the {pool.type} pool {pool.name!r}: "
            + "; ".join(problems)
        )


def _schema(template: Template) -> dict[str, Any]:
    schema: dict[str, Any] = template.get("variables", {})
    return schema


def _unknown(variables: Mapping[str, Any], template: Template) -> Iterator[str]:
    names = list(_schema(template).get("properties", {}))
    for name in variables:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}"
            yield f"unknown variable {name!r}; {hint}"


def _wrong(variables: Mapping[str, Any], template: Template) -> Iterator[str]:
    """Values of the wrong type. Values with ``{{ … }}`` are filled in by Prefect, later."""
    fixed = {name: value for name, value in variables.items() if not _is_template(value)}
    schema = {key: value for key, value in _schema(template).items() if key != "required"}
    for error in jsonschema.Draft202012Validator(schema).iter_errors(fixed):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def _secrets(variables: Mapping[str, Any]) -> Iterator[str]:
    env = variables.get("env")
    for name, value in env.items() if isinstance(env, Mapping) else ():
        if _is_template(value):
            continue
        if SECRET_NAME.search(str(name).upper()) or secret_in(str(value)) is not None:
            yield (
                f"env.{name} would be stored in Prefect for all to read; give it to the worker, or "
                'save it as a Secret block and write "{{ prefect.blocks.secret.NAME }}"'
            )


def _missing_image(
    variables: Mapping[str, Any], template: Template, pool: PoolSpec
) -> Iterator[str]:
    default = _schema(template).get("properties", {}).get("image", {}).get("default")
    if pool.type in IMAGE_TYPES and not (variables.get("image") or default):
        yield "image is missing; name one that embedlake is installed in (infra/Dockerfile)"


def _is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value
