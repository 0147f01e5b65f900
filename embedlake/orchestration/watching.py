"""How a process that runs flows or tasks is watched: its log lines and its spans."""

from __future__ import annotations

from embedlake.orchestration.logs import set_up_logs
from embedlake.orchestration.traces import set_up_traces
from embedlake.settings import Settings, read_settings


def watched_settings() -> Settings:
    """The settings, once this process is watched as they say; every flow and task begins so."""
    settings = read_settings()
    set_up_logs(settings.log_format == "json")
    set_up_traces(settings.traces)
    return settings
