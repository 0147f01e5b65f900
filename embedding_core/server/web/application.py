"""The application: routes of the page and the API around one search service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

import embedding_core
from embedding_core.errors import EmbedlakeError, RejectedInput, Transient, UsageError
from embedding_core.lake.readers.stored_documents import MOST_PASSAGES
from embedding_core.reports.report import said
from embedding_core.server.answering.messages import (
    ComparisonAnswer,
    ComparisonMessage,
    DocumentAnswer,
    FeedbackMessage,
    Health,
    Identifier,
    Problem,
    SearchAnswer,
    SearchMessage,
    Stored,
    TableInfo,
    TableList,
)
from embedding_core.server.answering.refusals import Busy, NotServed, invalid_words
from embedding_core.server.answering.service import SearchService
from embedding_core.server.web.guard import Access, Guard
from embedding_core.server.web.mcp_tools import mcp_application

SHARED_PAGES = "embedding_core.reports.pages"
PAGE = f"{__package__}.page"
ASSETS = {
    "style.css": (SHARED_PAGES, "text/css"),
    "theme.js": (SHARED_PAGES, "text/javascript"),
    "search.css": (PAGE, "text/css"),
    "search.js": (PAGE, "text/javascript"),
}
"""Files of the page: the package that each is in, and what it is."""
STATUSES: dict[type[Exception], int] = {
    Busy: 429,
    NotServed: 404,
    UsageError: 422,
    RejectedInput: 422,
    EmbedlakeError: 503,
}
"""HTTP status by class of error; the first that fits."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request is no HTTP, or its client left within it."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    403: {"model": Problem, "description": "A page of another site may not ask."},
    404: {"model": Problem, "description": "No such table or document."},
    405: {"model": Problem, "description": "The path takes another method."},
    408: {"model": Problem, "description": "The request was not complete in time."},
    413: {"model": Problem, "description": "The request is too long."},
    421: {"model": Problem, "description": "The server is not called so."},
    422: {"model": Problem, "description": "The request cannot be used; the error says why."},
    429: {"model": Problem, "description": "Too much at once; Retry-After says when to come."},
    503: {"model": Problem, "description": "The table, its store or its model does not answer."},
}


def application(service: SearchService, access: Access | None = None) -> FastAPI:
    """The application that serves ``service``, which it closes when it stops.

    Open the service before: else the first questions wait for it.
    """
    mcp = mcp_application(service)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        async with mcp.running():
            yield
        service.close()

    app = FastAPI(
        title="embedlake",
        version=embedding_core.__version__,
        description="Search the tables of a lake.",
        lifespan=life,
        docs_url=None,  # its page takes scripts from another host
        redoc_url=None,
        responses=PROBLEMS,
    )
    _add_page(app)
    _add_tables(app, service)
    _add_health(app, service)
    app.router.routes.extend(mcp.routes)
    app.add_exception_handler(EmbedlakeError, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _unforeseen)

    def count(route: str, status: int) -> None:
        service.telemetry.requests.labels(route, str(status)).inc()

    app.add_middleware(Guard, access=access or Access(), limits=service.limits, count=count)
    return app


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(_text(PAGE, "search.html"), media_type="text/html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404)
        package, media_type = ASSETS[name]
        return Response(_text(package, name), media_type=media_type)


def _add_tables(app: FastAPI, service: SearchService) -> None:
    @app.get("/api/tables", response_model=TableList, summary="All tables")
    async def tables() -> Response:
        return _json(await service.table_list())

    @app.get("/api/tables/{table}", response_model=TableInfo, summary="A table")
    async def table_info(table: str) -> Response:
        return _json(await service.table_info(table))

    @app.post("/api/tables/{table}/search", response_model=SearchAnswer, summary="Search")
    async def search(table: str, message: SearchMessage) -> Response:
        return _json(await service.search(table, message))

    @app.post(
        "/api/tables/{table}/compare", response_model=ComparisonAnswer, summary="Compare two spaces"
    )
    async def compare(table: str, message: ComparisonMessage) -> Response:
        return _json(await service.compare(table, message))

    @app.get("/api/tables/{table}/document", response_model=DocumentAnswer, summary="A document")
    async def document(
        table: str,
        doc_id: Identifier,
        source_uri: Identifier | None = None,
        first: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_PASSAGES)] = MOST_PASSAGES,
    ) -> Response:
        return _json(await service.document(table, doc_id, source_uri, first, limit))

    @app.post(
        "/feedback", response_model=Stored, status_code=201, summary="Say what a hit is worth"
    )
    async def feedback(message: FeedbackMessage) -> Response:
        return _json(await service.add_feedback(message), 201)


def _add_health(app: FastAPI, service: SearchService) -> None:
    @app.get("/healthz", response_model=Health, summary="Whether the server lives")
    async def healthz() -> Response:
        return _json(Health("ok" if await service.is_well() else "degraded"))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(await service.metrics(), media_type="text/plain; version=0.0.4")


@cache
def _text(package: str, name: str) -> str:
    """A text file of a package."""
    return files(package).joinpath(name).read_text("utf-8")


def _json(content: object, status: int = 200) -> Response:
    """Content as JSON, where NaN is null."""
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


async def _explained(_request: Request, error: Exception) -> Response:
    assert isinstance(error, EmbedlakeError)
    status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    response = _json(Problem(said(error), error.code), status)
    if isinstance(error, Transient):
        response.headers["Retry-After"] = str(max(1, round(error.pause_seconds)))
    return response


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [{**problem, "loc": problem["loc"][1:]} for problem in error.errors()]
    return _json(Problem(invalid_words(problems), "invalid"), 422)


async def _no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json(Problem(f"{error.detail}: see /openapi.json", "no_route"), error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _unforeseen(_request: Request, _error: Exception) -> Response:
    return _json(Problem("the server failed; its log says why", "failed"), 500)
