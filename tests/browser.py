"""A real headless Chromium for tests of pages, driven over its DevTools protocol.

Uses whichever Chromium or Chrome is on the machine; without one, tests that need it are skipped.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "--disable-extensions", "--hide-scrollbars", "--mute-audio",
    "--font-render-hinting=none",
)  # fmt: skip
PATIENCE_SECONDS = 60.0
AXE = files("axe_core_python") / "axe.min.js"


def program() -> str | None:
    """Path of a browser on this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class PageFault(AssertionError):
    """A script of a page raised an error."""


@dataclass
class Tab:
    """A page in the browser, with all that it said and asked for."""

    socket: Connection
    errors: list[str] = field(default_factory=list)
    """Errors and warnings of the console, uncaught exceptions, breaches of the page's policy."""
    requests: list[str] = field(default_factory=list)
    """URLs that the page asked for, itself included."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _seen: list[dict[str, Any]] = field(default_factory=list)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; what happens meanwhile is noted."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=PATIENCE_SECONDS))
            if message.get("id") == number:
                if "error" in message:
                    raise PageFault(f"{method}: {message['error']}")
                answer: dict[str, Any] = message["result"]
                return answer
            self._note(message)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next event of a kind."""
        while True:
            for message in self._seen:
                if message["method"] == event:
                    self._seen.remove(message)
                    return message
            self._note(json.loads(self.socket.recv(timeout=PATIENCE_SECONDS)))

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of this size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        self._seen.clear()
        self.send("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        self.frames(2)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise PageFault(json.dumps(answer["exceptionDetails"])[:2_000])
        return answer["result"].get("value")

    def frames(self, count: int) -> None:
        """Wait until so many frames were drawn."""
        self.run(
            f"new Promise(done => {{ let left = {count}; const next = () => left-- ? "
            "requestAnimationFrame(next) : done(); next(); })"
        )

    def press(self, key: str) -> None:
        """A key, down and up."""
        typed = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **typed)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)
        self.frames(1)

    def type(self, text: str) -> None:
        """Text into the element that has the focus."""
        self.send("Input.insertText", text=text)
        self.frames(1)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """An event of the mouse (``mouseMoved``, ``mousePressed``, …) at a place of the window."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.frames(1)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.send(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF")["data"]))

    def serious_flaws(self) -> list[str]:
        """What axe-core finds wrong with the page, serious or worse."""
        self.run(AXE.read_text("utf-8") + "; 0")
        found = self.run("axe.run().then(results => results.violations)")
        return [
            f"{flaw['id']} ({flaw['impact']}): {flaw['help']}: {node['html'][:200]}"
            for flaw in found
            if flaw["impact"] in ("serious", "critical")
            for node in flaw["nodes"]
        ]

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(str(details.get("exception", details).get("description", details)))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str([value.get("value") for value in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        self._seen.append(message)


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with a single tab; ``profile`` is a new folder. Ends with the context."""
    path = program()
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(PROGRAMS)} is installed")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [path, *FLAGS, *as_root, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = _address(process)
        with connect(address, max_size=None) as socket:
            whole = Tab(socket)
            target = next(
                target
                for target in whole.send("Target.getTargets")["targetInfos"]
                if target["type"] == "page"
            )
        own = f"{address.partition('/devtools/')[0]}/devtools/page/{target['targetId']}"
        with connect(own, max_size=None) as page:
            tab = Tab(page)
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab.send(f"{domain}.enable")
            yield tab
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        if process.stderr is not None:
            process.stderr.close()


def _address(process: subprocess.Popen[str]) -> str:
    """Where the browser listens; it says so when it does."""
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith("DevTools listening on "):
            return line.removeprefix("DevTools listening on ").strip()
    raise RuntimeError(f"the browser did not start: {''.join(said)}")
