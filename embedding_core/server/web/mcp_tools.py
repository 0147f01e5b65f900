"""The service as tools for assistants, by the Model Context Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python
from starlette.routing import BaseRoute, Route

from embedding_core.errors import EmbedlakeError
from embedding_core.reports.report import said
from embedding_core.server.answering.messages import (
    MOST_HITS,
    FilterMessage,
    Identifier,
    SearchMessage,
    Words,
)
from embedding_core.server.answering.refusals import invalid_words
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
    server = _Tools("embedlake", instructions=INSTRUCTIONS, log_level="WARNING")

    def only_table(table: str | None) -> str:
        if table is None and len(service.tables) != 1:
            raise ToolError(f"say which table: {', '.join(service.tables)}")
        return table or next(iter(service.tables))

    @server.tool()
    async def search(
        query: Words,
        table: Identifier | None = None,
        k: Annotated[int, Field(ge=1, le=MOST_HITS)] = 5,
        filters: list[FilterMessage] | None = None,
        hybrid: bool = False,
    ) -> dict[str, Any]:
        """Find the passages of a table that are nearest to a query in meaning."""
        with _explaining():
            message = SearchMessage(query=query, k=k, filters=filters or [], hybrid=hybrid)
            return _plain(await service.search(only_table(table), message))

    @server.tool()
    async def get_document(
        doc_id: Identifier,
        table: Identifier | None = None,
        source_uri: Identifier | None = None,
        first: Annotated[int, Field(ge=0)] = 0,
    ) -> dict[str, Any]:
        """Give a document's text from passage number ``first`` on."""
        with _explaining():
            name = only_table(table)
            answer = await service.document(name, doc_id, source_uri, first, MOST_TOOL_PASSAGES)
            return _plain(answer)

    @server.tool()
    async def table_info(table: Identifier | None = None) -> dict[str, Any]:
        """Say what tables there are, or what one has: rows, spaces, columns to filter by."""
        with _explaining():
            if table is None:
                return _plain(await service.table_list())
            return _plain(await service.table_info(table))

    return server


class _Tools(MCPServer[Any]):
    """Tools that are strict: an assistant that misspells ``filters`` is told, and not answered as
    if it had given none."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool. Raises ``ToolError`` that names what was wrong with its arguments."""
        schemas = {tool.name: tool.input_schema for tool in await self.list_tools()}
        names = schemas[name]["properties"] if name in schemas else arguments
        if unknown := [argument for argument in arguments if argument not in names]:
            raise ToolError(f"{name} takes no {unknown[0][:80]!r}; it takes {', '.join(names)}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(invalid_words(error.__cause__.errors())) from error
            raise


@contextmanager
def _explaining() -> Iterator[None]:
    """Tell an assistant what it did wrong, or what keeps the server from answering."""
    try:
        yield
    except EmbedlakeError as error:
        raise ToolError(said(error)) from error


def _plain(answer: object) -> dict[str, Any]:
    content: dict[str, Any] = to_jsonable_python(answer, inf_nan_mode="null")
    return content
