"""For the site: links to files beside ``docs/`` lead to the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def there(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        if path.startswith("docs/"):
            return link[0]
        return f"]({config.repo_url.rstrip('/')}/blob/main/{path})"

    return LINK.sub(there, markdown)
