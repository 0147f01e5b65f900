"""The peers: a program and an environment for each, and embedlake's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedlake.settings import Settings

PROGRAMS = Path(__file__).parents[1] / "peer_programs"
SHARED = ("torch==2.13.0", "transformers==5.23.0", "sentence-transformers==6.2.0")
LANCEDB = "lancedb==0.40.0"
PEERS: dict[str, tuple[str, Sequence[str]]] = {
    "plain": ("plain.py", (LANCEDB,)),
    "cocoindex": ("cocoindex_app.py", ("cocoindex==1.0.26", LANCEDB)),
    "llamaindex": (
        "llamaindex.py",
        (
            "llama-index-core==0.14.25",
            "llama-index-embeddings-huggingface==0.8.0",
            "llama-index-vector-stores-lancedb==0.6.0",
            "lancedb==0.33.0",  # newer ones take the double quotes of its deletes for names
            "pandas",  # which it needs and does not name
        ),
    ),
    "daft": ("daft_script.py", ("daft==0.7.26", "daft-lance==0.6.0", "pylance==14.0.2")),
}
"""Program and packages, beside ``SHARED``, of each peer."""
EMBEDLAKE = "embedlake"


class Peer:
    """A tool at work in a folder of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = {**os.environ, **environment}

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start one update; it writes to the folder's log."""
        command = [part.format(folder=folder) for part in self._command]
        with (folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=folder, env=self._environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip


def peers(environments: Path, only: Sequence[str], settings: Settings, api_url: str) -> list[Peer]:
    """The peers, each with its environment made."""
    tools = []
    for name, (program, packages) in PEERS.items():
        if only and name not in only:
            continue
        python = _environment(environments / name, packages)
        paths = ["{folder}/corpus", "{folder}/lake", "{folder}/model"]
        command = [str(python), str(PROGRAMS / program), *paths]
        tools.append(Peer(name, command, {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}))
    if not only or EMBEDLAKE in only:
        command = [str(Path(sys.executable).parent / "embedlake"), "embed", "{folder}/recipe.yaml"]
        environment = {"EMBEDLAKE_HOME": str(settings.home), "PREFECT_API_URL": api_url}
        tools.append(Peer(EMBEDLAKE, command, environment))
    return tools


def _environment(folder: Path, packages: Sequence[str]) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, SHARED[0]], check=True)  # first: others would pull another torch
    subprocess.run([*install, *SHARED, *packages], check=True)
    return python
