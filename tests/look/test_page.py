"""The page as text: complete in itself, and nothing of a document is anything but text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embedding_core.errors import SetupError, UsageError
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.belongings import folders_of
from embedding_core.recipe import Recipe
from embedding_core.reports.look.overview import OverviewView
from embedding_core.reports.look.overview_picture import overview_picture, overview_picture_uri
from embedding_core.reports.pages.page import data_block, quoted, write_page
from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs.look.overview import Overview, look_at
from embedding_core.runs.look.vector_figures import Look
from embedding_core.store import storage
from embedding_core.store.layout import report_path, table_folder
from embedding_core.store.storage import StorageSpec
from tests.look.tables import HOSTILE, documents, embedded, hostile_documents
from tests.s3 import S3Server


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    folder = tmp_path_factory.mktemp("hostile")
    recipe = embedded(folder, hostile_documents(), name="<b>recipe</b>")
    return look_at(recipe, Look(color="lang"))


def test_page_of_hostile_texts_has_no_element_of_theirs(hostile: Overview) -> None:
    page = table_page(hostile)
    elements = Elements(page)
    names = [tag for tag, _ in elements.tags]
    assert names.count("script") == 2 and not {"img", "b", "iframe", "object"} & set(names)
    assert not [name for _, attributes in elements.tags for name in attributes if name[:2] == "on"]
    for text in ("<b>recipe</b>", "<script>window.harmed = 1</script>"):
        assert text in elements.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", page)


def test_page_asks_nobody_for_anything(hostile: Overview) -> None:
    elements = Elements(table_page(hostile))
    for _, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (name, value)
    assert "@import" not in table_page(hostile) and "url(" not in table_page(hostile)


def test_quoted_text_stays_in_its_element() -> None:
    for text in HOSTILE:
        elements = Elements(quoted(text))
        assert [tag for tag, _ in elements.tags] == ["span"]
        assert elements.tags[0][1] == {"class": "quoted", "dir": "auto"}


@pytest.mark.parametrize("text", HOSTILE)
def test_data_block_gives_the_text_again_and_cannot_be_left(text: str) -> None:
    block = data_block("points", {"text": [text]})
    body = block.removeprefix('<script type="application/json" id="points">')
    body = body.removesuffix("</script>")
    assert json.loads(body) == {"text": [text]}
    assert not set(body) & set("<>&\u2028\u2029")


def test_page_and_markdown_of_the_same_report_have_the_same_figures(tmp_path: Path) -> None:
    made = look_at(embedded(tmp_path, documents(30)), price_per_hour=2.0)
    page, markdown = Elements(table_page(made)).text, OverviewView(made).markdown()
    assert made.vectors is not None
    shares = [f"{share:.1%}" for share in made.vectors.explained[:4]]
    for figure in (str(made.statistics.whole.tokens), made.history[0].run_id[:12], *shares):
        assert figure in page and figure in markdown
    for text in ("Near-duplicates", "Nearest neighbours", "Components and fields"):
        assert text in page and text in markdown


@pytest.mark.parametrize("records", [[{"id": "e", "text": " "}], [{"id": "a", "text": "only"}]])
def test_page_of_a_table_with_hardly_anything_is_whole(
    tmp_path: Path, records: list[dict[str, str]]
) -> None:
    made = look_at(embedded(tmp_path, records))
    page = table_page(made)
    assert page.endswith("</html>\n") and OverviewView(made).markdown().startswith("# Report")
    assert ("The table has no rows yet." in page) == (made.rows == 0)


@pytest.mark.parametrize("color", ["lang", "year", None])
def test_picture_is_a_png_whatever_it_shows(hostile: Overview, tmp_path: Path, color: str) -> None:
    ordinary = look_at(embedded(tmp_path / "some", documents(30)), Look(color=color))
    empty = look_at(embedded(tmp_path / "none", [{"id": "e", "text": " "}]))
    for made in (ordinary, empty, hostile):  # texts begin formulas with a dollar, too
        assert overview_picture(made).startswith(b"\x89PNG\r\n")
    assert overview_picture_uri(ordinary).startswith("data:image/png;base64,iVBOR")


def test_wide_page_is_not_made_larger_by_long_texts(tmp_path: Path) -> None:
    records = [{"id": f"d{n}", "text": f"{n} " + "word " * 2_000} for n in range(50)]
    made = look_at(embedded(tmp_path, records, chunk={"strategy": "none"}))
    assert len(table_page(made)) < 200_000


def test_page_of_a_table_on_s3_is_kept_beside_it(tmp_path: Path, s3: S3Server) -> None:
    lake = {"uri": f"s3://{s3.new_bucket()}/lake", "storage": s3.storage.model_dump()}
    recipe = embedded(tmp_path, documents(5), lake=lake)
    uri = report_path(recipe.lake.uri, recipe.lake.table)
    document = table_page(look_at(recipe))
    write_page(uri, document, recipe.lake.storage)
    write_page(uri, document, recipe.lake.storage)  # replaces a page, and nothing else
    assert storage.read_bytes(uri, recipe.lake.storage).decode() == document
    storage.write_bytes(uri, b"name: recipe", recipe.lake.storage)
    with pytest.raises(UsageError, match="no page that embedlake wrote"):
        write_page(uri, document, recipe.lake.storage)
    assert table_folder(recipe.lake.uri, recipe.lake.table) in folders_of(table_of(recipe))


def test_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"report\.html cannot be written"):
        write_page(str(tmp_path / "file" / "report.html"), "page", StorageSpec())


def test_recipe_is_not_changed_by_a_report(tmp_path: Path) -> None:
    recipe: Recipe = embedded(tmp_path, documents(5))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    table_page(look_at(recipe))
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert before == after
