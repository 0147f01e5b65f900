"""The service as tools for assistants, by the Model Context Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from starlette.routing import BaseRoute, Route

from embedding_core.errors import EmbedlakeError
from embedding_core.reports.report import said
from embedding_core.server.answering.messages import FilterMessage, SearchMessage
from embedding_core.server.answering.service import SearchService

PATH = "/mcp"
MOST_TOOL_PASSAGES = 50
"""Passages of a document that a tool gives at once."""
INSTRUCTIONS = (
    "Search tables of text passages by meaning. table_info says which tables there are and what "
    "they can be filtered by; search finds passages; get_document gives the text around one."
)


@dataclass(frozen=True, slots=True)
class McpApplication:
    """The tools as routes of an application, and what runs behind them."""

    routes: list[BaseRoute]
    server: MCPServer[Any]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve sessions while the context lasts."""
        async with self.server.session_manager.run():
            yield


def mcp_application(service: SearchService) -> McpApplication:
    """The application with the tools ``search``, ``get_document`` and ``table_info``."""
    server = mcp_server(service)
    # Hosts and tokens are checked before a request comes here.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        transport_security=security,
    )
    (route,) = (route for route in app.routes if isinstance(route, Route))
    # A GET would wait for messages that no tool sends, for as long as its client likes.
    return McpApplication([Route(PATH, route.endpoint, methods=["POST"])], server)


def mcp_server(service: SearchService) -> MCPServer[Any]:
    """The tools, for any transport."""
    server: MCPServer[Any] = MCPServer("embedlake", instructions=INSTRUCTIONS, log_level="WARNING")

    def only_table(table: str | None) -> str:
        if table is None and len(service.tables) != 1:
            raise ToolError(f"say which table: {', '.join(service.tables)}")
        return table or next(iter(service.tables))

    @server.tool()
    async def search(
        query: str,
        table: str | None = None,
        k: int = 5,
        filters: list[FilterMessage] | None = None,
        hybrid: bool = False,
    ) -> dict[str, Any]:
        """Find the passages of a table that are nearest to a query in meaning."""
        with _explaining():
            message = SearchMessage(query=query, k=k, filters=filters or [], hybrid=hybrid)
            return _plain(await service.search(only_table(table), message))

    @server.tool()
    async def get_document(
        doc_id: str, table: str | None = None, source_uri: str | None = None, first: int = 0
    ) -> dict[str, Any]:
        """Give a document's text from passage number ``first`` on."""
        with _explaining():
            name = only_table(table)
            answer = await service.document(name, doc_id, source_uri, first, MOST_TOOL_PASSAGES)
            return _plain(answer)

    @server.tool()
    async def table_info(table: str | None = None) -> dict[str, Any]:
        """Say what tables there are, or what one has: rows, spaces, columns to filter by."""
        with _explaining():
            if table is None:
                return _plain(await service.table_list())
            return _plain(await service.table_info(table))

    return server


@contextmanager
def _explaining() -> Iterator[None]:
    """Tell an assistant what it did wrong, or what keeps the server from answering."""
    try:
        yield
    except ValidationError as error:
        raise ToolError("; ".join(str(problem["msg"]) for problem in error.errors())) from error
    except EmbedlakeError as error:
        raise ToolError(said(error)) from error


def _plain(answer: object) -> dict[str, Any]:
    content: dict[str, Any] = to_jsonable_python(answer, inf_nan_mode="null")
    return content
