"""The map section: a function of the user's that makes documents of a record.

Its source is part of ``rows_id``, so what is executed are the very bytes that were digested. The
modules that it imports are not part of it.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, field_validator

from embedding_core.errors import UsageError, words
from embedding_core.recipe.section import Section

MapFunction = Callable[[dict[str, object]], object]
_NAME = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")


class MapSpec(Section):
    """A function that takes a record and gives one document, several or none."""

    function: str
    """``package.module:function``, looked for in ``folder`` and then on Python's path."""
    folder: str | None = None
    """Folder of the module or package; default: that of the recipe file."""
    fields: tuple[str, ...] | None = None
    """Names of the fields that the function reads; default: all that a record has. Of columnar
    files only these columns are read."""
    seconds: float = Field(default=30.0, gt=0)
    """Longest time for one record; it is rejected when the function takes more."""
    documents: int = Field(default=1_000, ge=1)
    """Most documents that one record may give; it is rejected when it gives more."""

    @field_validator("function")
    @classmethod
    def _is_a_name(cls, function: str) -> str:
        if _NAME.fullmatch(function) is None or function.startswith("__main__:"):
            raise ValueError(f"{function!r} names no function; write package.module:function")
        return function

    def hashed(self) -> dict[str, Any]:
        """What decides rows: the function, its source, and what it is given and may give.

        Raises ``UsageError`` when its module cannot be found.
        """
        return {
            "function": self.function,
            "source": source_of(self).digest,
            "fields": self.fields,
            "documents": self.documents,
        }

    def load(self) -> MapFunction:
        """The function; the same as long as its source stays the same.

        Raises ``UsageError`` when it cannot be imported or called.
        """
        source = source_of(self)
        name = self.function.partition(":")[2]
        function: Any = getattr(_module(source, self), name, None)
        if not callable(function):
            problem = "has no such function" if function is None else "has no function there"
            raise self.unusable(f"{source.path} {problem}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise self.unusable("it is async; write a plain function")
        chosen: MapFunction = function
        return chosen

    def unusable(self, problem: str) -> UsageError:
        """The error of a function that cannot be used."""
        return UsageError(f"source.map {self.function!r} cannot be used: {problem}")


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """The source of a module."""

    found_by: ModuleSpec
    path: str
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the source file."""
        return hashlib.sha256(self.content).hexdigest()


def written_out(section: Any) -> Any:
    """A function's name alone stands for a section with the defaults."""
    if isinstance(section, str):
        return {"function": section}
    return section


def source_of(spec: MapSpec) -> ModuleSource:
    """The source of the module that a map names. Raises ``UsageError`` when it cannot be found."""
    name = spec.function.partition(":")[0]
    try:
        module_spec = _in_folder(name, spec.folder) or find_spec(name)
    except ModuleNotFoundError as error:
        raise _not_found(spec, words(error)) from error
    except Exception as error:  # its package is imported on the way, and may do anything
        raise spec.unusable(f"its package raised {type(error).__name__}: {words(error)}") from error
    if module_spec is None:
        raise _not_found(spec, f"No module named {name!r}")
    path = module_spec.origin or ""
    if not path.endswith(".py"):
        raise spec.unusable(
            f"the module {name!r} has no source file, whose digest is part of rows_id; put the "
            "function into a .py file"
        )
    try:
        return ModuleSource(module_spec, path, Path(path).read_bytes())
    except OSError as error:
        raise spec.unusable(words(error)) from error


def _in_folder(name: str, folder: str | None) -> ModuleSpec | None:
    """The module below a folder; its packages are not imported."""
    if folder is None:
        return None
    PathFinder.invalidate_caches()
    folders: list[str] | None = [folder]
    module_spec = None
    parts = name.split(".")
    for number in range(len(parts)):
        module_spec = PathFinder.find_spec(".".join(parts[: number + 1]), folders)
        if module_spec is None:
            return None
        folders = module_spec.submodule_search_locations
    return module_spec


def _not_found(spec: MapSpec, problem: str) -> UsageError:
    folder = "" if spec.folder is None else f"in {spec.folder} nor "
    return spec.unusable(
        f"{problem}, neither {folder}on Python's path of this machine; put the module beside the "
        "recipe, name its folder as source.map.folder, or install it (on every node of a cluster)"
    )


_modules: dict[str, tuple[bytes, ModuleType]] = {}
"""The modules of this process by path, each with the source that it was made of."""


def _module(source: ModuleSource, spec: MapSpec) -> ModuleType:
    """The module that this source makes. A module that somebody imported before stays as it is."""
    content, module = _modules.get(source.path, (None, None))
    if module is not None and content == source.content:
        return module
    if spec.folder is not None and spec.folder not in sys.path:
        sys.path.append(spec.folder)  # for what the module imports; last, so that it hides nothing
    module = module_from_spec(source.found_by)
    is_first = sys.modules.setdefault(module.__name__, module) is module
    try:
        code = compile(source.content, source.path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        if is_first:
            del sys.modules[module.__name__]
        raise spec.unusable(
            f"importing {source.path} raised {type(error).__name__}: {words(error)}"
        ) from error
    _modules[source.path] = source.content, module
    return module
