"""Write the hashed locks of infra/Dockerfile from requirements.lock, without what only tests need.

    python -m tools.image_locks

Versions are those of requirements.lock, which were tested together. PyTorch stands apart: its CPU
and CUDA builds have different hashes, and the CUDA build brings libraries that the other lacks.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "infra" / "locks"
EXTRAS = ("run", "serve", "otel", "report", "lora", "gcs", "azure", "html", "pdf", "office",
          "languages", "chunkers", "code")  # fmt: skip
"""What worker images have; ``dev``, ``docs`` and ``demo`` are left out."""
SERVER = ("asyncpg", "fastapi", "prefect", "sqlalchemy")
"""What a Prefect server on Postgres needs; it runs no code of embedlake's."""
PLATFORM = ("--python-version", "3.11.14", "--python-platform", "x86_64-manylinux_2_28")
TORCH_PACKAGES = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEADER = "# Made by `python -m tools.image_locks`; installed with --require-hashes --no-deps.\n"


def pinned() -> str:
    """The tested versions, as constraints for every platform."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return "\n".join(line.partition(";")[0].strip() for line in lines if "==" in line)


def compiled(*requirements: str) -> list[str]:
    """Entries of a lock, each a package with its hashes, for a set of requirements."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(pinned())
        wanted = Path(folder, "requirements.in")
        wanted.write_text("\n".join(requirements))
        text = subprocess.run(
            [Path(sys.executable).parent / "uv", "pip", "compile", wanted, "-c", constraints,
             "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "-q",
             *PLATFORM],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
    return re.split(r"\n(?=\S)", text.strip())


def write() -> None:
    """Write the locks of the server, of workers, and of PyTorch for CUDA."""
    server = compiled(*(line for line in pinned().splitlines()
                        if line.partition("==")[0].lower() in SERVER))  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    asked_for = [*project["dependencies"], *extras]
    packages = compiled(*(line for line in asked_for if not line.startswith("embedlake[")))
    torch = [entry for entry in packages if TORCH_PACKAGES.match(entry)]
    worker = [entry for entry in packages if entry not in torch]
    for name, entries in (("server", server), ("worker", worker), ("torch-cuda", torch)):
        LOCKS.joinpath(f"{name}.txt").write_text(HEADER + "\n".join(entries) + "\n")


if __name__ == "__main__":
    write()
