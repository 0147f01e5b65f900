"""Answer queries over HTTP: a page, a JSON API, MCP, feedback.

Follows the tables' releases, encodes queries that wait together in one forward pass, and bounds
what waits. Knows neither a command line nor an orchestrator.
"""
