"""Sources behind URLs: lists, validators, ranges or copies, redirects, and secrets kept out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from embedding_core.errors import RejectedInput, SetupError, Transient, UsageError
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.runs.embed.planning import plan
from embedding_core.sources import discover, read_documents
from embedding_core.sources.selection import Selection
from embedding_core.store.storage import StorageSpec
from embedding_core.store.web import WEB, is_same_site
from tests.driver import recipe_for, run
from tests.sources.stub_web import StubWeb, stub_web

LINE = b'{"text": "hello"}\n'


@pytest.fixture
def web() -> Iterator[StubWeb]:
    with stub_web() as running:
        yield running


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_core.store.retry.FIRST_PAUSE_SECONDS", 0)


def listing(web: StubWeb, *lines: str, **changes: object) -> SourceSpec:
    """A source that is a list of these lines."""
    web.files["in/list.txt"] = "\n".join(lines).encode()
    return SourceSpec(uri=f"{web.url}/in/list.txt", **changes)  # type: ignore[arg-type]


def texts(file: SourceFile, spec: SourceSpec) -> list[str]:
    return [entry.text for entry in read_documents(file, spec) if isinstance(entry, Document)]


def paths(web: StubWeb, spec: SourceSpec) -> list[str]:
    return [file.uri.removeprefix(f"{web.url}/") for file in discover(spec).files]


def test_a_list_names_relative_and_whole_urls_each_once(web: StubWeb) -> None:
    web.files |= dict.fromkeys(("in/a.jsonl", "in/deep/b.jsonl", "c.jsonl", "in/d e.jsonl"), LINE)
    spec = listing(
        web, "\ufeff# a comment", "a.jsonl", "", "a.jsonl#top", " deep/b.jsonl ", "/c.jsonl",
        f"{web.url}/in/a.jsonl", "d%20e.jsonl",
    )  # fmt: skip
    assert paths(web, spec) == ["c.jsonl", "in/a.jsonl", "in/d%20e.jsonl", "in/deep/b.jsonl"]
    assert [texts(file, spec) for file in discover(spec).files] == [["hello"]] * 4


def test_globs_see_paths_below_the_list_and_hosts_of_others(web: StubWeb) -> None:
    web.files |= dict.fromkeys(("in/a.jsonl", "in/deep/b.jsonl", "c.jsonl"), LINE)
    lines = ("a.jsonl", "deep/b.jsonl", "/c.jsonl")
    assert paths(web, listing(web, *lines, include=("*.jsonl",))) == ["in/a.jsonl"]
    assert paths(web, listing(web, *lines, include=("127.0.0.1:*/c.jsonl",))) == ["c.jsonl"]
    assert paths(web, listing(web, *lines, exclude=("deep",))) == ["c.jsonl", "in/a.jsonl"]


def test_a_url_that_is_no_list_is_the_file(web: StubWeb) -> None:
    web.files["a.jsonl"] = LINE
    spec = SourceSpec(uri=f"{web.url}/a.jsonl?version=2")
    (file,) = discover(spec).files
    assert file.size_bytes == len(LINE)
    assert texts(file, spec) == ["hello"]


@pytest.mark.slow
def test_a_list_downloads_nothing_but_itself(web: StubWeb, tmp_path: Path) -> None:
    web.files |= {f"in/{number}.jsonl": LINE for number in range(40)}
    spec = listing(web, *(f"{number}.jsonl" for number in range(40)))
    planned = plan(recipe_for(tmp_path, source={"uri": spec.uri, "id": None}))
    assert len(planned.files) == 40
    assert planned.estimated_tokens is None
    assert web.n_bytes_sent == len(web.files["in/list.txt"])
    assert {method for method, path in web.requests if path.endswith(".jsonl")} == {"HEAD"}


def test_a_fingerprint_is_the_etag_else_the_date(web: StubWeb) -> None:
    web.files["in/a.jsonl"], web.dates["in/a.jsonl"] = LINE, 1_000_000
    spec = listing(web, "a.jsonl")
    web.has_etags = False
    (dated,) = discover(spec).files
    assert dated.fingerprint == f"{len(LINE)}-Mon, 12 Jan 1970 13:46:40 GMT"
    assert texts(dated, spec) == ["hello"]
    web.dates["in/a.jsonl"] = 2_000_000
    with pytest.raises(RejectedInput, match="changed"):
        texts(dated, spec)


def test_a_file_without_etag_and_date_is_a_reject_that_says_why(web: StubWeb) -> None:
    web.files["in/a.jsonl"] = LINE
    spec = listing(web, "a.jsonl")
    web.has_etags = False
    found = discover(spec)
    assert found.files == ()
    assert "neither ETag nor Last-Modified" in found.unreadable[0].detail


def test_a_server_that_answers_no_head_is_asked_for_headers_alone(web: StubWeb) -> None:
    web.files["in/a.jsonl"], web.answers_head = LINE * 100_000, False
    spec = listing(web, "a.jsonl")
    (file,) = discover(spec).files
    assert file.size_bytes == len(LINE) * 100_000


def test_of_parquet_only_the_needed_ranges_are_sent(web: StubWeb) -> None:
    n_rows = 20_000
    noise = np.random.default_rng(0).bytes(400 * n_rows)
    big = [noise[400 * row : 400 * row + 400] for row in range(n_rows)]
    sink = pa.BufferOutputStream()
    table = pa.table({"image": big, "text": ["hello"] * n_rows})
    pq.write_table(table, sink, row_group_size=5_000, use_dictionary=False)
    content = web.files["a.parquet"] = sink.getvalue().to_pybytes()
    spec = SourceSpec(uri=f"{web.url}/a.parquet")
    (file,) = discover(spec).files
    assert len(texts(file, spec)) == n_rows
    assert web.n_bytes_sent < len(content) / 20


def test_without_ranges_a_copy_is_read_and_goes(
    web: StubWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    web.has_ranges = False
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["hello"] * 10}), sink)
    web.files["a.parquet"] = sink.getvalue().to_pybytes()
    spec = SourceSpec(uri=f"{web.url}/a.parquet")
    (file,) = discover(spec).files
    assert len(texts(file, spec)) == 10
    assert [method for method, _ in web.requests].count("GET") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_ranges_a_file_that_grew_is_not_copied_further(web: StubWeb) -> None:
    web.has_ranges, web.has_etags = False, False
    web.files["a.jsonl"], web.dates["a.jsonl"] = LINE, 1_000_000
    spec = SourceSpec(uri=f"{web.url}/a.jsonl")
    (file,) = discover(spec).files
    web.files["a.jsonl"] = LINE * 1000
    with pytest.raises(RejectedInput, match="changed"):
        texts(file, spec)


def test_a_server_that_ignores_the_range_it_announced_is_told(web: StubWeb) -> None:
    web.files["a.jsonl"], web.ignores_ranges = LINE * 100_000, True
    spec = SourceSpec(uri=f"{web.url}/a.jsonl")
    (file,) = discover(spec).files
    with pytest.raises(RejectedInput, match="does not keep to the range"):
        texts(file, spec)


def test_a_redirect_within_the_site_is_followed(web: StubWeb) -> None:
    web.files["b.jsonl"] = LINE
    web.redirects |= {"in/a.jsonl": "/b.jsonl", "in/list.txt": "/lists/all.txt"}
    web.files["lists/all.txt"] = b"a.jsonl"
    spec = SourceSpec(uri=f"{web.url}/in/list.txt")
    (file,) = discover(spec).files
    assert file.uri == f"{web.url}/in/a.jsonl"
    assert texts(file, spec) == ["hello"]


def test_a_redirect_to_another_site_is_refused(web: StubWeb) -> None:
    with stub_web() as other:
        other.files["b.jsonl"] = LINE
        web.redirects["in/a.jsonl"] = f"{other.url}/b.jsonl?sig=secret"
        (reject,) = discover(listing(web, "a.jsonl")).unreadable
        assert f"redirects to another site ({other.url}/b.jsonl)" in reject.detail
        assert other.requests == []


def test_redirects_in_a_circle_end(web: StubWeb) -> None:
    web.redirects["in/a.jsonl"] = "/in/a.jsonl"
    (reject,) = discover(listing(web, "a.jsonl")).unreadable
    assert "more than 5 redirects" in reject.detail


@pytest.mark.parametrize(
    ("url", "target", "is_same"),
    [
        ("http://a.org/x", "http://a.org/y", True),
        ("http://a.org/x", "https://a.org/y", True),
        ("https://a.org/x", "https://files.a.org/y", True),
        ("https://www.a.org/x", "https://a.org/y", True),
        ("https://a.org/x", "http://a.org/y", False),
        ("https://a.org/x", "https://b.org/y", False),
        ("https://a.org/x", "https://bad-a.org/y", False),
        ("http://a.org/x", "http://a.org:8080/y", False),
        ("http://a.org:8080/x", "https://a.org/y", False),
        ("https://a.org/x", "ftp://a.org/y", False),
        ("https://a.org/x", "file:///etc/passwd", False),
    ],
)
def test_a_site_is_a_host_and_those_below_it(url: str, target: str, is_same: bool) -> None:
    assert is_same_site(url, target) == is_same


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:secret@host/list.txt",
        "https://secret@host/list.txt",
        "https://host/a.jsonl?X-Amz-Signature=secret",
        "https://host/a.jsonl?sv=1&sig=secret",
        "https://host/list.txt?token=secret",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(uri: str, web: StubWeb) -> None:
    with pytest.raises(ValidationError, match=r"\.netrc") as refused:
        SourceSpec(uri=uri)
    with pytest.raises(UsageError, match=r"\.netrc") as caught:
        list(WEB.list(uri, StorageSpec(), Selection.of(SourceSpec(uri="."))))
    assert "secret" not in str(refused.value) + str(caught.value)
    (reject,) = discover(listing(web, uri.replace("list.txt", "b.jsonl"))).unreadable
    assert "secret" not in repr(reject)


def test_a_line_that_is_no_url_is_a_reject(web: StubWeb) -> None:
    spec = listing(web, "file:///etc/passwd", "s3://bucket/a.jsonl", format="text")
    found = discover(spec)
    assert ["is no http:// or https:// URL" in reject.detail for reject in found.unreadable] == [
        True, True
    ]  # fmt: skip


def test_a_password_comes_from_netrc_and_shows_nowhere(
    web: StubWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    web.password = "secret"
    web.files["in/a.jsonl"] = LINE
    spec = listing(web, "a.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SetupError, match=r"HTTP 401; put its credentials into ~/\.netrc"):
        discover(spec)
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    (file,) = discover(spec).files
    assert texts(file, spec) == ["hello"]
    assert "secret" not in repr(file) + caplog.text
    netrc.write_text("machine 127.0.0.1 secret\n")
    with pytest.raises(SetupError, match="correct its syntax") as caught:
        discover(spec)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "said"), [(404, "correct the URL"), (403, "netrc")])
def test_a_list_that_is_refused_is_named(web: StubWeb, status: int, said: str) -> None:
    spec = listing(web, "a.jsonl")
    web.statuses += [status]
    with pytest.raises(SetupError, match=f"cannot read source.uri: .*HTTP {status}; .*{said}"):
        discover(spec)


def test_a_file_that_is_not_there_leaves_the_others(web: StubWeb) -> None:
    web.files["in/a.jsonl"] = LINE
    found = discover(listing(web, "a.jsonl", "gone.jsonl"))
    assert [file.uri for file in found.files] == [f"{web.url}/in/a.jsonl"]
    assert "HTTP 404" in found.unreadable[0].detail


@pytest.mark.usefixtures("no_pauses")
def test_a_busy_server_is_asked_again_then_is_transient(web: StubWeb) -> None:
    web.files["in/a.jsonl"] = LINE
    spec = listing(web, "a.jsonl")
    web.statuses += [503, 429]
    assert len(discover(spec).files) == 1
    web.statuses += [503] * 5
    with pytest.raises(Transient, match="HTTP 503"):
        discover(spec)


def test_a_table_follows_a_list(web: StubWeb, tmp_path: Path) -> None:
    web.files |= {"in/a.jsonl": LINE, "in/b.jsonl": LINE.replace(b"hello", b"other")}
    recipe = recipe_for(
        tmp_path, source={"uri": listing(web, "a.jsonl", "b.jsonl").uri, "id": None}
    )
    assert run(recipe).documents == 2
    assert plan(recipe).is_empty
    web.files["in/a.jsonl"] = LINE.replace(b"hello", b"bye")
    assert [file.change for file in plan(recipe).files] == ["changed"]
    assert run(recipe).documents == 1
