"""For the site: links to files beside ``docs/`` lead to the repository, named in pyproject.toml."""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Called by mkdocs when it has read mkdocs.yml."""
    project = tomllib.loads(Path(config.config_file_path).with_name("pyproject.toml").read_text())
    config.repo_url = project["project"]["urls"]["Source"]
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def there(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        if path.startswith("docs/"):
            return link[0]
        return f"]({config.repo_url.rstrip('/')}/blob/main/{path})"

    return LINK.sub(there, markdown)
