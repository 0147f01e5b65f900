"""The service over HTTP: a page, a JSON API, MCP, and what guards them."""
