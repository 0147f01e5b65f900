"""Settings of the machine embedlake runs on; the only place that reads the environment.

Every name starts with ``EMBEDLAKE_``; nested ones use two underscores:
``EMBEDLAKE_RESOURCES__GPUS_PER_TASK=1``.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from embedding_core.errors import UsageError
from embedding_core.recipe import ENGINE_TOKEN, Resources
from embedding_core.redaction import secret_in

API_URL = "PREFECT_API_URL"
PAGE_URL = "PREFECT_UI_URL"
PREFIX = "EMBEDLAKE_"
TOKEN = "EMBEDLAKE_SERVE_TOKEN"
OTLP_TIMEOUT, COLLECTOR_SECONDS = "OTEL_EXPORTER_OTLP_TIMEOUT", 3.0
"""OpenTelemetry's variable, and what it is here when it is not set: its own 10 s would delay each
span by that long."""
SHORTEST_TOKEN = 16
"""Characters."""
DEMO_MODEL = "EMBEDLAKE_DEMO_MODEL"
"""Read by the demo alone."""
READ_ELSEWHERE = (DEMO_MODEL, ENGINE_TOKEN)
"""Variables that are no settings; a secret is read where it is sent."""


class Settings(BaseSettings):
    """Where to run and with what; none of it changes a row or a vector."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    home: Path = Path.home() / ".embedlake"
    """Folder of the local stack (Prefect's database, logs, what is running) and measured speeds."""
    ray_address: str | None = None
    """A Ray cluster to join: ``host:6379``, the address of its head, or ``auto`` for that of this
    machine. ``local`` starts Ray for each run; unset, so does a run whose work is worth it."""
    ray_cpus: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """CPUs a local Ray may use."""
    lock_wait_seconds: float = Field(default=60.0, ge=0)
    """How long a run waits for another run on its table before it ends as locked."""
    resources: Resources = Resources()
    """Defaults of the flow's ``resources`` parameter."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """What this machine costs an hour, in any currency: plans, ``bench`` and
    reports then name costs."""

    log_format: Literal["text", "json"] = "text"
    """``json``: lines of flows, and of tasks in whatever process, are JSON objects on stderr."""

    traces: Literal["off", "otlp"] = "off"
    """``otlp``: spans of runs go where OpenTelemetry's own variables say; needs
    ``embedlake[otel]``."""

    serve_token: SecretStr | None = None
    """What clients of ``embedlake serve`` send as ``Authorization: Bearer``; at least 16 characters
    of plain ASCII. Needed when it listens on another address than loopback."""

    @field_validator("serve_token")
    @classmethod
    def _hard_to_guess(cls, token: SecretStr | None) -> SecretStr | None:
        text = token.get_secret_value() if token else ""
        if token and not (len(text) >= SHORTEST_TOKEN and text.isascii() and text.isprintable()):
            raise ValueError(
                f"a token has at least {SHORTEST_TOKEN} characters, all of plain ASCII"
            )
        return token

    @field_validator("ray_address")
    @classmethod
    def _no_ray_client(cls, address: str | None) -> str | None:
        if address is not None and address.startswith("ray://"):
            host = address.removeprefix("ray://").partition(":")[0] or "host"
            raise ValueError(
                f"{address} is an address of Ray Client, which embedlake does not use; write that "
                f"of the cluster's head, {host}:6379, and run the flow on a node of the cluster"
            )
        return address

    @property
    def is_local_ray(self) -> bool:
        """Whether tasks run on this machine, on a Ray that is started for the run or without."""
        return self.ray_address in (None, "local")


def read_settings() -> Settings:
    """Settings from the environment. Raises ``UsageError`` naming the variable that is wrong."""
    _refuse_unknown_names()
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"EMBEDLAKE_{'__'.join(str(part) for part in p['loc']).upper()}: {p['msg']}"
            for p in error.errors()
        )
        raise UsageError(f"wrong setting in the environment: {problems}") from error
    except SettingsError as error:  # only EMBEDLAKE_RESOURCES as a whole is read as JSON
        raise UsageError(
            "wrong setting in the environment: EMBEDLAKE_RESOURCES is not a JSON object; set one "
            "resource at a time, for example EMBEDLAKE_RESOURCES__GPUS_PER_TASK=1"
        ) from error


def _refuse_unknown_names() -> None:
    """A misspelt variable would be ignored without a word."""
    variables = [*(PREFIX + name.upper() for name in Settings.model_fields), *READ_ELSEWHERE]
    for variable in os.environ:
        name = variable.upper().partition("__")[0]
        if name.startswith(PREFIX) and name not in variables:
            if (resource := name.removeprefix(PREFIX).lower()) in Resources.model_fields:
                right = f"{PREFIX}RESOURCES__{resource.upper()}"
                raise UsageError(f"{variable} in the environment is no setting; write {right}")
            close = difflib.get_close_matches(name, variables, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(variables)}"
            raise UsageError(f"{variable} in the environment is no setting; {hint}")


def prefect_api_url() -> str | None:
    """The Prefect API named in the environment or in the active Prefect profile, else None.

    The profile is read here because importing prefect for it costs a second of every command. An
    empty variable means none, whatever the profile says. Raises ``UsageError`` for a URL with a
    secret, which Prefect would put into the links of its log.
    """
    url = _named_api_url()
    if url is not None and (secret := secret_in(url)) is not None:
        raise UsageError(
            f"{API_URL} {secret}; write it without, and set PREFECT_API_AUTH_STRING to "
            "user:password"
        )
    return url


def _named_api_url() -> str | None:
    if API_URL in os.environ:
        return os.environ[API_URL] or None
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home() / "profiles.toml")
    if not path.is_file():
        return None
    try:
        profiles = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}; correct it, or set {API_URL}") from error
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    return profiles.get("profiles", {}).get(active, {}).get(API_URL) or None


def patience_of_collectors() -> float:
    """Seconds that a span waits for a collector that does not answer."""
    return float(os.environ.get(OTLP_TIMEOUT) or COLLECTOR_SECONDS)


def prefect_home() -> Path:
    """Where Prefect keeps what is its own in this process."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def temporary_folder() -> Path:
    """Where Ray and everyone else keep what is temporary. Python's own answer would pass over a
    folder that is full."""
    return Path(os.environ.get("TMPDIR") or "/tmp")


def use_prefect_api(url: str, for_this_run: bool = False) -> None:
    """Name the Prefect API for this process and those it starts; before prefect is imported.

    Of one that is there ``for_this_run`` no links are shown: they would die with it.
    """
    os.environ[API_URL] = url
    if for_this_run:
        os.environ[PAGE_URL] = ""
