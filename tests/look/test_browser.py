"""The page in a real browser: offline, no error, reachable by keyboard, readable by everyone.

Needs a Chromium or Chrome; a machine without one skips these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs.look.overview import look_at
from embedding_core.runs.look.vector_figures import Look
from tests.browser import PROGRAMS, Tab, browser, program
from tests.look.tables import documents, embedded, hostile_documents

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        program() is None, reason=f"no browser: install one of {', '.join(PROGRAMS)}"
    ),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_wrong(tab: Tab) -> Iterator[None]:
    """No test leaves an error on the console, and no page asks for anything but itself."""
    tab.errors.clear()
    tab.requests.clear()
    yield
    assert tab.errors == []
    assert len(set(tab.requests)) <= 1


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the page of an ordinary table."""
    return written(tmp_path_factory.mktemp("page"), "lang")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hostile")
    recipe = embedded(folder, hostile_documents(), name='<img src=x onerror="window.harmed = 1">')
    path = folder / "report.html"
    path.write_text(table_page(look_at(recipe, Look(color="lang"))))
    return path.as_uri()


def written(folder: Path, color: str) -> str:
    path = folder / "report.html"
    made = look_at(embedded(folder, documents(120)), Look(color=color), 2.0)
    path.write_text(table_page(made))
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_and_has_no_serious_flaw(tab: Tab, page: str, width: int, dark: bool) -> None:
    tab.open(page, width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelector('#status').textContent") == "121 points"
    assert drawn(tab) > 100
    assert tab.serious_flaws() == []


COPIED = (
    "const map = document.getElementById('map');"
    "const copy = new OffscreenCanvas(map.width, map.height);"
    "const pen = copy.getContext('2d', {willReadFrequently: true}); pen.drawImage(map, 0, 0);"
    "const pixels = pen.getImageData(0, 0, map.width, map.height).data;"
)
"""Reads the map's pixels."""


def drawn(tab: Tab) -> int:
    """Pixels of the map that are not empty."""
    return int(
        tab.run(
            f"(() => {{ {COPIED} let n = 0;"
            "for (let i = 3; i < pixels.length; i += 4) n += pixels[i] > 0; return n; })()"
        )
    )


def test_texts_of_documents_stay_texts(tab: Tab, hostile_page: str) -> None:
    tab.open(hostile_page)
    canvas = tab.run("(({x, y}) => [x, y])(document.getElementById('map').getBoundingClientRect())")
    tab.run("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
    tab.run("document.getElementById('map').focus()")
    tab.run("document.querySelector('details').open = true")
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        tab.press(key)
        assert tab.run("document.getElementById('chosen').textContent")
    tab.mouse("mouseMoved", canvas[0] + 50, 200)
    assert tab.run("typeof window.harmed") == "undefined"
    assert tab.run("document.images.length") == 0
    assert tab.run("document.querySelectorAll('#listed tbody tr').length") == 11
    shown = tab.run("document.querySelector('#listed tbody').textContent")
    assert "<script>window.harmed = 1</script>" in shown and "{{ 7 * 7 }}" in shown
    isolated = "getComputedStyle(document.querySelector('.quoted')).unicodeBidi"
    assert tab.run(isolated) == "isolate"


def test_search_lights_the_points_that_match(tab: Tab, page: str) -> None:
    tab.open(page)
    tab.run("document.getElementById('search').focus()")
    before = drawn(tab)
    tab.type("CATS")
    assert tab.run("document.getElementById('status').textContent") == "60 of 121 points"
    assert tab.run("document.querySelectorAll('#listed tbody tr').length") == 50
    tab.run("document.getElementById('more').click()")
    assert tab.run("document.querySelectorAll('#listed tbody tr').length") == 60
    tab.type(" no such text")
    assert tab.run("document.getElementById('status').textContent") == "0 of 121 points"
    assert drawn(tab) > 0 and before > 0


def test_legend_leaves_a_value_alone_and_all_again(tab: Tab, page: str) -> None:
    tab.open(page)
    tab.run("document.querySelector('.legend button').click()")
    assert tab.run("document.getElementById('status').textContent") == "40 of 121 points"
    assert tab.run("document.querySelector('.legend button').ariaPressed") == "true"
    tab.run("document.querySelector('.legend button').click()")
    assert tab.run("document.getElementById('status').textContent") == "121 points"


def test_point_is_chosen_by_keys_and_told(tab: Tab, page: str) -> None:
    tab.open(page)
    tab.run("document.getElementById('map').focus()")
    chosen = "document.getElementById('chosen')"
    assert tab.run(f"{chosen}.hidden") and tab.run(f"{chosen}.ariaLive") == "polite"
    seen = set()
    for key in ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "+", "-", "0"]:
        tab.press(key)
        seen.add(tab.run(f"{chosen}.textContent"))
    assert len(seen) > 3 and all("text" in text for text in seen)
    tab.press("Escape")
    assert tab.run(f"{chosen}.hidden")


def test_point_is_shown_beside_the_pointer_and_chosen_by_a_click(tab: Tab, page: str) -> None:
    tab.open(page, height=2400)
    tab.run("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
    # the first point in the reading order of the canvas
    x, y = tab.run(
        f"(() => {{ {COPIED} const box = map.getBoundingClientRect();"
        "const i = pixels.findIndex((value, n) => n % 4 === 3 && value > 100) >> 2;"
        "return [box.x + i % map.width + 1, box.y + Math.floor(i / map.width) + 4]; })()"
    )
    tab.mouse("mouseMoved", x, y)
    assert not tab.run("document.getElementById('tip').hidden")
    assert "text" in tab.run("document.getElementById('tip').textContent")
    tab.mouse("mousePressed", x, y, button="left", clickCount=1)
    tab.mouse("mouseReleased", x, y, button="left", clickCount=1)
    assert not tab.run("document.getElementById('chosen').hidden")


def test_switch_changes_the_colours_of_page_and_map(tab: Tab, page: str) -> None:
    tab.open(page)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.run(paper) == "rgb(255, 255, 255)"
    assert tab.run("document.getElementById('theme').textContent") == "Dark"
    tab.run("document.getElementById('theme').click()")
    tab.frames(2)
    assert tab.run(paper) != "rgb(255, 255, 255)"
    assert tab.run("document.getElementById('theme').textContent") == "Light"
    assert drawn(tab) > 100


def test_every_control_is_reached_by_the_tab_key(tab: Tab, page: str) -> None:
    tab.open(page)
    reached = []
    for _ in range(60):
        tab.press("Tab")
        reached.append(tab.run("document.activeElement.id || document.activeElement.tagName"))
    for control in ("theme", "search", "nearer", "farther", "reset", "map", "SUMMARY"):
        assert control in reached, reached


def test_page_is_printed_light_and_without_controls(tab: Tab, page: str, tmp_path: Path) -> None:
    tab.open(page, dark=True)
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.getElementById('theme')).display") == "none"
    tab.send(
        "Emulation.setDeviceMetricsOverride",
        width=700,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )  # the width of a printed A4 page
    tables = "[...document.querySelectorAll('table')]"
    cut = f"{tables}.filter(table => table.getBoundingClientRect().right > 701)"
    assert tab.run(f"{cut}.map(table => table.innerText.slice(0, 80))") == []
    tab.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"
    tab.send("Emulation.setEmulatedMedia", media="")
