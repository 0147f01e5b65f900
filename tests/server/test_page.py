"""The search page in a real browser: what people see, press and hear read out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedding_core.lake.readers.feedback import read_feedback
from embedding_core.lake.spaces.switching import retire
from embedding_core.recipe import Recipe
from embedding_core.server.web.guard import Access
from tests import browser
from tests.server.served import built_space, made_table, records, serving, switch, table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.program() is None, reason="no Chromium or Chrome is installed on this machine"
    ),
]
PATIENCE_SECONDS = 60.0
HOSTILE = "<img src=x onerror=document.title='taken'> <script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A table with a second space, and a document that tries to be HTML."""
    from tests.driver import run, write_jsonl

    folder = tmp_path_factory.mktemp("served")
    # An emoji is two units of JavaScript: one stands where a long id is cut.
    long_id = HOSTILE[: len(HOSTILE) // 2 * 2] + "🙂" * 60
    hostile = {"id": long_id, "title": HOSTILE, "text": f"walrus {HOSTILE} 🙂 walrus"}
    recipe = made_table(folder)
    write_jsonl(folder, "b.jsonl", [hostile])
    assert run(recipe).outcome == "done"
    ids = table(recipe).dataset().to_table(columns=["chunk_id"]).column(0)
    added = pa.table({"chunk_id": ids, "nested": pa.array([{"depth": [1, 2]}] * len(ids))})
    table(recipe).dataset().merge(added, "chunk_id")
    built_space(recipe)
    return recipe


@pytest.fixture(scope="module")
def url(recipe: Recipe) -> Iterator[str]:
    with serving(recipe, feedback=True) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(program: browser.Tab) -> Iterator[browser.Tab]:
    """A tab whose page must end without an error."""
    program.errors.clear()
    program.requests.clear()
    yield program
    assert program.errors == []


def wait(tab: browser.Tab, condition: str) -> Any:
    """Until a JavaScript expression is true; gives its value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := tab.run(condition):
            return value
        tab.frames(2)
    raise AssertionError(f"{condition} never came true: {tab.run('document.body.innerText')}")


def ask(tab: browser.Tab, url: str, query: str = "snow melts", rest: str = "", **size: Any) -> None:
    tab.open(f"{url}/?q={query.replace(' ', '+')}{rest}", **size)
    wait(tab, "document.querySelectorAll('ol.hits > li').length")


def enter(tab: browser.Tab) -> None:
    """The key, as a form hears it."""
    key = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
    tab.send("Input.dispatchKeyEvent", type="keyDown", **key)
    tab.send("Input.dispatchKeyEvent", type="keyUp", **key)


def test_page_answers_a_typed_question(tab: browser.Tab, url: str) -> None:
    tab.open(f"{url}/")
    wait(tab, "document.getElementById('about').textContent")
    assert "in service: hashing" in tab.run("document.getElementById('about').textContent")
    tab.run("document.getElementById('query').focus()")
    tab.type("snow melts")
    enter(tab)
    assert wait(tab, "document.querySelectorAll('ol.hits > li').length") == 10
    assert "10 hits in" in tab.run("document.getElementById('status').textContent")
    marks = tab.run("Array.from(document.querySelectorAll('.snippet mark'), m => m.textContent)")
    assert "snow" in marks and "melts" in marks
    assert tab.run("location.search") == "?q=snow+melts"
    assert {request.split("/", 3)[2] for request in tab.requests if "://" in request} == {
        url.split("/")[2]
    }


def test_address_brings_the_question_back(tab: browser.Tab, url: str) -> None:
    filters = json.dumps([{"column": "year", "operator": ">=", "value": 2009}])
    ask(tab, url, rest=f"&k=5&hybrid=1&filters={filters}")
    assert tab.run("document.querySelectorAll('ol.hits > li').length") == 5
    assert tab.run("document.getElementById('hybrid').checked")
    years = tab.run(
        "Array.from(document.querySelectorAll('.facts dt')).filter(d => d.textContent === 'year')"
        ".map(d => Number(d.nextSibling.textContent))"
    )
    assert len(years) == 5 and min(years) >= 2009


def test_number_of_a_filter_is_asked_as_it_is_written(tab: browser.Tab, url: str) -> None:
    """JavaScript would round it to a neighbour, and find rows of that."""
    number = str(2**53 + 1)
    filters = json.dumps([{"column": "year", "operator": "=", "value": number}])
    ask(tab, url)
    tab.open(f"{url}/?q=snow&filters={filters}")
    wait(tab, "document.getElementById('status').textContent.startsWith('Nothing found')")
    assert number in tab.run("JSON.stringify(question().filters)")


def test_time_of_day_in_the_address_is_asked(tab: browser.Tab, url: str) -> None:
    filters = json.dumps([{"column": "at", "operator": ">", "value": "2024-01-10T12:00:00Z"}])
    ask(tab, url, "snow", f"&k=50&filters={filters}")
    facts = tab.run("Array.from(document.querySelectorAll('.facts'), list => list.innerText)")
    dates = [text.partition("2024-01-")[2][:2] for text in facts]
    assert set(dates) == {"11", "12"}


def test_filters_of_a_changed_address_that_are_none_are_left_out(
    tab: browser.Tab, url: str
) -> None:
    filters = json.dumps([None, 7, {"column": "gone", "operator": "=", "value": 1}])
    ask(tab, url, rest=f"&filters={filters}")
    assert tab.run("document.querySelectorAll('#filters li').length") == 0


def test_filter_is_added_by_hand(tab: browser.Tab, url: str) -> None:
    ask(tab, url)
    tab.run("document.getElementById('add').click()")
    tab.run(
        "(() => { const row = document.querySelector('#filters li');"
        "const [column, operator] = row.querySelectorAll('select');"
        "column.value = 'open'; column.dispatchEvent(new Event('change'));"
        "row.querySelector('.value').value = 'false';"
        "document.getElementById('ask').requestSubmit(); })()"
    )
    wait(tab, "location.search.includes('filters')")
    wait(tab, "!document.getElementById('results').hasAttribute('aria-busy')")
    values = tab.run(
        "Array.from(document.querySelectorAll('.facts dt')).filter(d => d.textContent === 'open')"
        ".map(d => d.nextSibling.textContent)"
    )
    assert values and set(values) == {"false"}


def test_document_is_shown_around_its_passage_once(tab: browser.Tab, url: str) -> None:
    ask(tab, url)
    tab.run("document.querySelector('.open').click()")
    wait(tab, "document.querySelector('.document .here') !== null")
    assert tab.run("document.querySelector('.open').getAttribute('aria-expanded')") == "true"
    here = tab.run("document.querySelector('.document .here').textContent")
    snippet = tab.run("document.querySelector('.snippet').textContent")
    assert snippet.strip("… ")[:40] in here
    shown = tab.run("document.querySelector('.document').innerText")
    (text,) = {record["text"] for record in records() if snippet.strip("… ")[:60] in record["text"]}
    assert " ".join(shown.split()) in text, "what passages share stands once"
    tab.run("document.querySelector('.open').click()")
    assert tab.run("document.querySelector('.document')") is None


def test_texts_stay_texts(tab: browser.Tab, url: str) -> None:
    ask(tab, url, "walrus", "&k=5")
    tab.run("document.querySelector('.open').click()")
    wait(tab, "document.querySelector('.document .here') !== null")
    assert tab.run("document.title") == "Search · embedlake"
    assert tab.run("document.querySelectorAll('img, main script').length") == 0
    assert HOSTILE in tab.run("document.querySelector('ol.hits > li').textContent")
    marks = tab.run(
        "Array.from(document.querySelectorAll('li:first-child .snippet mark'), m => m.textContent)"
    )
    assert marks == ["walrus", "walrus"], "positions are right behind an emoji"
    facts = tab.run("document.querySelector('li:first-child .facts').innerText")
    assert "🙂…" in facts and '{"depth":[1,2]}' in facts


def test_thumbs_and_opened_documents_are_stored(tab: browser.Tab, url: str, recipe: Recipe) -> None:
    before = len(list(read_feedback(table(recipe))))
    ask(tab, url, "bees carry pollen")
    tab.run("document.querySelector('[data-signal=relevant]').click()")
    wait(tab, "document.querySelector('[data-signal=relevant]').ariaPressed === 'true'")
    tab.run("document.querySelectorAll('[data-signal=irrelevant]')[1].click()")
    wait(tab, "document.querySelectorAll('[data-signal=irrelevant]')[1].ariaPressed === 'true'")
    said = list(read_feedback(table(recipe)))[before:]
    assert [(row.signal, row.rank) for row in said] == [("relevant", 1), ("irrelevant", 2)]
    assert {row.query for row in said} == {"bees carry pollen"}
    assert len({row.session for row in said}) == 1 and said[0].session
    titles = tab.run("Array.from(document.querySelectorAll('.facts dd'), d => d.textContent)")
    assert said[0].doc_id in titles


def test_two_spaces_stand_side_by_side(tab: browser.Tab, url: str) -> None:
    tab.open(f"{url}/")
    other = wait(tab, "document.querySelector('#other option:nth-child(2)')?.value")
    ask(tab, url, "the snow melts in the valley", f"&with={other}")
    assert tab.run("document.querySelectorAll('.sides > section').length") == 2
    assert tab.run("document.querySelectorAll('.moved').length") == tab.run(
        "document.querySelectorAll('ol.hits > li').length"
    )
    # Both are called the same: the dimensions tell them apart.
    headings = tab.run("[...document.querySelectorAll('.sides .muted')].map(p => p.textContent)")
    assert "in service · 32 dimensions" in headings[0] and "ready · 128 dimensions" in headings[1]
    assert "hits are in both spaces" in tab.run("document.getElementById('status').textContent")


def test_page_follows_a_release(program: browser.Tab, tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    column = built_space(recipe)
    with serving(recipe) as client:
        ask(program, str(client.base_url).rstrip("/"))
        before = program.run("document.getElementById('about').textContent")
        switch(recipe, column)
        space = table(recipe).open().space()[0]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (
            client.post("/api/tables/docs/search", json={"query": "x"}).json()["space_id"] != space
        ):
            assert time.monotonic() < deadline
        program.run("document.getElementById('ask').requestSubmit()")
        about = wait(
            program,
            f"(text => text.includes('{space[:12]}') && text)"
            "(document.getElementById('about').textContent)",
        )
        assert about != before
        wait(program, "document.getElementById('other').textContent.includes('previous')")
        # A space that is compared with and gone: the page says so and offers those there are.
        previous = "document.querySelector('#other option:nth-child(2)')"
        column = program.run(f"{previous}.value")
        retire(table(recipe), column, "test")
        program.run(f"{previous}.selected = true, document.getElementById('ask').requestSubmit()")
        wait(program, "document.getElementById('others').hidden")
        status = program.run("document.getElementById('status').textContent")
        assert f"no vector column '{column}'" in status
    program.errors = [error for error in program.errors if "422" not in error]
    assert program.errors == []


def test_link_to_a_table_that_is_gone_is_not_answered_by_another(
    tab: browser.Tab, recipe: Recipe, tmp_path: Path
) -> None:
    lost = made_table(tmp_path, lake={"table": "lost"})
    with serving(recipe, lost) as client:
        base = str(client.base_url).rstrip("/")
        hidden = Path(table(lost).uri).rename(tmp_path / "hidden")
        tab.open(f"{base}/?table=lost&q=snow")
        wait(tab, "document.getElementById('status').textContent === 'No table lost answers here.'")
        assert tab.run("document.querySelectorAll('ol.hits > li').length") == 0
        tab.run("document.getElementById('ask').requestSubmit()")  # the other one, on purpose
        wait(tab, "document.querySelectorAll('ol.hits > li').length")
        assert "lost: there is no table" in tab.run("document.getElementById('notice').textContent")
        hidden.rename(table(lost).uri)


def test_page_is_used_by_keys_alone(tab: browser.Tab, url: str) -> None:
    ask(tab, url)
    tab.run("document.activeElement.blur()")
    tab.press("/")
    assert tab.run("document.activeElement.id") == "query"
    tab.run("document.activeElement.blur()")
    for _ in range(2):
        tab.press("j")
    assert tab.run("document.activeElement.ariaLabel").startswith("Hit 2")
    tab.press("k")
    assert tab.run("document.activeElement.ariaLabel").startswith("Hit 1")
    tab.press("Enter")
    wait(tab, "document.querySelector('.document .here') !== null")
    tab.press("Escape")
    wait(tab, "!document.querySelector('.document')")
    tab.press("Escape")
    assert tab.run("document.activeElement.id") == "query"


def test_error_is_said_on_the_page(tab: browser.Tab, url: str) -> None:
    filters = json.dumps([{"column": "year", "operator": "=", "value": "x"}])
    tab.open(f"{url}/?q=snow&filters={filters}")
    wait(tab, "document.getElementById('status').textContent")
    # A number field drops what is no number, so the page asks without that filter.
    wait(tab, "document.querySelectorAll('ol.hits > li').length")


def test_page_asks_for_a_token(program: browser.Tab, recipe: Recipe) -> None:
    token = "correct horse battery staple"
    with serving(recipe, access=Access(token)) as client:
        program.errors.clear()
        program.open(f"{str(client.base_url).rstrip('/')}/")
        wait(program, "!document.getElementById('entry').hidden")
        program.run(
            f"document.getElementById('token').value = {json.dumps(token)};"
            "document.getElementById('entry').requestSubmit()"
        )
        wait(program, "document.getElementById('about').textContent")
        assert program.run("document.getElementById('entry').hidden")
        assert token not in program.run("location.href")
        program.run("sessionStorage.clear()")
    assert [line for line in program.errors if "401" not in line] == []
    program.errors.clear()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("view", ["start", "answer", "comparison"])
def test_page_fits_and_axe_finds_nothing_serious(
    tab: browser.Tab, url: str, tmp_path: Path, view: str, width: int, dark: bool
) -> None:
    tab.open(f"{url}/", width, 900, dark)
    other = wait(tab, "document.querySelector('#other option:nth-child(2)')?.value")
    if view != "start":
        filters = json.dumps([{"column": "year", "operator": ">=", "value": 2001}])
        rest = f"&k=5&filters={filters}" + (f"&with={other}" if view == "comparison" else "")
        ask(tab, url, "snow melts in the valley", rest, width=width, dark=dark)
        tab.run("document.querySelector('.open').click()")
        wait(tab, "document.querySelector('.document p') !== null")
        wait(tab, "!document.querySelector('.document').textContent.includes('Reading')")
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.screenshot(tmp_path / f"{view}-{width}-{'dark' if dark else 'light'}.png")
    assert tab.serious_flaws() == []
